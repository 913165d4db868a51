"""Arrays of an analysis or a run as the plain values that panels are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mhc_diag.analysis import Analysis
from mhc_diag_reports.page import Values


def values_of(array: Any) -> Values:
    """One float per entry; None where the array is masked."""
    array = np.ma.asarray(array)
    mask = np.ma.getmaskarray(array)
    data = np.asarray(
        array.filled(np.nan) if array.dtype.kind == "f" else array.data, dtype=np.float64
    )
    return tuple(None if hidden else float(v) for v, hidden in zip(data, mask, strict=True))


def metric(analysis: Analysis, metric_id: str) -> Values | None:
    """The values of one id, or None when the analysis does not have it."""
    array = analysis.metrics.get(metric_id)
    return None if array is None else values_of(array)


def finite(values: Iterable[float | None]) -> list[float]:
    """The numbers among the values."""
    return [v for v in values if v is not None and math.isfinite(v)]


def highest(values: Sequence[float | None]) -> tuple[float, int] | None:
    """The worst high value and its position: NaN before infinity before numbers."""
    ranked = [
        (math.isnan(v), math.inf if math.isnan(v) else v, -i)
        for i, v in enumerate(values)
        if v is not None
    ]
    if not ranked:
        return None
    is_nan, value, place = max(ranked)
    return (math.nan if is_nan else value), -place


def breaks_of(chains: Sequence[str]) -> tuple[int, ...]:
    """Positions where the chain changes."""
    return tuple(i for i in range(1, len(chains)) if chains[i] != chains[i - 1])


def main_sites(sites: Sequence[Any], auxiliary: Iterable[str]) -> list[int]:
    """Indices of the sites of chains that count for summary and verdict."""
    out = set(auxiliary)
    return [i for i, site in enumerate(sites) if site.chain not in out]


def auxiliary_chains(model: Mapping[str, Any]) -> set[str]:
    """Names of auxiliary chains in a run's model map."""
    return {str(chain["name"]) for chain in model.get("chains", ()) if chain.get("auxiliary")}
