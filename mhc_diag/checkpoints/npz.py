"""numpy's .npz: a zip archive of .npy arrays, each a short header and its elements."""

from __future__ import annotations

import math
import re
import zlib
from typing import Any

from mhc_diag.checkpoints.dtypes import NATIVE, nbytes
from mhc_diag.checkpoints.location import (
    MAX_DIMENSIONS,
    MAX_EXPANDED,
    Contents,
    Location,
    read_tensor,
)
from mhc_diag.checkpoints.source import ByteSource
from mhc_diag.checkpoints.tree import STEPS, step_of
from mhc_diag.checkpoints.zip_directory import Record, data_start, read_directory

_HEAD = 64 * 1024
"""Bytes of a record that are looked at for its header; numpy itself stops at 10 000."""
_STORED, _DEFLATED = 0, 8
_RATIO = 100
_DIGITS = 18
"""Digits that a size may have, so that it fits into 63 bits."""
_NAMES = {code: name for name, code in NATIVE.items()}


def open_npz(source: ByteSource) -> Contents:
    """Arrays of numbers by name; arrays of objects or text are noted and left out.

    Raises:
        CheckpointError: damaged, compressed beyond reason, or without an array of numbers.
    """
    tensors: dict[str, Location] = {}
    skipped: list[str] = []
    for name, record in read_directory(source).items():
        place = _location(source, record) if name.endswith(".npy") else None
        if place is None:
            skipped.append(name)
        else:
            tensors[name.removesuffix(".npy")] = place
    if not tensors:
        raise source.fault("it holds no arrays of numbers", "Save the weights with numpy.savez.")
    notes = (f"not read, no numbers: {', '.join(skipped[:8])}",) if skipped else ()
    steps: dict[str, Any] = {
        key: int(read_tensor(tensors[key]).item())
        for key in STEPS
        if key in tensors and math.prod(tensors[key].shape) == 1 and "int" in tensors[key].dtype
    }
    return Contents(
        format="npz", tensors=tensors, sources=(source,), step=step_of(steps), notes=notes
    )


def _location(source: ByteSource, record: Record) -> Location | None:
    """The elements of one array; None when they are no little-endian numbers."""
    if record.compression not in (_STORED, _DEFLATED):
        raise source.fault(
            f"array {record.name!r} is packed by method {record.compression}",
            "Save it with numpy.savez.",
        )
    packed = record.compression == _DEFLATED
    if packed and record.size > max(MAX_EXPANDED, _RATIO * record.stored):
        raise source.fault(
            f"array {record.name!r} unpacks from {record.stored} bytes to {record.size}",
            "Save it uncompressed with numpy.savez.",
        )
    if not packed and record.stored != record.size:
        raise source.fault(f"array {record.name!r} declares two different sizes")
    start = data_start(source, record)
    shape, fortran, code, skip = _header(source, record, start)
    name = _NAMES.get(code)
    if name is None:
        return None
    length = nbytes(name, math.prod(shape))
    if skip + length != record.size:
        raise source.fault(
            f"array {record.name!r} of shape {list(shape)} needs {length} bytes, "
            f"{record.size - skip} are there"
        )
    return Location(
        source=source,
        start=start if packed else start + skip,
        length=length,
        dtype=name,
        shape=shape,
        stride=_fortran_stride(shape) if fortran else None,
        deflated=record.stored if packed else None,
        skip=skip if packed else 0,
    )


def _header(
    source: ByteSource, record: Record, start: int
) -> tuple[tuple[int, ...], bool, str, int]:
    """Shape, whether column-major, type code ("" when structured), length of the header.

    numpy evaluates this text as Python; three patterns are all that numbers need.
    """
    head = source.read_metadata(start, min(record.stored, _HEAD))
    if record.compression == _DEFLATED:
        try:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _HEAD)
        except zlib.error as error:
            raise source.fault(f"array {record.name!r} cannot be unpacked ({error})") from error
    width = 2 if head[6:7] == b"\x01" else 4
    skip = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    text = head[8 + width : skip].decode("latin-1")
    order = re.findall(r"'fortran_order': *(True|False)", text)
    shape = re.findall(r"'shape': *\(([\d, ]*)\)", text)
    if head[:6] != b"\x93NUMPY" or skip > len(head) or len(order) != 1 or len(shape) != 1:
        raise source.fault(f"array {record.name!r} has no valid header")
    sizes = [size for size in re.split(r"[, ]+", shape[0]) if size]
    if len(sizes) > MAX_DIMENSIONS or any(len(size) > _DIGITS for size in sizes):
        raise source.fault(f"array {record.name!r} has no valid shape")
    code = re.findall(r"'descr': *'([^']{2,4})'", text)
    return tuple(map(int, sizes)), order[0] == "True", code[0] if len(code) == 1 else "", skip


def _fortran_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Steps in elements of a column-major array."""
    return tuple(math.prod(shape[:axis]) for axis in range(len(shape)))
