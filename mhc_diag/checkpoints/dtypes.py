"""Names of element types, their size in a file, and how they become numpy arrays.

numpy has no bfloat16 and no float8: those are widened to float32, exactly, by their bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

NATIVE: Mapping[str, str] = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint64": "<u8",
    "uint32": "<u4",
    "uint16": "<u2",
    "uint8": "|u1",
    "bool": "|b1",
    "complex64": "<c8",
    "complex128": "<c16",
}
"""Names that numpy has, with its code, little-endian."""

FLOAT8: Mapping[str, tuple[int, int, int, str]] = {
    "float8_e4m3fn": (4, 3, 7, "fn"),
    "float8_e4m3fnuz": (4, 3, 8, "fnuz"),
    "float8_e5m2": (5, 2, 15, "ieee"),
    "float8_e5m2fnuz": (5, 2, 16, "fnuz"),
}
"""One-byte floats: exponent bits, mantissa bits, bias, which codes are special."""

BITS: Mapping[str, int] = {
    **{name: 8 * np.dtype(code).itemsize for name, code in NATIVE.items()},
    "bfloat16": 16,
    "complex32": 32,
    **dict.fromkeys(FLOAT8, 8),
    "float8_e8m0fnu": 8,
    "float6_e2m3": 6,
    "float6_e3m2": 6,
    "float4_e2m1": 4,
}
"""Every name that a file may declare -> bits per element in the file."""


def nbytes(dtype: str, count: int) -> int:
    """Bytes that ``count`` elements take in a file; part of a byte counts as one more."""
    return -(-count * BITS[dtype] // 8)


def readable(dtype: str) -> bool:
    """Whether :func:`widen` can turn the type into numbers."""
    return dtype in NATIVE or dtype in FLOAT8 or dtype in {"bfloat16", "float8_e8m0fnu"}


def storage_type(dtype: str) -> np.dtype[np.generic]:
    """The numpy type that holds the bits of ``dtype`` unchanged."""
    return np.dtype(NATIVE[dtype] if dtype in NATIVE else f"<u{BITS[dtype] // 8}")


def widen(bits: Array, dtype: str) -> Array:
    """Bits of ``dtype`` (as :func:`storage_type` holds them) -> numbers, same shape.

    bfloat16, float16 and float8 become float32; everything else stays as it is.

    >>> widen(np.array([0x3F80, 0xC000], dtype=np.uint16), "bfloat16")
    array([ 1., -2.], dtype=float32)
    """
    if dtype == "bfloat16":
        wide: npt.NDArray[np.uint32] = bits.astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32)
    if dtype == "float16":
        return bits.astype(np.float32)
    if dtype == "bool":
        return np.not_equal(bits.view(np.uint8), 0)
    if dtype in FLOAT8:
        return np.take(_float8_values(*FLOAT8[dtype]), bits.view(np.uint8))
    if dtype == "float8_e8m0fnu":
        values = np.full(256, np.nan, dtype=np.float32)
        values[:255] = np.ldexp(np.float32(1), np.arange(255, dtype=np.int32) - 127)
        return np.take(values, bits.view(np.uint8))
    return bits


def _float8_values(
    exponent: int, mantissa: int, bias: int, special: str
) -> npt.NDArray[np.float32]:
    """The 256 values of a one-byte float type [256] (OCP 8-bit floating point specification)."""
    code = np.arange(256)
    power = (code >> mantissa) & (2**exponent - 1)
    fraction = (code & (2**mantissa - 1)) / 2.0**mantissa
    size = np.where(power == 0, np.ldexp(fraction, 1 - bias), np.ldexp(1 + fraction, power - bias))
    if special == "ieee":
        size[power == 2**exponent - 1] = np.inf
        size[(power == 2**exponent - 1) & (fraction > 0)] = np.nan
    values: npt.NDArray[np.float32] = np.where(code & 0x80, -size, size).astype(np.float32)
    if special == "fn":
        values[[0x7F, 0xFF]] = np.nan
    if special == "fnuz":
        values[0x80] = np.nan
    return values
