"""From one reading per token to one number per site.

Letters: T tokens. Quantiles interpolate linearly between neighbours; a neighbour of weight zero
does not count, an infinite one of other weight makes the result infinite, a NaN token makes it NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from types import MappingProxyType
from typing import Final

import numpy as np

from mhc_diag.arrays import namespace, pow2
from mhc_diag.compose import Scaled, rescale
from mhc_diag.metrics.numbers import (
    Numbers,
    common_exponent,
    normalised,
    order_keys,
    plain,
    shifted,
)

MEAN_MATRIX: Final = "mean_matrix"
"""Not an aggregate of readings: the matrix is averaged first, then read."""

QUANTILES: Final = MappingProxyType(
    {
        "min": Fraction(0),
        "p5": Fraction(5, 100),
        "p50": Fraction(50, 100),
        "p95": Fraction(95, 100),
        "p99": Fraction(99, 100),
        "max": Fraction(1),
    }
)
"""Aggregate -> the share of tokens below it."""


@np.errstate(all="ignore")
def aggregate(readings: Numbers, names: Iterable[str]) -> dict[str, Numbers]:
    """Aggregates over tokens.

    Args:
        readings: [..., T], T >= 1.
        names: ``mean`` or names of QUANTILES.

    Returns:
        Name -> [...].
    """
    readings = normalised(readings)
    names = tuple(names)
    ordered = _sorted(readings) if set(names) & set(QUANTILES) else readings
    return {
        name: _mean(readings) if name == "mean" else _quantile(ordered, QUANTILES[name])
        for name in names
    }


def _mean(readings: Numbers) -> Numbers:
    if not readings.exponent.any():
        return plain(readings.values.mean(axis=-1))
    exponent = common_exponent(readings, axis=-1)
    return Numbers(shifted(readings, exponent).mean(axis=-1), exponent[..., 0])


def _sorted(readings: Numbers) -> Numbers:
    """Ascending along the tokens, NaN last."""
    if not readings.exponent.any():
        return plain(np.sort(readings.values, axis=-1))
    order = np.lexsort(order_keys(readings), axis=-1)
    return Numbers(
        np.take_along_axis(readings.values, order, axis=-1),
        np.take_along_axis(readings.exponent, order, axis=-1),
    )


def _quantile(ordered: Numbers, share: Fraction) -> Numbers:
    """The quantile of readings [..., T] in ascending order."""
    position = share * (ordered.values.shape[-1] - 1)
    below = int(position)
    weight = float(position - below)
    lower = ordered[..., below]
    picked = lower if weight == 0 else _between(lower, ordered[..., below + 1], weight)
    with_nan = np.isnan(ordered.values[..., -1])
    return Numbers(np.where(with_nan, np.nan, picked.values), picked.exponent)


def _between(lower: Numbers, upper: Numbers, weight: float) -> Numbers:
    """Lower + weight (upper - lower), 0 < weight < 1; infinite if one of the two is."""
    pair = Numbers(
        np.stack([lower.values, upper.values]), np.stack([lower.exponent, upper.exponent])
    )
    exponent = common_exponent(pair, axis=0)
    low, high = shifted(pair, exponent)
    value = low + weight * (high - low)
    value = np.where(np.isinf(low), low, np.where(np.isinf(high), high, value))
    return Numbers(value, exponent[0])


@np.errstate(all="ignore")
def token_sum(A: Scaled) -> Scaled:
    """Sum over tokens of the matrices themselves, [..., T, n, n] -> [..., n, n]."""
    xp = namespace(A.values)
    exponent = xp.max(A.exponent, axis=-1, keepdims=True)
    values = A.values * pow2(A.exponent - exponent)[..., None, None]
    return rescale(xp.sum(values, axis=-3), exponent[..., 0])


@np.errstate(all="ignore")
def mean_matrix(A: Scaled) -> Scaled:
    """Mean over tokens of the matrices themselves, [..., T, n, n] -> [..., n, n]."""
    total = token_sum(A)
    return Scaled(total.values / A.values.shape[-3], total.exponent)
