"""Where a tensor lies in a file, and reading just those bytes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mhc_diag.checkpoints.dtypes import Array, readable, storage_type, widen
from mhc_diag.checkpoints.source import ByteSource

MAX_DIMENSIONS = 64
MAX_EXPANDED = 64 * 2**20
"""Most bytes that a tensor may take beyond what the file holds for it (strides of 0, deflate)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a checkpoint, without its data."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """Element type as stored: float32, bfloat16, float8_e4m3fn, int64, ..."""
    nbytes: int
    """Bytes of the stored elements, before any widening."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The bytes of one tensor."""

    source: ByteSource
    start: int
    """Position of the tensor's first byte in the file."""
    length: int
    """Bytes from the first to the last element, gaps of a strided view included."""
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    """Step per axis in elements; None for row-major."""
    deflated: int | None = None
    """Bytes in the file when they are compressed (npz only)."""
    skip: int = 0
    """Bytes to drop in front after decompression (npz only)."""

    @property
    def nbytes(self) -> int:
        """Bytes of the elements without gaps."""
        return math.prod(self.shape) * self.itemsize if self.stride is not None else self.length

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return storage_type(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What one format's reader found: raw names, nothing read yet but headers."""

    format: str
    tensors: Mapping[str, Location]
    sources: tuple[ByteSource, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    foreign_globals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_raw(location: Location) -> npt.NDArray[np.uint8]:
    """The bytes of a tensor as they are stored [length].

    Raises:
        CheckpointError: outside the file, or compressed bytes that do not give what they declare.
    """
    source = location.source
    if location.deflated is None:
        return source.read_array(location.start, location.length)
    wanted = location.skip + location.length
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = source.read_array(location.start, location.deflated)
    try:
        data = inflater.decompress(packed.data, wanted)
    except zlib.error as error:
        raise source.fault(f"a compressed array cannot be unpacked ({error})") from error
    if len(data) != wanted:
        raise source.fault(f"a compressed array has {len(data)} bytes instead of {wanted}")
    return np.frombuffer(bytearray(data[location.skip :]), dtype=np.uint8)


def read_tensor(location: Location) -> Array:
    """A tensor as a new row-major numpy array of its shape; bf16, fp16 and fp8 as float32.

    Raises:
        CheckpointError: the bytes are not there, or numpy cannot hold the type or shape.
    """
    if not readable(location.dtype):
        raise location.source.fault(
            f"elements of type {location.dtype} cannot be read", "Save these tensors as float32."
        )
    bits = read_raw(location).view(storage_type(location.dtype))
    try:
        if location.stride is None or 0 in location.shape:
            shaped = bits.reshape(location.shape)
        else:
            steps = [step * location.itemsize for step in location.stride]
            view = np.lib.stride_tricks.as_strided(bits, location.shape, steps, writeable=False)
            shaped = np.array(view, order="C")
        return widen(shaped, location.dtype)
    except ValueError as error:
        raise location.source.fault(
            f"a tensor of shape {list(location.shape)} cannot be made ({error})"
        ) from error


def span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements from the first to the last of a strided view, 0 when it is empty.

    >>> span((2, 3), (1, 4))
    10
    """
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
