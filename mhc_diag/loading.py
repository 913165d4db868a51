"""Models that run, and what they run on: "what the user named" -> module and arguments.

Torch, transformers and the user's own code are imported inside the functions that need them.

Letters: B sequences, S tokens in each.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhc_diag import token_ids
from mhc_diag.errors import MissingExtraError, ModelError, OptionError

if TYPE_CHECKING:
    from torch import nn

_LONGEST_MESSAGE = 300
"""Characters of a foreign exception's text that fit into one short paragraph."""


def load_callable(spec: str, *, option: str = "--model") -> Callable[..., Any]:
    """Import ``"module:callable"``, the working directory first, as ``python -m`` does.

    Args:
        spec: a module's import name, a colon, a name in it (dots allowed).
        option: what asked for it, for the error.

    Raises:
        OptionError: not of that form; no such module; no such name; not callable.
        ModelError: the module raised while it was imported.
    """
    asked = f"{option} {spec!r}"
    module_name, _, name = spec.partition(":")
    if not (name and all(part.isidentifier() for part in f"{module_name}.{name}".split("."))):
        do = "Write MODULE:CALLABLE with the module's import name, such as 'train:build_model'."
        raise OptionError(asked, "that does not name a callable", do)
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:  # noqa: PTH109  a string, as sys.path holds
        sys.path.insert(0, here)
    value: Any = _import(module_name, asked)
    for part in name.split("."):
        if not hasattr(value, part):
            do = "Name a function or class that the module defines."
            raise OptionError(asked, f"module {module_name!r} has no {name!r}", do)
        value = getattr(value, part)
    if not callable(value):
        came = f"{name!r} is of type {type(value).__name__}, not callable"
        raise OptionError(asked, came, "Name a function or class.")
    return value  # type: ignore[no-any-return]  # whatever the user's module holds, it is callable


def _import(name: str, asked: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(asked, f"importing {name!r}", error) from error
        do = f"Run from the folder that holds it (now {os.getcwd()!r}), or set PYTHONPATH."  # noqa: PTH109  see above
        raise OptionError(asked, f"there is no module {error.name!r}", do) from error
    except (Exception, SystemExit) as error:  # a script that parses options on import calls exit()
        raise _failed(asked, f"importing {name!r}", error) from error


def told(error: BaseException) -> str:
    """Type and text of a foreign exception, cut so that they fit into one short paragraph."""
    text = " ".join(str(error).split()).rstrip(".")
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE].rstrip()} ..."
    return f"{type(error).__name__}{': ' if text else ''}{text}"


def _failed(asked: str, doing: str, error: BaseException) -> ModelError:
    """The user's own code raised: say what, briefly; --traceback shows where."""
    came = f"{doing} raised {told(error)}"
    return ModelError(asked, came, "That is outside mhc-diag; --traceback shows where.")


def build_model(model: str | Callable[..., Any], checkpoint_path: str | Path) -> nn.Module:
    """Build the user's model with the checkpoint's weights, in evaluation mode.

    Args:
        model: a callable or ``"module:callable"``; it is called with the checkpoint as a mapping of
            torch tensors and plain Python values, read without running any pickled code.
        checkpoint_path: the file or folder.

    Raises:
        OptionError: the callable cannot be found.
        ModelError: it raised, or returned something that is no torch module.
        CheckpointError: the file cannot be read.
    """
    import torch

    from mhc_diag.checkpoints.plain import load_plain

    name = model if isinstance(model, str) else getattr(model, "__qualname__", repr(model))
    asked = f"build the model with {name!r}"
    function = load_callable(model) if isinstance(model, str) else model
    checkpoint = load_plain(checkpoint_path)
    try:
        built = function(checkpoint)
    except (Exception, SystemExit) as error:
        raise _failed(asked, "it", error) from error
    if not isinstance(built, torch.nn.Module):
        came = f"it returned a value of type {type(built).__name__}"
        raise ModelError(asked, came, "Return a torch.nn.Module with the weights loaded.")
    return built.eval()


def model_from_hf_folder(path: str | Path) -> nn.Module:
    """Build the model of a Hugging Face folder with transformers' Auto classes.

    A causal language model where the configuration has one, else the bare model. Nothing is
    downloaded and no code of the folder is run.

    Raises:
        MissingExtraError: transformers is not installed.
        ModelError: transformers does not know the model, cannot load it, or would have to invent
            weights that the folder lacks.
    """
    asked = f"build the model of {str(path)!r}"
    transformers = _transformers(asked)
    try:
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
        causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        model, report = auto.from_pretrained(
            path, trust_remote_code=False, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError) as error:
        raise _failed(asked, "transformers", error) from error
    if absent := sorted({*report["missing_keys"], *report["mismatched_keys"]}, key=str):
        came = f"{len(absent)} weights are missing or of another shape, {absent[0]!r} for one"
        do = (
            "Random numbers would be measured in their place; give the complete folder, or --model."
        )
        raise ModelError(asked, came, do)
    built: nn.Module = model.eval()
    return built


def _transformers(asked: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        do = "pip install transformers, or build the model yourself with --model MODULE:CALLABLE."
        raise MissingExtraError(asked, "transformers is not installed", do) from error
    return transformers


def placed(model: nn.Module, device: str) -> nn.Module:
    """The model on a device.

    Raises:
        OptionError: this machine, or this build of torch, does not have the device.
        ModelError: the model does not fit there.
    """
    import torch

    asked = f"run the model on {device!r}"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        came = f"torch finds {count or 'no'} CUDA device{'s' * (count > 1)} here"
        do = "Leave --device out to run on the CPU, or run where 'nvidia-smi' shows that GPU."
        raise OptionError(asked, came, do)
    try:
        return model.to(device)
    except RuntimeError as error:
        do = "Leave --device out to run on the CPU, or name another device."
        raise ModelError(asked, f"torch raised {told(error)}", do) from error


def vocabulary_size(model: nn.Module) -> int | None:
    """How many token ids the model knows, where it says so.

    From the configuration, else from the input embedding (the largest ``nn.Embedding``, when that
    is the first); None where neither settles it.
    """
    import torch

    config: Any = getattr(model, "config", None)
    for holder in (config, getattr(config, "text_config", None)):
        size = getattr(holder, "vocab_size", None)
        if isinstance(size, int) and size > 0:
            return size
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    return tables[0] if tables and tables[0] == max(tables) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The arguments of one forward pass, and what they are."""

    args: tuple[Any, ...]
    """Positional arguments of the model."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the model."""
    description: str
    """"sha256:..." of the token ids, or what stands in their place, and whether a text was cut;
    part of a result's identity."""
    is_data: bool = True
    """False for ids drawn at random: they are no text that anybody wrote."""


def load_inputs(
    spec: str,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    vocab_size: int | None = None,
) -> Inputs:
    """Make the arguments of one forward pass from what ``--inputs`` says.

    Args:
        spec: a file of token ids [B, S] (.npy, .pt, .json); a text (.txt), tokenised by the
            tokenizer in ``folder``; ``random:BxS``; or ``module:callable``, which returns the
            arguments: a tuple (positional), a mapping (keywords) or one value.
        seed: of the ids that are drawn at random.
        folder: the Hugging Face folder, where there is one.
        vocab_size: ids from here on are refused; None where it is not known.

    Raises:
        OptionError: none of these, or not token ids.
        ModelError: the callable raised.
        MissingExtraError: text, and transformers is not installed.
    """
    suffix = Path(spec).suffix
    asked = f"--inputs {spec!r}"
    if spec.startswith("random:"):
        ids = token_ids.random_ids(spec, seed=seed, vocab_size=vocab_size)
        return _of_ids(ids, description=f"{spec} seed {seed}, not data", is_data=False)
    if suffix == ".txt":
        ids, note = token_ids.tokenise(Path(spec), folder)
        ids = token_ids.checked(ids, asked, vocab_size=vocab_size)
        return _of_ids(ids, description=f"sha256:{_digest(ids)}{note and f' ({note})'}")
    if suffix in token_ids.READERS:
        ids = token_ids.read_ids(Path(spec))
        return _of_ids(token_ids.checked(ids, asked, vocab_size=vocab_size))
    if ":" in spec:
        return _of_callable(spec, asked)
    do = "Give .npy, .pt, .json (token ids), .txt, random:BxS or MODULE:CALLABLE."
    raise OptionError(asked, "that is none of the inputs that can be read", do)


def _of_ids(ids: token_ids.Ids, *, description: str = "", is_data: bool = True) -> Inputs:
    import torch

    return Inputs(
        args=(torch.from_numpy(ids),),
        description=description or f"sha256:{_digest(ids)}",
        is_data=is_data,
    )


def _of_callable(spec: str, asked: str) -> Inputs:
    """Call the user's function; the description holds a hash of every array it returned."""
    function = load_callable(spec, option="--inputs")
    try:
        value = function()
    except (Exception, SystemExit) as error:
        raise _failed(asked, "it", error) from error
    if isinstance(value, Mapping):
        args, kwargs = (), {str(key): item for key, item in value.items()}
    else:
        args, kwargs = (value if isinstance(value, tuple) else (value,)), {}
    if not (args or kwargs):
        raise ModelError(asked, "it returned no arguments", "Return the arguments of the model.")
    arrays = [a for a in (*args, *kwargs.values()) if hasattr(a, "shape") and hasattr(a, "dtype")]
    hashes = f" sha256:{_digest(*arrays)}" if arrays else ""
    return Inputs(args=args, kwargs=kwargs, description=f"{spec}{hashes}")


def _digest(*arrays: Any) -> str:
    """sha256 over type, shape and values of arrays or tensors, in order."""
    import numpy as np

    digest = hashlib.sha256()
    for array in arrays:
        plain = array
        if hasattr(array, "detach"):  # a torch tensor; numpy has no bfloat16
            plain = array.detach().cpu()
            plain = plain.float() if plain.is_floating_point() else plain
        values = np.ascontiguousarray(plain)
        digest.update(f"{values.dtype.str}{list(values.shape)}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
