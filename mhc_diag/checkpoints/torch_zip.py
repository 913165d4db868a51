"""torch.save's zip archive: data.pkl says what there is, data/<key> are the storages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mhc_diag.checkpoints.dtypes import nbytes, storage_type
from mhc_diag.checkpoints.inert import InertPickleError, StorageRef, TensorRef
from mhc_diag.checkpoints.location import MAX_EXPANDED, Contents, Location, read_tensor, span
from mhc_diag.checkpoints.settings import plain_config
from mhc_diag.checkpoints.source import ByteSource
from mhc_diag.checkpoints.tree import STEPS, TreeError, pick_weights, step_of
from mhc_diag.checkpoints.unpickle import unpickle
from mhc_diag.checkpoints.zip_directory import (
    Record,
    data_start,
    read_directory,
    require_stored,
)

PICKLE = "data.pkl"


class TorchArchive:
    """One torch zip: the pickle followed without running it, and its storages by key.

    Args:
        source: the file.

    Raises:
        CheckpointError: no data.pkl, damaged or compressed records, or a pickle that lies.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.records = read_directory(source)
        self.prefix = _prefix(source, self.records)
        if self._text("byteorder") == b"big":
            raise source.fault(
                "it was saved on a big-endian machine", "Save it again on a little-endian one."
            )
        try:
            self.root, self.foreign = unpickle(self._bytes(PICKLE))
        except InertPickleError as error:
            raise source.fault(f"{PICKLE} cannot be followed: {error}") from error
        self._places: dict[str, tuple[int, int]] = {}

    def _bytes(self, name: str) -> bytes:
        """One small record, whole."""
        record = self.records[self.prefix + name]
        require_stored(self.source, record)
        return self.source.read_metadata(data_start(self.source, record), record.size)

    def _text(self, name: str) -> bytes:
        """One small optional record, empty when it is not there."""
        return self._bytes(name).strip() if self.prefix + name in self.records else b""

    def place(self, storage: StorageRef) -> tuple[int, int]:
        """Position and bytes of a storage, checked against the archive.

        Raises:
            CheckpointError: no such record, compressed, or smaller than declared.
        """
        if storage.key not in self._places:
            record = self.records.get(f"{self.prefix}data/{storage.key}")
            if record is None:
                raise self.source.fault(f"the storage {storage.key!r} of a tensor is missing")
            require_stored(self.source, record)
            self._places[storage.key] = (data_start(self.source, record), record.size)
        start, size = self._places[storage.key]
        declared = nbytes(storage.dtype or "uint8", storage.count)
        if declared > size:
            raise self.source.fault(
                f"storage {storage.key!r} declares {declared} bytes and has {size}"
            )
        return start, size

    def locate(self, name: str, tensor: TensorRef) -> Location:
        """The bytes of a tensor.

        Raises:
            CheckpointError: the view leaves its storage, or is far larger than it.
        """
        start, size = self.place(tensor.storage)
        itemsize = storage_type(tensor.dtype).itemsize
        length = span(tensor.shape, tensor.stride) * itemsize
        first = tensor.offset * itemsize
        if first + length > size:
            raise self.source.fault(
                f"tensor {name!r} reaches to byte {first + length} of a storage of {size}"
            )
        if math.prod(tensor.shape) * itemsize > max(size, MAX_EXPANDED):
            raise self.source.fault(
                f"tensor {name!r} of shape {list(tensor.shape)} expands a storage of {size} bytes",
                "Save it with .contiguous().",
            )
        return Location(
            source=self.source,
            start=start + first,
            length=length,
            dtype=tensor.dtype,
            shape=tensor.shape,
            stride=tensor.stride,
        )


def open_torch_zip(source: ByteSource) -> Contents:
    """The weights of a torch checkpoint: state dict at any depth, optimizer left out.

    Raises:
        CheckpointError: damaged, hostile, or without a tensor.
    """
    archive = TorchArchive(source)
    try:
        weights = pick_weights(archive.root)
        config = plain_config(archive.root)
    except TreeError as error:
        raise source.fault(str(error)) from error
    tensors = {name: archive.locate(name, tensor) for name, tensor in weights.tensors.items()}
    return Contents(
        format="torch-zip",
        tensors=tensors,
        sources=(source,),
        config=config,
        step=step_of(_steps(archive)),
        foreign_globals=archive.foreign,
        notes=(*weights.notes, *_unread(archive.foreign)),
    )


def _steps(archive: TorchArchive) -> dict[str, Any]:
    """Top-level values named like a step; one-element integer tensors are read."""
    if not isinstance(archive.root, dict):
        return {}
    found: dict[str, Any] = {key: archive.root[key] for key in STEPS if key in archive.root}
    for key, value in found.items():
        if isinstance(value, TensorRef) and math.prod(value.shape) == 1 and "int" in value.dtype:
            found[key] = int(read_tensor(archive.locate(key, value)).item())
    return found


def _unread(foreign: tuple[str, ...]) -> tuple[str, ...]:
    """A note about kinds of tensors that have no stand-in: sparse, quantised, distributed."""
    kinds = [n for n in foreign if n.startswith(("torch._utils._rebuild", "torch.distributed."))]
    return (f"tensors of these kinds are not read: {', '.join(kinds[:8])}",) if kinds else ()


def _prefix(source: ByteSource, records: Mapping[str, Record]) -> str:
    """The archive's one top folder, where data.pkl lies."""
    found = [name for name in records if name == PICKLE or name.endswith(f"/{PICKLE}")]
    found = [name for name in found if name.count("/") <= 1]
    if len(found) != 1:
        raise source.fault(
            f"the zip archive holds {len(found)} records named {PICKLE} instead of one",
            "Give a file written by torch.save.",
        )
    return found[0].removesuffix(PICKLE)
