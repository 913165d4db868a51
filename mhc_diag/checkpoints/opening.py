"""Opening a checkpoint of any format: the one way in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from mhc_diag.checkpoints.checkpoint import Checkpoint
from mhc_diag.checkpoints.detect import detect, detect_file
from mhc_diag.checkpoints.folder import open_folder, open_index
from mhc_diag.checkpoints.location import Contents
from mhc_diag.checkpoints.npz import open_npz
from mhc_diag.checkpoints.refused import REFUSED, refusal
from mhc_diag.checkpoints.safetensors_file import open_safetensors
from mhc_diag.checkpoints.source import ByteSource
from mhc_diag.checkpoints.torch_zip import open_torch_zip

_FILES: Mapping[str, Callable[[ByteSource], Contents]] = {
    "torch-zip": open_torch_zip,
    "safetensors": open_safetensors,
    "npz": open_npz,
}


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint: names, shapes and settings are read, tensors only when asked for.

    Nothing that the file contains is executed, whatever its format. Use it as a context manager.

    Args:
        path: a torch zip (.pt, .pth, .bin, .ckpt), safetensors or npz file, an index of shards, or
            a Hugging Face folder.

    Raises:
        CheckpointError: missing, damaged, hostile, of another format, or without tensors.
    """
    return Checkpoint(str(path), read_contents(path))


def read_contents(path: str | Path) -> Contents:
    """Names and places of the tensors, by the path's kind; a refused kind is an error.

    Raises:
        CheckpointError: as for :func:`open_checkpoint`.
    """
    if not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises for names that are too long
        kind = detect(path)  # a folder, or the error for what is neither
        if kind in REFUSED:
            raise refusal(path, kind)
        return open_folder(Path(path))
    source = ByteSource(path)
    try:
        kind = detect_file(source)
        if kind in REFUSED:
            raise refusal(path, kind)
        if kind in _FILES:
            return _FILES[kind](source)
    except BaseException:
        source.close()
        raise
    source.close()
    return open_index(Path(path))
