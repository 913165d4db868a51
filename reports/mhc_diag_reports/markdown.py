"""The answer for a pull request or a job summary: GitHub-flavoured Markdown, no images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mhc_diag.analysis import Analysis
from mhc_diag_reports.gated import STATUS, gate_rows, gate_sentence
from mhc_diag_reports.numbers import IN_WORDS
from mhc_diag_reports.panels import DIRECTIONS, gain_id
from mhc_diag_reports.readings import metric
from mhc_diag_reports.sparks import sparkline, top_of
from mhc_diag_reports.tables import key_texts
from mhc_diag_reports.texts import listed, number, one_line
from mhc_diag_reports.words import (
    ICON,
    SEVERITY_ICON,
    WORD,
    bound_words,
    coverage_of,
    deciding,
    limit_on,
    limit_words,
    missing_of,
    ordered,
    over_sites,
    place_of,
    probe_of,
    short_probe,
)

if TYPE_CHECKING:
    from mhc_diag.comparison import Comparison
    from mhc_diag.limits import GateResult
    from mhc_diag.rules.records import Finding
    from mhc_diag.runs.read import RunHistory

_SPECIAL = re.compile(r"([\\`*\[\]<>#|~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//))")
_MOST_FINDINGS = 30
"""Per source; a job summary may not grow without bound. What is left off is counted."""

Sources = Sequence[tuple[str, Analysis]]


def render(
    comparison: Comparison,
    *,
    runs: Sequence[RunHistory] = (),
    command: str = "",
    gate: GateResult | None = None,
) -> bytes:
    """Verdicts, key numbers, curves and findings of all sources as UTF-8 Markdown.

    Args:
        comparison: the sources with their labels.
        runs: histories over training; named, since a summary has no room for their figures.
        command: the command line that makes this text again.
        gate: the answer of a gate on the one source, which then is the whole text.
    """
    if gate is not None:
        return render_gate(gate)
    sources = list(zip(comparison.labels, comparison.analyses, strict=True))
    lines = [f"## Stability of {escape(listed([one_line(label) for label, _ in sources]))}", ""]
    lines += [f"- {_verdict(label, analysis)}" for label, analysis in sources]
    lines += [
        f"- **{escape(f.label)}: {ICON['not_measured']} {WORD['not_measured']}**, "
        f"{escape(f'{f.asked}: {f.came}. {f.do}')}"
        for f in comparison.failed
    ]
    if comparison.differences:
        lines += ["", "**Not comparable as one number**", ""]
        lines += [f"- {escape(difference)}" for difference in comparison.differences]
    lines += ["", *_key_numbers(sources), "", *_curves(sources), "", escape(IN_WORDS), ""]
    for label, analysis in sources:
        lines += _findings(label, analysis.findings)
    if runs:
        named = listed([one_line(run.label) for run in runs])
        lines += [f"Over training: see the HTML report for {escape(named)}.", ""]
    if command:
        lines += ["Made by", "", *_block(command), ""]
    return "\n".join(lines).encode()


def render_gate(result: GateResult) -> bytes:
    """The answer of a gate, its limits and findings, as UTF-8 Markdown."""
    analysis = result.analysis
    label = analysis.source.path
    icon, word = STATUS[result.status]
    lines = [
        f"## {icon} {word}: {escape(label)}",
        "",
        f"{escape(probe_of(analysis))}; {escape(gate_sentence(result))}.",
        "",
        *_row("limited id", "value", "site", "limit", ""),
        "| :-- | --: | --: | --: | :-- |",
    ]
    for row in gate_rows(result, plain=True):
        lines += _row(code(row.id), row.value, row.site, row.limit, row.sign)
    lines += ["", escape(IN_WORDS), "", *_findings(label, result.findings)]
    return "\n".join(lines).encode()


def escape(text: str) -> str:
    """Foreign text as plain text on one line: no markup, no HTML, no mention, no link."""
    return _SPECIAL.sub(r"\\\1", one_line(text)).replace("@", "@\u200b")


def code(text: str) -> str:
    """Foreign text as a code span that it cannot leave, in a table or out of one."""
    text = one_line(text).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _block(text: str) -> list[str]:
    """Foreign text as an indented code block: nothing in it can close it."""
    return [f"    {one_line(line)}" for line in text.splitlines()]


def _row(*cells: str) -> list[str]:
    """One line of a table."""
    return [f"| {' | '.join(cells)} |"]


def _verdict(label: str, analysis: Analysis) -> str:
    """Icon, word, number, id, place, limit, probe, tokens, coverage."""
    head = f"**{escape(label)}: {ICON[analysis.verdict]} {WORD[analysis.verdict]}**"
    tail = f"{short_probe(analysis)}, {coverage_of(analysis)}"
    if analysis.verdict == "not_measured":
        return f"{head}, {escape(missing_of(analysis))}; {tail}"
    decided = deciding(analysis)
    if decided is None:
        return f"{head}, nothing that a limit covers was measured; {tail}"
    place = escape(place_of(analysis, decided.site))
    value = f"{number(decided.value, plain=True)} {code(decided.id)}"
    return f"{head}, {value} at {place}, {bound_words(decided)}; {tail}"


def _key_numbers(sources: Sources) -> Iterator[str]:
    """One row per id, one column per source."""
    yield from _row(
        over_sites(a for _, a in sources), *(escape(label) for label, _ in sources), "limit"
    )
    yield f"| :-- |{' --: |' * (len(sources) + 1)}"
    for metric_id, texts in key_texts([a for _, a in sources], plain=True).items():
        limits = {limit_words(limit_on(analysis, metric_id)) for _, analysis in sources} - {""}
        yield from _row(code(metric_id), *texts, " / ".join(sorted(limits)))


def _curves(sources: Sources) -> Iterator[str]:
    """Composite gain over depth, all on one scale."""
    curves = [
        (label, way, values)
        for label, analysis in sources
        for way in DIRECTIONS
        if (values := metric(analysis, gain_id("composite", way)))
    ]
    if not curves:
        return
    top = top_of(*(values for _, _, values in curves))
    yield from _row("composite gain over depth", "direction", "input to output")
    yield "| :-- | :-- | :-- |"
    for label, way, values in curves:
        yield from _row(escape(label), way, sparkline(values, top=top))
    yield ""
    yield f"Bars: log scale from 1 to {number(top, plain=True)}, the same for all."


def _findings(label: str, findings: Sequence[Finding]) -> Iterator[str]:
    """Findings of one source, errors first."""
    if not findings:
        return
    yield f"### Findings: {escape(label)}"
    yield ""
    found = ordered(findings)
    for finding in found[:_MOST_FINDINGS]:
        head = f"{SEVERITY_ICON[finding.severity]} {finding.severity} {finding.rule}"
        yield f"- **{head}** {escape(finding.message)} {escape(finding.advice)}".rstrip()
    if len(found) > _MOST_FINDINGS:
        yield f"- and {len(found) - _MOST_FINDINGS} more in the HTML report"
    yield ""
