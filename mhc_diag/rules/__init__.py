"""Rules: what is checked, the sentence it says, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mhc_diag.rules.case import Case, Check, Rule, not_counted
from mhc_diag.rules.gains import digits_lost, gain_above_limit
from mhc_diag.rules.provenance import (
    incomplete_coverage,
    orientation_doubtful,
    reference_point,
    setting_assumed,
    unclaimed_names,
)
from mhc_diag.rules.ranges import beyond_double, vanishing
from mhc_diag.rules.records import Finding, Limit, Severity, Verdict
from mhc_diag.rules.table import RULES
from mhc_diag.rules.validity import does_not_mix, not_doubly_stochastic, not_finite
from mhc_diag.rules.verdict import verdict_of

__all__ = ["RULES", "Case", "Finding", "Limit", "Rule", "Verdict", "findings_of", "verdict_of"]

_SITE_CHECKS: tuple[Check, ...] = (
    gain_above_limit,
    not_doubly_stochastic,
    not_finite,
    digits_lost,
    beyond_double,
    vanishing,
    does_not_mix,
)
_MODEL_CHECKS: tuple[Check, ...] = (
    incomplete_coverage,
    setting_assumed,
    reference_point,
    orientation_doubtful,
    unclaimed_names,
)
NEEDED = (
    "single.forward.norm.max",
    "single.forward.norm.mean",
    "single.backward.norm.mean",
    "manifold.row_error.max",
    "manifold.column_error.max",
    "mixing.distance_identity.mean",
    *(
        f"composite.{way}.{reading}"
        for way in ("forward", "backward")
        for reading in ("amax.mean", "amax.max", "norm.mean", "norm.max", "cancellation.max")
    ),
)
"""Metric ids that rules, verdict and gate read, whatever else is asked for."""
_RANK: Mapping[Severity, int] = {"error": 0, "warning": 1, "info": 2}


def findings_of(case: Case) -> tuple[Finding, ...]:
    """All findings, errors first; those on auxiliary chains say that they do not count."""
    found = [finding for check in _MODEL_CHECKS for finding in check(case)]
    found += [finding for check in _SITE_CHECKS for finding in check(case)]
    beside = replace(case, auxiliary=True)
    if beside.keep.any():
        found += not_counted(finding for check in _SITE_CHECKS for finding in check(beside))
    return in_order(found)


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Findings by severity, then rule; stable, so the order of ids within a rule stays."""
    return tuple(sorted(findings, key=lambda finding: (_RANK[finding.severity], finding.rule)))
