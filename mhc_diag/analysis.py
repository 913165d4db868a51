"""The analysis record: every number of one source, with verdict and findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mhc_diag.rules.records import Finding, Limit, Verdict
from mhc_diag.trace import Coverage, Identity, Model, Orientation, Probe, Site, Source, Trace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSummary:
    """A chain without its matrices."""

    name: str
    streams: int
    sites: int
    tokens: int
    auxiliary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One metric id over the sites of all non-auxiliary chains.

    An id with a bad end has ``worst`` (the value there, NaN before infinity before numbers) and
    ``site``; an id without one has ``min`` and ``max``. None where nothing was measured.
    """

    worst: float | None = None
    site: int | None = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """Everything that was measured on one source (contract section 4)."""

    source: Source
    model: Model
    orientation: Orientation
    probe: Probe
    coverage: Coverage
    identity: Identity
    chains: tuple[ChainSummary, ...]
    sites: tuple[Site, ...]
    metrics: Mapping[str, np.ma.MaskedArray[Any, Any]]
    """Metric id -> float64 [L], masked where not measured; NaN and infinity are values, not gaps."""
    summary: Mapping[str, Summary]
    limits: Mapping[str, Limit]
    """Metric id or pattern -> bounds that the verdict was taken against."""
    findings: tuple[Finding, ...]
    verdict: Verdict
    trace: Trace | None = None
    """The matrices behind the numbers, when they are still at hand."""

    def __getitem__(self, metric_id: str) -> np.ma.MaskedArray[Any, Any]:
        raise KeyError  # to be completed

    def frame(self) -> pd.DataFrame:
        """One row per site, one column per metric id."""
        raise NotImplementedError
