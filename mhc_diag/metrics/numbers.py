"""Real numbers beyond the range of a double, as pairs: ``values * 2**exponent``.

Readings of long products need them; at the very end they become doubles, or a log10 for what a
double cannot say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SAFE: Final = 900
"""Between 2**-900 and 2**900 numbers are plain doubles: sums and differences stay in range."""
_ABOVE_ALL: Final = 2**40
"""Beyond every exponent that a product of doubles can reach."""


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """An array of real numbers of any size."""

    values: Floats
    """Any shape; signed, may hold NaN and infinity."""
    exponent: Ints
    """Same shape."""

    def __getitem__(self, index: Any) -> Numbers:
        """Numbers picked as numpy picks."""
        return Numbers(self.values[index], self.exponent[index])


def plain(values: npt.ArrayLike) -> Numbers:
    """Doubles as numbers."""
    array = np.asarray(values, dtype=np.float64)
    return Numbers(array, np.zeros(array.shape, dtype=np.int64))


def normalised(numbers: Numbers) -> Numbers:
    """The same numbers: plain doubles if all are in safe range, else all with abs in [0.5, 1)."""
    mantissa, shift = np.frexp(numbers.values)
    counts = np.isfinite(mantissa) & (mantissa != 0)
    exponent = np.where(counts, numbers.exponent + shift, 0)
    if exponent.size and (exponent.max() > _SAFE or exponent.min() < -_SAFE):
        return Numbers(mantissa, exponent)
    return plain(np.ldexp(mantissa, exponent.astype(np.int32)))


def concatenate(parts: Sequence[Numbers], *, axis: int = 0) -> Numbers:
    """Numbers joined along ``axis``."""
    return Numbers(
        np.concatenate([part.values for part in parts], axis=axis),
        np.concatenate([part.exponent for part in parts], axis=axis),
    )


def shifted(numbers: Numbers, exponent: Ints) -> Floats:
    """The values in units of ``2**exponent``; what is too small for that becomes about 0."""
    shift = np.clip(numbers.exponent - exponent, -2200, 2200)
    return np.asarray(np.ldexp(numbers.values, shift.astype(np.int32)))


def common_exponent(numbers: Numbers, *, axis: int) -> Ints:
    """The largest exponent along ``axis`` (kept with length 1) of numbers that are not 0."""
    mantissa, shift = np.frexp(numbers.values)
    counts = np.isfinite(mantissa) & (mantissa != 0)
    exponent = np.where(counts, numbers.exponent + shift, -_ABOVE_ALL)
    largest = exponent.max(axis=axis, keepdims=True)
    return np.asarray(np.where(largest == -_ABOVE_ALL, 0, largest))


def order_keys(numbers: Numbers) -> tuple[Floats, Ints]:
    """Keys (minor, major) for numpy's lexsort that put numbers in ascending order, NaN last."""
    mantissa, shift = np.frexp(numbers.values)
    sign = np.nan_to_num(np.sign(mantissa), nan=1.0).astype(np.int64)
    size = np.where(np.isfinite(mantissa), numbers.exponent + shift + _ABOVE_ALL, 4 * _ABOVE_ALL)
    size = np.where(np.isnan(mantissa), 8 * _ABOVE_ALL, size)
    return mantissa, sign * size


def to_float(numbers: Numbers) -> Floats:
    """The nearest doubles: infinity beyond the range, 0 below it."""
    with np.errstate(all="ignore"):
        return shifted(numbers, np.zeros_like(numbers.exponent))


def log10(numbers: Numbers) -> Floats:
    """log10 of the absolute values, whatever their size; -inf for 0, NaN for NaN."""
    with np.errstate(all="ignore"):
        mantissa, shift = np.frexp(numbers.values)
        exponent = np.where(np.isfinite(mantissa), numbers.exponent + shift, 0)
        return np.asarray(np.log10(np.abs(mantissa)) + exponent * math.log10(2.0))
