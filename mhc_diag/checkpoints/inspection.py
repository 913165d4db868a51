"""What a checkpoint is, from its headers alone: the file's side of ``mhc-diag inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhc_diag.checkpoints.checkpoint import Checkpoint
from mhc_diag.checkpoints.opening import open_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Facts about one checkpoint; no tensor data was read for them."""

    path: str
    format: str
    """torch-zip, safetensors, sharded-safetensors, hf-folder or npz."""
    size: int
    """Bytes on disk of the files that hold the weights."""
    tensors: int
    """Number of tensors of the model."""
    tensor_bytes: int
    """Bytes of their elements; a tensor with two names counts twice."""
    dtypes: Mapping[str, int]
    """Element type -> number of tensors."""
    config: Mapping[str, Any]
    """Plain settings that the file or its config.json states."""
    step: int | None
    """Training step, None when the file does not say."""
    foreign_globals: tuple[str, ...]
    """Pickled classes and functions that were not executed."""
    notes: tuple[str, ...]
    """Sentences about what was left out."""
    bytes_read: int
    """Bytes that were read to know this."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready plain values, keys in the order of the fields."""
        return {
            "path": self.path,
            "format": self.format,
            "size": self.size,
            "tensors": self.tensors,
            "tensor_bytes": self.tensor_bytes,
            "dtypes": dict(self.dtypes),
            "config": dict(self.config),
            "step": self.step,
            "foreign_globals": list(self.foreign_globals),
            "notes": list(self.notes),
            "bytes_read": self.bytes_read,
        }


def inspection_of(checkpoint: Checkpoint) -> Inspection:
    """The facts about an open checkpoint."""
    dtypes: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        dtypes[info.dtype] = dtypes.get(info.dtype, 0) + 1
    return Inspection(
        path=checkpoint.path,
        format=checkpoint.format,
        size=checkpoint.size,
        tensors=len(checkpoint.tensors),
        tensor_bytes=sum(info.nbytes for info in checkpoint.tensors.values()),
        dtypes=dtypes,
        config=checkpoint.config,
        step=checkpoint.step,
        foreign_globals=checkpoint.foreign_globals,
        notes=checkpoint.notes,
        bytes_read=checkpoint.bytes_read,
    )


def inspect_file(path: str | Path) -> Inspection:
    """Open a checkpoint, note the facts, close it.

    Raises:
        CheckpointError: as for :func:`~mhc_diag.checkpoints.opening.open_checkpoint`.
    """
    with open_checkpoint(path) as checkpoint:
        return inspection_of(checkpoint)
