"""Token ids from files: .npy, .pt, .json, .txt -> int64 [B, S].

Letters: B sequences, S tokens in each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mhc_diag.errors import MissingExtraError, OptionError

Ids = np.ndarray[tuple[int, int], np.dtype[np.int64]]
"""Token ids [B, S]."""

LONGEST_TEXT = 2048
"""Tokens taken from the start of a .txt file; attention over more would not fit most machines."""

_WANTED = "Give whole numbers of shape [B, S]: B sequences of S token ids each."


def read_ids(path: Path) -> Ids:
    """Read token ids from a .npy, .pt or .json file, by its suffix.

    A mapping with an entry ``input_ids``, as tokenizers return it, counts as that entry.

    Raises:
        OptionError: the file is missing, broken, or holds something else.
    """
    asked = f"--inputs {str(path)!r}"
    try:
        content = READERS[path.suffix](path)
    except FileNotFoundError as error:
        raise OptionError(asked, "there is no such file", "Check the path.") from error
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        came = f"it cannot be read as {path.suffix} ({' '.join(str(error).split())[:120]})"
        raise OptionError(asked, came, _WANTED) from error
    if isinstance(content, Mapping):
        if "input_ids" not in content:
            raise OptionError(asked, "it holds a mapping without 'input_ids'", _WANTED)
        content = content["input_ids"]
    return checked(content, asked)


def _read_npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_pt(path: Path) -> Any:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch muses about a broken file before it refuses it
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # what weights_only refuses to run, and broken files
        raise ValueError("not a plain tensor file") from error


READERS = {".npy": _read_npy, ".pt": _read_pt, ".json": _read_json}
"""Suffix -> reader."""


def checked(content: Any, asked: str, *, vocab_size: int | None = None) -> Ids:
    """Return ``content`` as int64 [B, S].

    Raises:
        OptionError: ragged, not whole numbers, not two axes, empty, or ids out of the vocabulary.
    """
    try:
        array = np.asarray(content)
    except (ValueError, TypeError, RuntimeError) as error:
        came = "it is no array: the sequences differ in length, or hold no numbers"
        raise OptionError(asked, came, _WANTED) from error
    if array.dtype.kind not in "iu":
        raise OptionError(asked, f"it holds {array.dtype} values, not whole numbers", _WANTED)
    if array.ndim != 2 or 0 in array.shape:
        raise OptionError(asked, f"its shape is {list(array.shape)}", _WANTED)
    low, high = int(array.min()), int(array.max())
    top = np.iinfo(np.int64).max if vocab_size is None else vocab_size - 1
    if low < 0 or high > top:
        bad = low if low < 0 else high
        do = "Give ids from 0 up." if vocab_size is None else f"The model knows ids 0 to {top}."
        raise OptionError(asked, f"id {bad} is outside the vocabulary", do)
    return array.astype(np.int64)


def random_ids(spec: str, *, seed: int, vocab_size: int | None) -> Ids:
    """Seeded uniform ids for ``random:BxS``; no text that anybody wrote.

    Raises:
        OptionError: not of that form, or the vocabulary is not known.
    """
    asked = f"--inputs {spec!r}"
    found = re.fullmatch(r"random:([1-9]\d{0,5})x([1-9]\d{0,6})", spec)
    if found is None:
        do = "Write random:BxS, B sequences of S tokens, such as random:4x256."
        raise OptionError(asked, "that is no shape", do)
    if vocab_size is None:
        do = "Give ids in a file, or a callable that returns the model's arguments."
        raise OptionError(asked, "the model does not say how many token ids it knows", do)
    rng = np.random.default_rng(seed)
    ids: Ids = rng.integers(0, vocab_size, (int(found[1]), int(found[2])), dtype=np.int64)
    return ids


def tokenise(path: Path, folder: str | Path | None) -> tuple[Ids, str]:
    """The text of a .txt file as one sequence of ids [1, S], by the folder's own tokenizer.

    Returns:
        The ids, and a note where the text was cut ("" where it was not).

    Raises:
        OptionError: no folder with a tokenizer, or a text that is missing, empty or not UTF-8.
        MissingExtraError: transformers is not installed.
    """
    asked = f"--inputs {str(path)!r}"
    if folder is None:
        do = "Give token ids (.npy, .pt, .json), or a Hugging Face folder with its tokenizer."
        raise OptionError(asked, "text needs a tokenizer, and a checkpoint file has none", do)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        came = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise OptionError(asked, came, "Give a UTF-8 text file.") from error
    ids = _tokenizer(asked, folder)(text, verbose=False)["input_ids"]
    whole = checked([ids] if ids else np.empty((1, 0), np.int64), asked)
    cut: Ids = whole[:, :LONGEST_TEXT]
    if cut.shape == whole.shape:
        return cut, ""
    return cut, f"{path.name}: the first {cut.shape[1]} of its {whole.shape[1]} tokens"


def _tokenizer(asked: str, folder: str | Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        do = "pip install transformers, or give token ids."
        raise MissingExtraError(asked, "transformers, which tokenises, is missing", do) from error
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        came = f"{str(folder)!r} has no tokenizer that transformers can load"
        raise OptionError(asked, came, "Give token ids (.npy, .pt, .json) instead.") from error
