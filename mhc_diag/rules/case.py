"""What a rule looks at: one analysis before its findings, and words for its places and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from mhc_diag.rules.records import Finding, Limit, Severity
from mhc_diag.trace import PROJECTED_FAMILIES, Coverage, Model, Orientation, Probe, Site, Trace

Readings = Mapping[str, np.ma.MaskedArray[Any, Any]]
Bad = Literal["high", "low", "neither"]

_WITNESSES = ("single.forward.norm.max", "single.forward.amax.max")


class ChainLike(Protocol):
    """A chain without its matrices, as the analysis record holds it."""

    @property
    def name(self) -> str: ...  # noqa: D102  fields of the record, documented there
    @property
    def streams(self) -> int: ...  # noqa: D102  the same
    @property
    def sites(self) -> int: ...  # noqa: D102  the same
    @property
    def auxiliary(self) -> bool: ...  # noqa: D102  the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that is checked, as ``mhc-diag rules`` lists it."""

    id: str
    """Stable id, MHC101 and so on."""
    title: str
    """What a finding of it means, in a few words."""
    severity: Severity
    """The usual severity of its findings."""
    looks_at: str
    """Metric ids or facts of the record that it reads."""
    advice: str
    """What to do about it, in general; a finding's own advice is about its model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One analysis, before findings and verdict: the view of its main or its auxiliary chains."""

    model: Model
    orientation: Orientation
    probe: Probe
    coverage: Coverage
    chains: Sequence[ChainLike]
    sites: Sequence[Site]
    metrics: Readings
    limits: Mapping[str, Limit]
    """Metric id (no patterns) -> bounds."""
    allow_partial: bool = False
    trace: Trace | None = None
    auxiliary: bool = False
    """Whether this view is of the auxiliary chains, which no verdict counts."""

    @property
    def keep(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which sites this view is of, [L] bool."""
        return kept_sites(self.chains, auxiliary=self.auxiliary)

    @property
    def witness(self) -> str:
        """The id that tells whether a site was measured and is finite; a run may lack the first."""
        return next((name for name in _WITNESSES if name in self.metrics), _WITNESSES[0])

    @property
    def is_reference_point(self) -> bool:
        """Whether the probe is not data, and H_res depends on data without being projected."""
        return (
            self.probe.kind != "tokens"
            and self.model.input_dependent
            and self.model.family not in PROJECTED_FAMILIES
        )

    def ranges(self) -> Iterator[tuple[ChainLike, slice]]:
        """Each chain of this view with the slice of sites that it owns."""
        start = 0
        for chain in self.chains:
            if chain.auxiliary == self.auxiliary:
                yield chain, slice(start, start + chain.sites)
            start += chain.sites

    def chain_of(self, site: int) -> slice:
        """The slice of the chain that owns a site."""
        return next(part for _, part in self.ranges() if part.start <= site < part.stop)

    def values(self, metric_id: str) -> np.ma.MaskedArray[Any, Any]:
        """Values of an id at all sites, [L]; those outside this view or not measured are masked."""
        found = readings(self.metrics, metric_id, self.model, len(self.sites))
        return np.ma.array(found.data, mask=np.ma.getmaskarray(found) | ~self.keep)

    def place(self, site: int) -> str:
        """``site 23 (transformer.h.11.hc_mlp)``."""
        return f"site {site} ({self.sites[site].name})"

    @property
    def sample(self) -> str:
        """``512 tokens``, or the probe where it is not data."""
        tokens = f"{self.probe.tokens} token{'s' * (self.probe.tokens != 1)}"
        if self.probe.kind == "tokens":
            return tokens
        if self.probe.kind == "static":
            return "static probe, no data"
        return f"isotropic probe, {tokens.replace('token', 'draw')}, no data"


Check = Callable[[Case], Iterable[Finding]]


def kept_sites(
    chains: Sequence[ChainLike], *, auxiliary: bool = False
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which sites belong to the main (or to the auxiliary) chains, [L] bool."""
    flags = [chain.auxiliary == auxiliary for chain in chains for _ in range(chain.sites)]
    return np.asarray(flags, dtype=np.bool_)


def readings(
    metrics: Readings, metric_id: str, model: Model, sites: int
) -> np.ma.MaskedArray[Any, Any]:
    """The values of an id, [L]; all masked where it was not measured.

    ``applied.`` ids of a model that mixes with the computed matrices are the plain ids.
    """
    if metric_id in metrics:
        return metrics[metric_id]
    plain = metric_id.removeprefix("applied.")
    if plain in metrics and model.precision.applied == model.precision.computed:
        return metrics[plain]
    return np.ma.MaskedArray(np.full(sites, np.nan), mask=True)


def worst(values: np.ma.MaskedArray[Any, Any], bad: Bad) -> tuple[float, int] | None:
    """Value and site at the bad end: NaN before infinity before numbers; None if all is masked."""
    mask, data = np.ma.getmaskarray(values), values.data
    if mask.all():
        return None
    for kind in (np.isnan(data), np.isinf(data)):
        hits = np.flatnonzero(kind & ~mask)
        if hits.size:
            return float(data[hits[0]]), int(hits[0])
    end = -math.inf if bad == "high" else math.inf
    filled = np.where(mask, end, data)
    site = int(np.argmax(filled) if bad == "high" else np.argmin(filled))
    return float(data[site]), site


def shown(value: float, *, beside: float | None = None) -> str:
    """A number with four digits, or as many as tell it from the number beside it."""
    for digits in range(4, 17):
        text = format(value, f".{digits}g")
        if beside is None or value == beside or text != format(beside, f".{digits}g"):
            break
    return text if any(c in text for c in ".enf") else f"{text}.0"


def not_counted(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings about auxiliary chains: never errors, and they say that they do not count."""
    for finding in findings:
        severity: Severity = "warning" if finding.severity == "error" else finding.severity
        message = finding.message.removesuffix(".") + "; auxiliary chain, no part of the verdict."
        yield replace(finding, severity=severity, message=message)
