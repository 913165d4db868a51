"""Metric ids, verdicts and probes in words; every sentence is computed from the record."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from mhc_diag.analysis import Analysis, known_ids
from mhc_diag.limits import LimitResult, gate
from mhc_diag.metrics import METRICS
from mhc_diag.rules.bounds import resolve
from mhc_diag.rules.records import Finding, Limit, Verdict
from mhc_diag_reports.texts import count, listed, number, one_line

APPLIED = "applied."
ICON: dict[Verdict, str] = {
    "stable": "✓",
    "unstable": "✕",
    "inconclusive": "?",
    "not_measured": "∅",
}
WORD: dict[Verdict, str] = {
    "stable": "STABLE",
    "unstable": "UNSTABLE",
    "inconclusive": "INCONCLUSIVE",
    "not_measured": "NOT MEASURED",
}
_DRAWN_IDS, _NO_DATA = "random:", ", not data"
"""How the description of drawn ids begins and ends."""
SEVERITY_ORDER = {"error": 0, "warning": 1, "info": 2}
SEVERITY_ICON = {"error": "✕", "warning": "!", "info": "i"}

_SCOPE = {
    ("single", "forward"): "of one site's matrix",
    ("single", "backward"): "of one site's matrix",
    ("composite", "forward"): "of the product from the input to the site",
    ("composite", "backward"): "of the product from the site to the output",
    ("window", "forward"): "of the worst product of neighbouring sites that ends at the site",
    ("window", "backward"): "of the worst product of neighbouring sites that starts at the site",
}
_READING = {
    ("amax", "forward"): "largest absolute row sum",
    ("amax", "backward"): "largest absolute column sum",
    ("amin", "forward"): "smallest absolute row sum",
    ("amin", "backward"): "smallest absolute column sum",
    ("norm", "forward"): "infinity-norm",
    ("norm", "backward"): "1-norm",
}
_AGGREGATE = {
    "mean": "mean over tokens",
    "max": "largest over tokens",
    "min": "smallest over tokens",
    "mean_matrix": "of the token-mean matrix",
}


def name_of(metric_id: str) -> str:
    """A short name from the grammar of ids: ``composite forward gain, mean over tokens``.

    An id outside the grammar keeps its parts: ``manifold row error, max``.
    """
    rounded = metric_id.startswith(APPLIED)
    parts = metric_id.removeprefix(APPLIED).split(".")
    tail = " (after rounding)" if rounded else ""
    if len(parts) == 4 and (parts[2], parts[1]) in _READING:
        scope, direction, reading, aggregate = parts
        noun = {"amax": "gain", "amin": "smallest gain", "norm": "norm"}[reading]
        over = _AGGREGATE.get(aggregate, f"{aggregate} of tokens")
        return f"{scope} {direction} {noun}, {over}{tail}"
    return " ".join(parts[:-1]).replace("_", " ") + f", {parts[-1].replace('_', ' ')}{tail}"


def meaning_of(metric_id: str) -> str:
    """What the number is: from the grammar for gains, else from the table of metrics.

    >>> meaning_of("composite.forward.amax.mean")
    'largest absolute row sum of the product from the input to the site, mean over tokens'
    """
    parts = metric_id.removeprefix(APPLIED).split(".")
    key = (parts[2], parts[1]) if len(parts) == 4 else ("", "")
    if key in _READING and (parts[0], parts[1]) in _SCOPE:
        aggregate = _AGGREGATE.get(parts[3], f"{parts[3]} of the tokens")
        rounded = ", after rounding to the applied dtype" if metric_id.startswith(APPLIED) else ""
        return f"{_READING[key]} {_SCOPE[parts[0], parts[1]]}, {aggregate}{rounded}"
    metric = METRICS.get(metric_id.removeprefix(APPLIED))
    return one_line(metric.meaning) if metric else ""


def probe_of(analysis: Analysis) -> str:
    """What the matrices were measured on, and whether that is data."""
    probe = analysis.probe
    if probe.kind == "tokens":
        said = one_line(probe.inputs)
        inputs = f" of {said}" if said else ""
        if is_random(analysis):
            inputs = f" of random ids, not data ({said.removesuffix(_NO_DATA)})"
        return f"measured on {count(probe.tokens, 'token')}{inputs}"
    if probe.kind == "static":
        return "static probe: parameters at zero dynamic input, not a measurement on data"
    seed = "" if probe.seed is None else f", seed {probe.seed}"
    drawn = count(probe.tokens, "draw")
    return f"isotropic probe: {drawn} of random input{seed}, not a measurement on data"


def short_probe(analysis: Analysis) -> str:
    """``tokens probe, 256 tokens``: the least that stands beside a verdict."""
    caveat = " of random ids, not data" if is_random(analysis) else ""
    return f"{analysis.probe.kind} probe, {sample_of(analysis, analysis.probe.tokens)}{caveat}"


def sample_of(analysis: Analysis, amount: int) -> str:
    """``256 tokens``; the isotropic probe has draws, which are no tokens."""
    return count(amount, "draw" if analysis.probe.kind == "isotropic" else "token")


def is_random(analysis: Analysis) -> bool:
    """Whether the model ran on ids that were drawn, which are no text that anybody wrote."""
    probe = analysis.probe
    return probe.kind == "tokens" and probe.inputs.startswith(_DRAWN_IDS)


def coverage_of(analysis: Analysis) -> str:
    """``24 of 24 sites measured``."""
    return f"{analysis.coverage.measured} of {count(analysis.coverage.expected, 'site')} measured"


def over_sites(analyses: Iterable[Analysis]) -> str:
    """What a column of worst values is over; with a gap they are not those of the model."""
    whole = all(a.coverage.measured == a.coverage.expected for a in analyses)
    return "worst over sites" if whole else "worst over measured sites"


def missing_of(analysis: Analysis) -> str:
    """What stands in the way of a verdict: the sites without a value, and why."""
    places = {site.name: site.index for site in analysis.sites}
    gaps = [
        f"{f'site {places[gap.site]}, ' if gap.site in places else ''}{one_line(gap.site)} "
        f"({one_line(gap.why)})"
        for gap in analysis.coverage.skipped
    ]
    if not analysis.coverage.measured:
        return "no site was measured"
    return f"no value at {listed(gaps, at_most=3)}" if gaps else "not every site was measured"


def limit_on(analysis: Analysis, metric_id: str) -> Limit:
    """The bounds of one id, from the patterns and ids that the verdict was taken against."""
    return resolve(analysis.limits, known_ids()).get(metric_id, Limit())


def limit_words(limit: Limit) -> str:
    """``at most 2``; empty without a bound."""
    said = [] if limit.max is None else [f"at most {limit.max:g}"]
    said += [] if limit.min is None else [f"at least {limit.min:g}"]
    return ", ".join(said)


def place_of(analysis: Analysis, site: int | None) -> str:
    """``site 23, transformer.h.11.hc_mlp``."""
    if site is None:
        return ""
    name = one_line(analysis.sites[site].name) if 0 <= site < len(analysis.sites) else ""
    return f"site {site}, {name}" if name else f"site {site}"


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; within a severity as the rules gave them."""
    return sorted(findings, key=lambda finding: SEVERITY_ORDER[finding.severity])


def deciding(analysis: Analysis) -> LimitResult | None:
    """The limited value furthest beyond its limit, or nearest to it; None when none was measured.

    A model that is unstable although every limit holds has a value that is not finite; then that
    value decides, and its limit is empty.
    """
    results = [result for result in gate(analysis).results if result.value is not None]
    broken = [result for result in results if result.passed is False]
    if analysis.verdict == "unstable" and not broken:
        for metric_id, summary in analysis.summary.items():
            if summary.worst is not None and not isfinite(summary.worst) and _counts(metric_id):
                return LimitResult(
                    id=metric_id,
                    limit=Limit(),
                    value=summary.worst,
                    site=summary.site,
                    passed=False,
                )
    return max(broken or results, key=_excess, default=None)


def _counts(metric_id: str) -> bool:
    """Whether an infinite value is a fault: cancellation is infinite where a sound product is 0."""
    return ".cancellation." not in metric_id


def _excess(result: LimitResult) -> float:
    """How far beyond its limit, as a ratio; not finite counts as beyond everything."""
    value, limit = result.value or 0.0, result.limit
    if not isfinite(value):
        return float("inf")
    above = float("-inf") if limit.max is None else value / limit.max if limit.max > 0 else value
    below = float("-inf") if limit.min is None else limit.min / value if value > 0 else float("inf")
    return max(above, below)


def bound_words(result: LimitResult) -> str:
    """``limit at most 2``, or what stands in for a limit that there is none of."""
    words = limit_words(result.limit)
    return f"limit {words}" if words else "every value must be finite"


def verdict_sentence(analysis: Analysis) -> str:
    """The verdict with its number, place, probe and limit in one plain line."""
    head = f"{ICON[analysis.verdict]} {WORD[analysis.verdict]}"
    decided = deciding(analysis)
    tail = f"{short_probe(analysis)}, {coverage_of(analysis)}"
    if analysis.verdict == "not_measured":
        return f"{head}: {missing_of(analysis)}; {tail}"
    if decided is None:
        return f"{head}: nothing that a limit covers was measured; {tail}"
    where = "" if decided.site is None else f" at site {decided.site}"
    value = f"{decided.id} {number(decided.value, plain=True)}{where}"
    return f"{head}: {value}, {bound_words(decided)}; {tail}"
