"""What can be read off a matrix: one definition, one function.

Letters: n streams; A [..., n, n] with row = destination, column = source; each function returns
[...]. ``unit`` [...] is the number that stands for 1 in the units of A: products come scaled by a
power of two, and a distance from the identity must know by which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mhc_diag.arrays import eigvals_abs, namespace, pow2, svdvals, to_numpy
from mhc_diag.compose import Scaled
from mhc_diag.metrics.numbers import Numbers

Array = Any

ROWS, COLUMNS = -1, -2
"""The axis to sum over: along a row (forward), along a column (backward)."""


def gain_max(A: Array, axis: int) -> Array:
    """Largest abs sum of a row (or column): the paper's Amax Gain Magnitude."""
    xp = namespace(A)
    return xp.max(xp.abs(xp.sum(A, axis=axis)), axis=-1)


def gain_min(A: Array, axis: int) -> Array:
    """Smallest abs sum of a row (or column): attenuation."""
    xp = namespace(A)
    return xp.min(xp.abs(xp.sum(A, axis=axis)), axis=-1)


def gain_norm(A: Array, axis: int) -> Array:
    """Largest sum of abs entries of a row (infinity-norm) or column (1-norm)."""
    xp = namespace(A)
    return xp.max(xp.sum(xp.abs(A), axis=axis), axis=-1)


def sum_error(A: Array, axis: int, unit: Array) -> Array:
    """Largest distance of a row (or column) sum from 1."""
    xp = namespace(A)
    return xp.max(xp.abs(xp.sum(A, axis=axis) - unit[..., None]), axis=-1)


def min_entry(A: Array) -> Array:
    """Smallest entry; negative off the doubly stochastic matrices."""
    return namespace(A).min(A, axis=(-2, -1))


def lambda2(A: Array) -> Array:
    """Second largest abs eigenvalue, n >= 2: how fast streams become one."""
    return eigvals_abs(A)[..., 1]


def sigma_max(A: Array) -> Array:
    """Largest singular value."""
    return svdvals(A)[..., 0]


def sigma_min(A: Array) -> Array:
    """Smallest singular value."""
    return svdvals(A)[..., -1]


def off_diagonal(A: Array) -> Array:
    """Share of abs entries off the diagonal: 0 for the identity, (n - 1) / n for J/n."""
    xp = namespace(A)
    sizes = xp.abs(A)
    off = xp.where(_identity(A) == 1, xp.zeros_like(A), sizes)
    return xp.sum(off, axis=(-2, -1)) / xp.sum(sizes, axis=(-2, -1))


def entropy(A: Array) -> Array:
    """Mean over rows of the entropy of abs(A_ij) / sum_j abs(A_ij), over ln n; n >= 2."""
    xp = namespace(A)
    sizes = xp.abs(A)
    shares = sizes / xp.sum(sizes, axis=ROWS, keepdims=True)
    logs = xp.log(xp.where(shares == 0, xp.ones_like(shares), shares))
    return xp.mean(xp.sum(-shares * logs, axis=ROWS), axis=-1) / math.log(A.shape[-1])


def distance_identity(A: Array, unit: Array) -> Array:
    """Frobenius norm of A - I, over sqrt(n - 1); n >= 2."""
    return _distance(A - unit[..., None, None] * _identity(A))


def distance_uniform(A: Array, unit: Array) -> Array:
    """Frobenius norm of A - J/n, over sqrt(n - 1); n >= 2."""
    return _distance(A - unit[..., None, None] / A.shape[-1])


def _distance(difference: Array) -> Array:
    xp = namespace(difference)
    square = xp.sum(difference * difference, axis=(-2, -1))
    return xp.sqrt(square) / math.sqrt(difference.shape[-1] - 1)


def has_entry(A: Array) -> Array:
    """Whether a matrix has anything to share out: off_diagonal is defined."""
    xp = namespace(A)
    return xp.any(A != 0, axis=(-2, -1))


def has_no_zero_row(A: Array) -> Array:
    """Whether every row has anything to share out: the entropy is defined."""
    xp = namespace(A)
    return xp.all(xp.any(A != 0, axis=ROWS), axis=-1)


def _identity(A: Array) -> Array:
    """The identity [n, n], in the library and on the device of A."""
    xp = namespace(A)
    return xp.eye(A.shape[-1], dtype=xp.float64, device=A.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a function above is applied to scaled products."""

    function: Callable[..., Array]
    kind: Literal["size", "share", "distance"]
    """size: scales with A. share: does not. distance: takes ``unit``, and is in units of A."""
    min_streams: int = 1
    """Undefined for fewer streams."""
    defined: Callable[[Array], Array] | None = None
    """[..., n, n] -> bool [...]; None where the reading is always defined."""


READINGS: Final[Mapping[str, Reading]] = {
    "forward.amax": Reading(function=partial(gain_max, axis=ROWS), kind="size"),
    "forward.amin": Reading(function=partial(gain_min, axis=ROWS), kind="size"),
    "forward.norm": Reading(function=partial(gain_norm, axis=ROWS), kind="size"),
    "backward.amax": Reading(function=partial(gain_max, axis=COLUMNS), kind="size"),
    "backward.amin": Reading(function=partial(gain_min, axis=COLUMNS), kind="size"),
    "backward.norm": Reading(function=partial(gain_norm, axis=COLUMNS), kind="size"),
    "manifold.row_error": Reading(function=partial(sum_error, axis=ROWS), kind="distance"),
    "manifold.column_error": Reading(function=partial(sum_error, axis=COLUMNS), kind="distance"),
    "manifold.min_entry": Reading(function=min_entry, kind="size"),
    "spectrum.lambda2": Reading(function=lambda2, kind="size", min_streams=2),
    "spectrum.sigma_max": Reading(function=sigma_max, kind="size"),
    "spectrum.sigma_min": Reading(function=sigma_min, kind="size"),
    "mixing.off_diagonal": Reading(function=off_diagonal, kind="share", defined=has_entry),
    "mixing.entropy": Reading(
        function=entropy, kind="share", min_streams=2, defined=has_no_zero_row
    ),
    "mixing.distance_identity": Reading(function=distance_identity, kind="distance", min_streams=2),
    "mixing.distance_uniform": Reading(function=distance_uniform, kind="distance", min_streams=2),
}
"""Middle part of a metric id -> its reading."""


@np.errstate(all="ignore")
def read(reading: Reading, A: Scaled) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """One reading of scaled matrices.

    Args:
        reading: what to read.
        A: [..., n, n].

    Returns:
        The numbers [...], and whether they are defined [...]; both in host memory.
    """
    xp = namespace(A.values)
    exponent = A.exponent
    if reading.kind == "distance":
        exponent = xp.where(exponent > 0, exponent, xp.zeros_like(exponent))
        values = A.values * pow2(A.exponent - exponent)[..., None, None]
        found = reading.function(values, unit=pow2(-exponent))
    else:
        found = reading.function(A.values)
        exponent = exponent if reading.kind == "size" else xp.zeros_like(exponent)
    numbers = Numbers(to_numpy(found), to_numpy(exponent))
    if reading.defined is None:
        return numbers, np.ones(numbers.values.shape, dtype=np.bool_)
    return numbers, to_numpy(reading.defined(A.values))


@np.errstate(all="ignore")
def cancellation(A: Scaled, magnitudes: Scaled, axis: int) -> Numbers:
    """Norm of the product of the abs(M) over the norm of A; 1 where both are zero.

    Args:
        A: products [..., n, n].
        magnitudes: the same products of abs(M).
        axis: ROWS for the infinity-norm, COLUMNS for the 1-norm.
    """
    above = to_numpy(gain_norm(magnitudes.values, axis))
    below = to_numpy(gain_norm(A.values, axis))
    ratio = np.where((above == 0) & (below == 0), 1.0, above / below)
    exponent = to_numpy(magnitudes.exponent - A.exponent)
    return Numbers(ratio, np.where((above == 0) | (below == 0), 0, exponent))
