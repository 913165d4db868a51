"""The gate: limits -> pass or fail, and what stands beside a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mhc_diag import documents, entries
from mhc_diag.analysis import Analysis, Summary, case_of, judged, known_ids
from mhc_diag.files import write_atomically
from mhc_diag.rules import in_order
from mhc_diag.rules.bounds import DEFAULT_LIMITS, GAIN_PATTERN, breach, resolve
from mhc_diag.rules.case import Case, worst
from mhc_diag.rules.gains import BESIDE, held_down
from mhc_diag.rules.records import Finding, Limit

Status = Literal["passed", "failed", "inconclusive", "not_measured"]
_EXIT: Mapping[Status, int] = {"passed": 0, "failed": 1, "inconclusive": 2, "not_measured": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitResult:
    """One metric id against its bounds."""

    id: str
    limit: Limit
    value: float | None
    """The value that breaks the bounds, else the one nearest to them; None if none was measured."""
    site: int | None
    passed: bool | None
    """None where it could not be taken: nothing measured, or a gap that nobody allowed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GateResult:
    """Whether an analysis is within its limits."""

    status: Status
    results: tuple[LimitResult, ...]
    """One per limited metric id."""
    findings: tuple[Finding, ...]
    """Those of the analysis, and what cancellation or averaging holds down."""
    analysis: Analysis
    """The analysis against the limits of the gate."""
    beside: Mapping[str, Summary]
    """Worst ``composite.*.norm.mean`` and ``composite.*.amax.max``, printed beside the limit."""
    strict: bool = False

    @property
    def passed(self) -> bool:
        """Whether every limit holds, on numbers that were measured."""
        return self.status == "passed"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 2 inconclusive or not measured."""
        return _EXIT[self.status]

    def to_dict(self) -> dict[str, Any]:
        """The ``mhc-diag/gate/1`` document, as plain Python values."""
        document = {
            "schema": "mhc-diag/gate/1",
            "tool": documents.tool(),
            "status": self.status,
            "passed": self.passed,
            "exit": self.exit_code,
            "strict": self.strict,
            "limits": entries.limits_entry(self.analysis.limits),
            "results": [
                {
                    "id": result.id,
                    "limit": entries.limit_entry(result.limit),
                    "value": result.value,
                    "site": result.site,
                    "passed": result.passed,
                }
                for result in self.results
            ],
            "beside": {n: entries.summary_entry(n, s) for n, s in self.beside.items()},
            "findings": [entries.finding_entry(finding) for finding in self.findings],
            "analysis": self.analysis.to_dict(),
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


def limits_of(
    max_gain: float | None = None,
    maxima: Mapping[str, float] | None = None,
    minima: Mapping[str, float] | None = None,
) -> dict[str, Limit]:
    """Limits from what a user gives; the default on the gains stays unless it is overridden.

    Args:
        max_gain: bound of every ``composite.*.amax.mean``; 2.0 when None.
        maxima: metric id or pattern -> upper bound.
        minima: metric id or pattern -> lower bound.
    """
    return limits_over(DEFAULT_LIMITS, max_gain, maxima, minima)


def limits_over(
    before: Mapping[str, Limit],
    max_gain: float | None = None,
    maxima: Mapping[str, float] | None = None,
    minima: Mapping[str, float] | None = None,
) -> dict[str, Limit]:
    """Limits that stay where they are not overridden, side by side of each id.

    What is given wins over what was there, id or pattern alike; within each, an id wins over a
    pattern, as in :func:`mhc_diag.rules.bounds.resolve`.

    Args:
        before: what holds already.
        max_gain: bound of every ``composite.*.amax.mean``.
        maxima: metric id or pattern -> upper bound.
        minima: metric id or pattern -> lower bound.
    """
    highest = ({} if max_gain is None else {GAIN_PATTERN: max_gain}) | dict(maxima or {})
    lowest = dict(minima or {})
    limits: dict[str, Limit] = {}
    for name, limit in before.items():
        left = Limit(
            min=None if _covers(lowest, name) else limit.min,
            max=None if _covers(highest, name) else limit.max,
        )
        if left != Limit():
            limits[name] = left
    for name in dict.fromkeys([*highest, *lowest]):
        kept = limits.pop(name, Limit())  # to the end: later patterns win over earlier ones
        limits[name] = Limit(min=lowest.get(name, kept.min), max=highest.get(name, kept.max))
    return limits


def _covers(bounds: Mapping[str, float], name: str) -> bool:
    """Whether a bound is on ``name`` itself or on a pattern that takes in all of it."""
    return any(name == given or fnmatchcase(name, given) for given in bounds)


def gate(
    analysis: Analysis,
    *,
    max_gain: float | None = None,
    maxima: Mapping[str, float] | None = None,
    minima: Mapping[str, float] | None = None,
    strict: bool = False,
    probe_written: bool = True,
) -> GateResult:
    """Hold an analysis against the limits it was taken against, and those given here over them.

    Args:
        analysis: what was measured.
        max_gain: bound of every ``composite.*.amax.mean``.
        maxima: metric id or pattern -> upper bound; ``applied.`` ids as well.
        minima: metric id or pattern -> lower bound.
        strict: whether what cancellation or averaging holds down fails the gate.
        probe_written: whether the user named the probe, so that a reference point may pass.

    Raises:
        OptionError: a limit that matches no metric id, or a bound that is not a number.
    """
    limits = limits_over(analysis.limits, max_gain, maxima, minima)
    taken = judged(analysis, limits)
    case = case_of(taken, resolve(limits, known_ids()))
    hidden = tuple(held_down(case))
    return GateResult(
        status=_status(taken, failed=strict and bool(hidden), probe_written=probe_written),
        results=tuple(_result(case, name, limit) for name, limit in case.limits.items()),
        findings=in_order([*taken.findings, *hidden]),
        analysis=taken,
        beside=beside_of(taken),
        strict=strict,
    )


def _status(analysis: Analysis, *, failed: bool, probe_written: bool) -> Status:
    if analysis.verdict == "not_measured":
        return "not_measured"
    if failed or analysis.verdict == "unstable":
        return "failed"
    if analysis.verdict == "inconclusive" and not probe_written:
        return "inconclusive"
    return "passed"


def _result(case: Case, metric_id: str, limit: Limit) -> LimitResult:
    values = case.values(metric_id)
    found = breach(values, limit)
    if found is not None:
        return LimitResult(
            id=metric_id, limit=limit, value=found.value, site=found.site, passed=False
        )
    nearest = worst(values, "low" if limit.max is None else "high")
    gaps = bool((np.ma.getmaskarray(values) & case.keep).any()) and not case.allow_partial
    return LimitResult(
        id=metric_id,
        limit=limit,
        value=None if nearest is None else nearest[0],
        site=None if nearest is None else nearest[1],
        passed=None if gaps or nearest is None else True,
    )


def beside_of(analysis: Analysis) -> dict[str, Summary]:
    """What stands beside the limit, with nothing left out silently.

    A run may lack an id: then the largest over tokens stands for the mean, which it bounds, and an
    id without either has an empty summary.
    """
    found: dict[str, Summary] = {}
    for name in BESIDE:
        held = analysis.summary.get(name)
        largest = f"{name.rpartition('.')[0]}.max"
        if held is None and largest in analysis.summary:
            found[largest] = analysis.summary[largest]
        else:
            found[name] = held or Summary()
    return found
