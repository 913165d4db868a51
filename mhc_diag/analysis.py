"""The analysis record: every number of one source, with verdict and findings.

Letters: L sites in execution order over all chains.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mhc_diag import documents, entries
from mhc_diag.errors import OptionError
from mhc_diag.files import write_atomically
from mhc_diag.rules import NEEDED, Case, findings_of, verdict_of
from mhc_diag.rules.bounds import DEFAULT_LIMITS, resolve
from mhc_diag.rules.case import Readings, kept_sites, readings, worst
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
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
    """Metric id -> float64 [L], masked where not measured; NaN and infinity are values, no gaps."""
    summary: Mapping[str, Summary]
    limits: Mapping[str, Limit]
    """Metric id or pattern -> bounds that the verdict was taken against."""
    findings: tuple[Finding, ...]
    verdict: Verdict
    trace: Trace | None = None
    """The matrices behind the numbers, when they are still at hand."""
    allow_partial: bool = False
    """Whether the verdict was taken on what was measured, although sites are missing."""

    def __getitem__(self, metric_id: str) -> np.ma.MaskedArray[Any, Any]:
        """Values of one id at every site, float64 [L], masked where not measured.

        Raises:
            OptionError: no such id in this analysis; names the nearest.
        """
        if metric_id not in self:
            near = difflib.get_close_matches(str(metric_id), self.metrics, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise OptionError(
                f"analysis[{metric_id!r}]",
                f"not among its {len(self.metrics)} ids",
                f"{hint}list(analysis) shows them, 'mhc-diag metrics' says what they mean.",
            )
        return readings(self.metrics, metric_id, self.model, len(self.sites))

    def __contains__(self, metric_id: object) -> bool:
        if metric_id in self.metrics:
            return True
        precision = self.model.precision
        return (
            isinstance(metric_id, str)
            and precision.applied == precision.computed
            and metric_id.removeprefix("applied.") in self.metrics
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __repr__(self) -> str:
        return (
            f"<Analysis of {self.source.path!r}: {self.verdict}, {self.probe.kind} probe, "
            f"{self.probe.tokens} tokens, {self.coverage.measured} of {self.coverage.expected} "
            f"sites, {len(self.findings)} findings>"
        )

    def frame(self) -> pd.DataFrame:
        """One row per site, one column per metric id; NaN where not measured.

        The columns ``index``, ``chain``, ``name``, ``layer`` and ``sublayer`` stand first.
        """
        import pandas as pd

        columns: dict[str, Any] = {
            "index": [site.index for site in self.sites],
            "chain": [site.chain for site in self.sites],
            "name": [site.name for site in self.sites],
            "layer": pd.array([site.layer for site in self.sites], dtype="Int64"),
            "sublayer": [site.sublayer for site in self.sites],
        }
        columns |= {name: values.filled(np.nan) for name, values in self.metrics.items()}
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """The ``mhc-diag/analysis/1`` document, as plain Python values."""
        document = {
            "schema": "mhc-diag/analysis/1",
            "tool": documents.tool(),
            "source": documents.fields_of(self.source),
            "model": entries.model_entry(self.model, self.chains),
            "orientation": documents.fields_of(self.orientation),
            "probe": documents.fields_of(self.probe),
            "coverage": {
                **documents.fields_of(self.coverage),
                "skipped": [documents.fields_of(gap) for gap in self.coverage.skipped],
            },
            "sites": [documents.fields_of(site) for site in self.sites],
            "metrics": self.metrics,
            "summary": {name: entries.summary_entry(name, s) for name, s in self.summary.items()},
            "limits": entries.limits_entry(self.limits),
            "findings": [entries.finding_entry(finding) for finding in self.findings],
            "verdict": self.verdict,
        }
        plain: dict[str, Any] = documents.plain(document)
        return plain

    def to_json(self, path: str | Path | None = None) -> str:
        """The document as strict JSON text; written to ``path`` too, when given.

        Raises:
            OutputError: the file cannot be written.
        """
        text = documents.to_text(self.to_dict())
        if path is not None:
            write_atomically(path, text.encode())
        return text


def analysis_of(
    trace: Trace,
    *,
    limits: Mapping[str, Limit] | None = None,
    ids: Iterable[str] | None = None,
    allow_partial: bool = False,
) -> Analysis:
    """Measure a trace and take the verdict.

    Args:
        trace: the matrices.
        limits: metric id or pattern -> bounds; None for 2.0 on every ``composite.*.amax.mean``.
        ids: the ids wanted, None for all; those that rules and limits read are measured as well.
        allow_partial: whether a verdict may be taken although expected sites were not measured.

    Raises:
        OptionError: a limit or an id that matches no metric.
    """
    from mhc_diag.metrics import measure

    taken = DEFAULT_LIMITS if limits is None else limits
    wanted = None if ids is None else list(dict.fromkeys([*ids, *NEEDED]))
    bare = Analysis(
        source=trace.source,
        model=trace.model,
        orientation=trace.orientation,
        probe=trace.probe,
        coverage=trace.coverage,
        identity=trace.identity,
        chains=chains_of(trace),
        sites=trace.sites,
        metrics=measure(trace, wanted),
        summary={},
        limits={},
        findings=(),
        verdict="not_measured",
        trace=trace,
        allow_partial=allow_partial,
    )
    return judged(bare, taken)


def chains_of(trace: Trace) -> tuple[ChainSummary, ...]:
    """The trace's chains without their matrices."""
    return tuple(
        ChainSummary(
            name=chain.name,
            streams=chain.n_streams,
            sites=chain.n_sites,
            tokens=chain.n_tokens,
            auxiliary=chain.auxiliary,
        )
        for chain in trace.chains
    )


def judged(analysis: Analysis, limits: Mapping[str, Limit]) -> Analysis:
    """The same numbers against other limits: limits, findings and verdict anew.

    Ids that a limit names and the record lacks are measured, where the matrices are at hand.
    """
    bounds = resolve(limits, known_ids())
    metrics = dict(analysis.metrics)
    lacking = [name for name in bounds if name not in analysis]
    if lacking and analysis.trace is not None:
        from mhc_diag.metrics import measure

        metrics |= measure(analysis.trace, lacking)
    full = replace(analysis, metrics=metrics, summary=summarise(metrics, analysis.chains))
    case = case_of(full, bounds)
    return replace(full, limits=dict(limits), findings=findings_of(case), verdict=verdict_of(case))


def case_of(analysis: Analysis, bounds: Mapping[str, Limit]) -> Case:
    """What the rules look at; ``bounds`` by metric id, no patterns."""
    return Case(
        model=analysis.model,
        orientation=analysis.orientation,
        probe=analysis.probe,
        coverage=analysis.coverage,
        chains=analysis.chains,
        sites=analysis.sites,
        metrics=analysis.metrics,
        limits=bounds,
        allow_partial=analysis.allow_partial,
        trace=analysis.trace,
    )


def known_ids() -> list[str]:
    """Every metric id, and each with ``applied.`` before it."""
    from mhc_diag.metrics import METRICS

    return [*METRICS, *(f"applied.{name}" for name in METRICS)]


def summarise(metrics: Readings, chains: Iterable[ChainSummary]) -> dict[str, Summary]:
    """Each id over the sites of all non-auxiliary chains."""
    kept = kept_sites(tuple(chains))
    found: dict[str, Summary] = {}
    for name, values in metrics.items():
        seen = np.ma.array(values.data, mask=np.ma.getmaskarray(values) | ~kept)
        bad = entries.bad_end(name)
        at = worst(seen, bad)
        if at is None:
            found[name] = Summary()
        elif bad == "neither":
            numbers = seen.compressed()
            found[name] = Summary(min=float(numbers.min()), max=float(numbers.max()))
        else:
            found[name] = Summary(worst=at[0], site=at[1])
    return found
