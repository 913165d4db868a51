"""Which format a path is, by its content; the suffix is never looked at."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Collection
from pathlib import Path

from mhc_diag.checkpoints.safetensors_file import read_header
from mhc_diag.checkpoints.source import ByteSource, fault
from mhc_diag.checkpoints.strict_json import MAX_JSON
from mhc_diag.checkpoints.zip_directory import read_directory

INDEX = ".index.json"
_HEAD = 512
_MAGIC = (
    (b"GGUF", "gguf"),
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n", "hdf5"),
    (b"\x1f\x8b", "gzip"),
    (b"version https://git-lfs", "lfs-pointer"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "torch-legacy"),
)
TRACE_KEY = "mhc_diag"
"""Key in a safetensors header's metadata that marks a trace."""


def detect(path: str | Path) -> str:
    """The kind of a file or folder.

    Returns:
        torch-zip, safetensors, sharded-safetensors (a folder or its index), hf-folder, npz, trace,
        run, or a key of ``refused.REFUSED``.

    Raises:
        CheckpointError: missing, empty, unreadable, or damaged so that nothing can be told.
    """
    place = Path(path)
    if "://" in str(path):
        raise fault(path, "addresses are not read", "Download the file and give its path.")
    try:
        if os.path.isdir(place):  # noqa: PTH112  Path.is_dir raises for names too long
            return _folder(place)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise fault(path, why, "Check the path and its permissions.") from error
    with ByteSource(place) as source:
        return detect_file(source)


def detect_file(source: ByteSource) -> str:
    """The kind of an open file; see :func:`detect`."""
    head = source.read_metadata(0, min(_HEAD, source.size))
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(read_directory(source))
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if len(head) > 8 and head[8:9] == b"{" and 0 in head[:8]:
        _, metadata, _ = read_header(source)
        return "trace" if TRACE_KEY in metadata else "safetensors"
    if head[257:262] == b"ustar":
        return "torch-tar" if b"pickle" in head or b"storages" in head else "tar"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    return _text(source, head)


def _archive(names: Collection[str]) -> str:
    """What a zip archive is, by the names in it."""
    tops = {name.partition("/")[2] for name in names}
    if "archive_format" in tops:
        return "torch-export"
    if "constants.pkl" in tops or any(name.startswith("code/") for name in tops):
        return "torchscript"
    if "data.pkl" in tops or "data.pkl" in names:
        return "torch-zip"
    if names and any(name.endswith(".npy") for name in names):
        return "npz"
    return "zip"


def _text(source: ByteSource, head: bytes) -> str:
    """JSON, HTML, other text, or unknown."""
    try:
        # The cut may split a character, which an incremental decoder keeps back.
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < _HEAD)
        text = text.lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return "unknown"
    if not all(c.isprintable() or c.isspace() for c in text):
        return "unknown"
    if text.lower().startswith(("<!doctype", "<html")):
        return "html"
    if text.startswith("{") and source.size <= MAX_JSON:
        try:
            value = json.loads(source.read_metadata(0, source.size))
        except (ValueError, RecursionError):
            return "text"
        return "sharded-safetensors" if "weight_map" in value else "json"
    return "text"


def _folder(folder: Path) -> str:
    """What a folder is, by the files in it.

    Raises:
        CheckpointError: nothing in it that belongs to a checkpoint.
    """
    names = sorted(entry.name for entry in folder.iterdir())
    if "run.json" in names:
        return "run"
    if any(name.endswith(INDEX) for name in names) or weight_files(names):
        return "hf-folder" if "config.json" in names else "sharded-safetensors"
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return "dcp"
    if "_METADATA" in names or "_CHECKPOINT_METADATA" in names:
        return "orbax"
    if any(name.startswith(("mp_rank_", "zero_pp_rank_")) for name in names):
        return "deepspeed"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
    raise fault(
        folder,
        f"the folder holds no weights that we know (it holds {shown})",
        "Give a checkpoint file, or a folder with config.json and model*.safetensors.",
    )


def weight_files(names: list[str]) -> list[str]:
    """The files of a folder without index that hold the weights, by the names in use."""
    for head, tail in (("model", ".safetensors"), ("", ".safetensors"), ("pytorch_model", ".bin")):
        found = [
            name
            for name in names
            if name.startswith(head) and name.endswith(tail) and ".trace." not in name
        ]
        if head or len(found) == 1:
            if found:
                return [f"{head}{tail}"] if f"{head}{tail}" in found else found
        elif found:
            return []  # several files of unknown names: not ours to choose
    return []
