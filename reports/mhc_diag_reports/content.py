"""A comparison and its runs -> the page: what stands where, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mhc_diag import __version__
from mhc_diag.analysis import Analysis
from mhc_diag.metrics import DEFINITIONS
from mhc_diag.rules import RULES
from mhc_diag.rules.records import Finding
from mhc_diag_reports import colours
from mhc_diag_reports.gated import answer_of
from mhc_diag_reports.history import map_section, multiples_section, run_section
from mhc_diag_reports.page import Card, Page, Section, VerdictLine
from mhc_diag_reports.panels import DIRECTIONS, gain_id, gain_section
from mhc_diag_reports.tables import definitions, details_of, key_ids, key_numbers, site_table
from mhc_diag_reports.texts import listed, number, one_line
from mhc_diag_reports.words import (
    ICON,
    SEVERITY_ORDER,
    WORD,
    bound_words,
    coverage_of,
    deciding,
    limit_on,
    meaning_of,
    missing_of,
    place_of,
    probe_of,
    short_probe,
)

if TYPE_CHECKING:
    from mhc_diag.comparison import Comparison, Failure
    from mhc_diag.limits import GateResult
    from mhc_diag.runs.read import RunHistory


def page_of(
    comparison: Comparison,
    *,
    runs: Sequence[RunHistory] = (),
    command: str = "",
    gate: GateResult | None = None,
) -> Page:
    """Everything that a report shows, in reading order.

    Args:
        comparison: the sources with their labels.
        runs: histories over training; a run with a source's label shares its colour.
        command: the command line that makes this page again; empty when there is none.
        gate: the answer of a gate on the one source.
    """
    labels = [one_line(label) for label in comparison.labels]
    palette = _palette(labels, comparison.analyses, runs)
    sources = [
        (label, palette[label], analysis)
        for label, analysis in zip(labels, comparison.analyses, strict=True)
    ]
    histories = [(one_line(run.label), palette[one_line(run.label)], run) for run in runs]
    bounds = _bounds(comparison.analyses)
    found = (
        gain_section(sources),
        run_section(histories, bounds),
        map_section(histories),
        multiples_section(histories, bounds),
    )
    sections = tuple(section for section in found if section is not None)
    return Page(
        title=f"Stability of {listed(labels or [label for label, _, _ in histories])}",
        lead=_lead(comparison),
        verdicts=(
            *(verdict_line(*source) for source in sources),
            *(_failed_line(failure) for failure in comparison.failed),
        ),
        differences=tuple(one_line(text) for text in comparison.differences),
        key_numbers=key_numbers(sources),
        sections=sections,
        cards=cards_of(sources if gate is None else _as_gated(sources, gate)),
        details=tuple(details_of(*source) for source in sources),
        definitions=definitions(_used(comparison.analyses, sections)),
        tool=f"mhc-diag {__version__}, metric definitions version {DEFINITIONS}",
        command=command,
        gate=None if gate is None else answer_of(gate),
    )


def _as_gated(
    sources: Sequence[tuple[str, str, Analysis]], gate: GateResult
) -> list[tuple[str, str, Analysis]]:
    """The gated source with the gate's findings: those of its analysis and its own."""
    return [
        (label, colour, replace(gate.analysis, findings=gate.findings))
        for label, colour, _ in sources
    ]


def _palette(
    labels: Sequence[str], analyses: Sequence[Analysis], runs: Sequence[RunHistory]
) -> dict[str, str]:
    """One colour per label; labels of runs that are no source come after the sources."""
    families = {
        label: str(analysis.model.family) for label, analysis in zip(labels, analyses, strict=True)
    }
    for run in runs:
        families.setdefault(one_line(run.label), _family(run.model))
    return dict(zip(families, colours.assign(list(families.values())), strict=True))


def _family(model: Mapping[str, Any]) -> str:
    """The family that a run folder names."""
    return str(model.get("family", ""))


def _bounds(analyses: Sequence[Analysis]) -> dict[str, float | None]:
    """The strictest upper limit on the composite gains, for figures over training."""
    bounds: dict[str, float | None] = {}
    for direction in DIRECTIONS:
        for aggregate in ("mean", "max"):
            metric_id = gain_id("composite", direction, aggregate)
            found = [limit_on(analysis, metric_id).max for analysis in analyses]
            bounds[metric_id] = min((b for b in found if b is not None and b > 0), default=None)
    return bounds


def _lead(comparison: Comparison) -> str:
    """One sentence under the title: what the verdicts add up to."""
    words = [WORD[analysis.verdict].lower() for analysis in comparison.analyses]
    words += [WORD["not_measured"].lower()] * len(comparison.failed)
    kinds = dict.fromkeys(words)
    if not words:
        return "Nothing here has hyper-connections that were measured."
    if len(words) == 1:
        return f"The model is {words[0]}; {short_probe(comparison.analyses[0])}."
    if len(kinds) == 1:
        return f"All {len(words)} sources are {words[0]}."
    return f"Of {len(words)} sources, {listed([f'{words.count(word)} {word}' for word in kinds])}."


def verdict_line(label: str, colour: str, analysis: Analysis) -> VerdictLine:
    """The verdict of one source with all that it depends on."""
    missing = missing_of(analysis) if analysis.verdict == "not_measured" else ""
    decided = None if missing else deciding(analysis)
    model = analysis.model
    return VerdictLine(
        label=label,
        colour=colour,
        verdict=analysis.verdict,
        icon=ICON[analysis.verdict],
        word=WORD[analysis.verdict],
        number="" if decided is None else number(decided.value),
        metric_id="" if decided is None else decided.id,
        meaning="" if decided is None else meaning_of(decided.id),
        place="" if decided is None else place_of(analysis, decided.site),
        missing=missing,
        limit="" if decided is None else bound_words(decided),
        probe=probe_of(analysis),
        model=f"{one_line(model.adapter)}, family {model.family}, {coverage_of(analysis)}",
    )


def _failed_line(failure: Failure) -> VerdictLine:
    """A source that was asked for and could not be measured, with the error and the way out."""
    return VerdictLine(
        label=one_line(failure.label),
        colour="#767676",
        verdict="not_measured",
        icon=ICON["not_measured"],
        word=WORD["not_measured"],
        number="",
        metric_id="",
        meaning="",
        place="",
        limit="",
        probe=one_line(f"{failure.asked}: {failure.came}."),
        model=one_line(failure.do),
    )


def cards_of(sources: Sequence[tuple[str, str, Analysis]]) -> tuple[Card, ...]:
    """All findings, the most severe first, sources in their order."""
    found = [
        (SEVERITY_ORDER[finding.severity], k, label, analysis, finding)
        for k, (label, _, analysis) in enumerate(sources)
        for finding in analysis.findings
    ]
    found.sort(key=lambda item: item[:2])
    return tuple(_card(label, analysis, finding) for _, _, label, analysis, finding in found)


def _card(label: str, analysis: Analysis, finding: Finding) -> Card:
    """One finding as text."""
    rule = RULES.get(finding.rule)
    return Card(
        label=label,
        severity=finding.severity,
        rule=finding.rule,
        title="" if rule is None else one_line(rule.title),
        place=place_of(analysis, finding.site),
        message=one_line(finding.message),
        evidence=tuple((one_line(str(k)), evidence_text(v)) for k, v in finding.evidence.items()),
        advice=one_line(finding.advice),
    )


def evidence_text(value: Any) -> str:
    """A piece of evidence: numbers with three digits, the rest as it is."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return number(value)
    return one_line(str(value))


def _used(analyses: Sequence[Analysis], sections: Sequence[Section]) -> list[str]:
    """Ids that the page shows, in order of appearance."""
    ids = list(key_ids(analyses))
    ids += [column.text for analysis in analyses for column in site_table(analysis).columns]
    ids += [figure.metric_id for section in sections for figure in section.figures]
    ids += [
        gain_id(scope, direction, aggregate)
        for section in sections
        if section.key == "gains"
        for scope in ("single", "composite")
        for direction in DIRECTIONS
        for aggregate in ("min", "p5", "p95", "max")
        if any(gain_id(scope, direction, aggregate) in analysis.metrics for analysis in analyses)
        and any(analysis.probe.tokens > 1 for analysis in analyses)
    ]
    return [i for i in ids if i.count(".") >= 2 and "*" not in i]
