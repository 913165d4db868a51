"""MHC104, MHC105, MHC108, MHC110, MHC112: what was measured, on what, with which assumptions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mhc_diag.rules.case import Case, kept_sites, shown
from mhc_diag.rules.records import Finding, Severity

_CLOSURE_TOLERANCE = {"float64": 1e-6, "float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest relative residual of x' = M x + H_post^T f that rounding explains, by applied dtype."""
_COARSEST = 0.2
_NAMED = 3
"""Names in a sentence; the record holds them all."""


def missing_sites(case: Case) -> int:
    """Expected sites of main chains that were not measured; auxiliary ones do not count."""
    measured = case.metrics.get(case.witness)
    lost = case.coverage.expected - case.coverage.measured
    if measured is None or not lost:
        return lost
    gaps = np.ma.getmaskarray(measured) & kept_sites(case.chains, auxiliary=True)
    return max(0, lost - int(gaps.sum()))


def incomplete_coverage(case: Case) -> Iterator[Finding]:
    """MHC104: a site that was expected and not measured, or a limited id without a value."""
    coverage = case.coverage
    lost = coverage.expected - coverage.measured
    if coverage.expected <= 0:
        yield _gap(case, "No site was expected: there is nothing to measure.", {"expected": 0})
    elif lost:
        main = missing_sites(case)
        names = [f"{gap.site} ({gap.why})" for gap in coverage.skipped]
        verb = "was" if lost == 1 else "were"
        message = f"{lost} of {coverage.expected} sites {verb} not measured{_list(names)}"
        if not main:
            message += "; they belong to auxiliary chains, no part of the verdict"
        evidence = {"expected": coverage.expected, "measured": coverage.measured}
        yield _gap(case, f"{message}.", evidence, counts=main > 0)
    else:
        for metric_id in case.limits:
            masked = np.flatnonzero(np.ma.getmaskarray(case.values(metric_id)) & case.keep)
            if masked.size:
                first = int(masked[0])
                yield _gap(
                    case,
                    f"The limit on {metric_id} could not be taken at {masked.size} of "
                    f"{int(case.keep.sum())} sites, first {case.place(first)}: no value there.",
                    {f"missing({metric_id})": int(masked.size)},
                    site=first,
                )


def setting_assumed(case: Case) -> Iterator[Finding]:
    """MHC105: values that neither weights nor configuration say, taken from the implementation."""
    assumed = {k: s.value for k, s in case.model.settings.items() if s.source == "assumed"}
    if not assumed:
        return
    pairs = [f"{name}={_plain(value)}" for name, value in assumed.items()]
    one = len(pairs) == 1
    given = " ".join(f"--set {pair}" for pair in pairs)
    yield Finding(
        rule="MHC105",
        severity="warning",
        message=(
            f"{', '.join(pairs)} {'is' if one else 'are'} assumed, the default"
            f"{'' if one else 's'} of {case.model.adapter}: the source does not say "
            f"{'it' if one else 'them'}, and the numbers depend on {'it' if one else 'them'}."
        ),
        evidence=assumed,
        advice=f"Give what training used: {given}, or a config.json next to the file.",
    )


def reference_point(case: Case) -> Iterator[Finding]:
    """MHC108: static and isotropic are not data, where H_res depends on data and is not held."""
    if not case.is_reference_point:
        return
    yield Finding(
        rule="MHC108",
        severity="info",
        message=(
            f"H_res of family {case.model.family} depends on the input and is not projected; the "
            f"{case.probe.kind} probe is a reference point, no measurement on data and no bound."
        ),
        evidence={"probe": case.probe.kind, "tokens": case.probe.tokens},
        advice="Measure on data: --probe tokens with --model and --inputs, or md.capture(model).",
    )


def _unchecked(stored: str) -> Finding:
    """A tap's word for the orientation, which nothing here can check."""
    return Finding(
        rule="MHC110",
        severity="warning",
        message=(
            f"The orientation {stored} is the tap's word and was not checked: the tap shows no "
            "streams to close x' = M x + H_post^T f on; a wrong word swaps forward and backward."
        ),
        evidence={"stored": stored},
        advice="Give the tap streams= and H_post= (md.tap), and the closure checks its word.",
    )


def orientation_doubtful(case: Case) -> Iterator[Finding]:
    """MHC110: the closure x' = M x + H_post^T f contradicts the orientation, or fits neither."""
    error, swapped = case.orientation.error, case.orientation.error_transposed
    if error is None:
        if case.model.adapter == "tap":
            yield _unchecked(case.orientation.stored)
        return
    tolerance = _CLOSURE_TOLERANCE.get(case.model.precision.applied, _COARSEST)
    if error <= tolerance:
        return
    contradicted = swapped is not None and swapped <= tolerance
    severity: Severity = "error" if contradicted else "warning"
    other = "" if swapped is None else f" and {shown(swapped)} with its transpose"
    what = "contradicts the declared orientation" if contradicted else "holds for neither"
    yield Finding(
        rule="MHC110",
        severity=severity,
        message=(
            f"The closure x' = M x + H_post^T f {what}: relative residual {shown(error)} with M"
            f"{other}, where rounding explains {tolerance:g}."
        ),
        evidence={"error": error, "error_transposed": swapped},
        advice=(
            "Forward and backward are swapped: --set orientation=M or M^T, or the tap's stored=."
            if contradicted
            else "Something acts between two sites, or H_res is applied in another way: try a tap."
        ),
    )


def unclaimed_names(case: Case) -> Iterator[Finding]:
    """MHC112: names that look like hyper-connections and that no adapter took."""
    names = case.coverage.unclaimed
    if not names:
        return
    verb = "looks like a hyper-connection" if len(names) == 1 else "look like hyper-connections"
    yield Finding(
        rule="MHC112",
        severity="warning",
        message=f"{len(names)} name{'s' * (len(names) > 1)} {verb} and no adapter took"
        f" {'it' if len(names) == 1 else 'them'}{_list(names)}.",
        evidence={"unclaimed": len(names)},
        advice="See 'mhc-diag inspect', choose an --adapter, or tap the module (--tap).",
    )


def _gap(
    case: Case,
    message: str,
    evidence: dict[str, Any],
    *,
    site: int | None = None,
    counts: bool = True,
) -> Finding:
    severity: Severity = "warning" if case.allow_partial or not counts else "error"
    return Finding(
        rule="MHC104",
        severity=severity,
        site=site,
        message=message,
        evidence=evidence,
        advice=(
            "Make the missing sites run in the measured forward pass, or choose the right adapter; "
            "--allow-partial (allow_partial=True) takes the verdict on what was measured."
        ),
    )


def _list(names: Sequence[str]) -> str:
    """``: a, b, c and 4 more``; empty for no name."""
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f": {', '.join(names[:_NAMED])}{more}"


def _plain(value: Any) -> str:
    """A setting as it is typed after ``--set``."""
    return value if isinstance(value, str) else json.dumps(value)
