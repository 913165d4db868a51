"""Tables for the terminal: 80 columns are enough, colour is never the only sign.

Nothing here imports matplotlib, jinja2, pandas or torch. All text goes in as rich's Text, so that
brackets in names are no markup, and through :func:`~mhc_diag_reports.texts.clean`, so that names
cannot move the cursor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mhc_diag_reports.gated import STATUS, gate_rows, gate_sentence
from mhc_diag_reports.numbers import IN_WORDS, pair_rows
from mhc_diag_reports.panels import DIRECTIONS, gain_id
from mhc_diag_reports.readings import metric
from mhc_diag_reports.sparks import sparkline, top_of
from mhc_diag_reports.tables import key_texts
from mhc_diag_reports.texts import broken, number, one_line, shorten
from mhc_diag_reports.words import (
    ICON,
    SEVERITY_ICON,
    WORD,
    coverage_of,
    limit_on,
    limit_words,
    ordered,
    over_sites,
    place_of,
    probe_of,
    short_probe,
    verdict_sentence,
)

if TYPE_CHECKING:
    from mhc_diag.analysis import Analysis
    from mhc_diag.comparison import Comparison
    from mhc_diag.limits import GateResult
    from mhc_diag.rules.records import Finding

_STYLE = {
    "stable": "green",
    "passed": "green",
    "unstable": "red",
    "failed": "red",
    "error": "red",
    "info": "blue",
}
_OTHERWISE = "yellow"
_MOST_COLUMNS = 3
"""Sources side by side in 80 columns; more are compared one below the other."""


def analysis_table(analysis: Analysis) -> RenderableType:
    """Head, key numbers, curves over depth, findings, verdict."""
    return Group(
        _head(analysis),
        Text(),
        _numbers(analysis),
        Text(),
        *_curves(analysis),
        Text(IN_WORDS, style="dim"),
        *_findings(analysis.findings, analysis),
        *_assumed(analysis),
        Text(),
        verdict_text(analysis),
    )


def comparison_table(comparison: Comparison) -> RenderableType:
    """Key numbers of all sources side by side, curves on one scale, differences, verdicts."""
    sources = list(zip(comparison.labels, comparison.analyses, strict=True))
    parts: list[RenderableType] = [_source(*source) for source in sources]
    parts.append(Text())
    parts += _side_by_side(sources)
    parts += [*_compared_curves(dict(sources)), Text(IN_WORDS, style="dim"), Text()]
    if comparison.differences:
        parts.append(Text("Not comparable as one number:", style="bold yellow"))
        parts += [Text(f"  {one_line(difference)}") for difference in comparison.differences]
        parts.append(Text())
    for label, analysis in sources:
        lines = list(_findings(analysis.findings, analysis))
        if lines:
            parts += [Text(f"{one_line(label)}:", style="bold"), *lines[1:], Text()]
    parts += [
        Text.assemble((f"{one_line(label)}: ", "bold"), verdict_text(analysis))
        for label, analysis in sources
    ]
    for failure in comparison.failed:
        parts.append(
            Text.assemble(
                (f"{one_line(failure.label)}: ", "bold"),
                (f"{ICON['not_measured']} {WORD['not_measured']}", _OTHERWISE),
                ": it could not be measured, the error says why",
            )
        )
    return Group(*parts)


def gate_table(result: GateResult) -> RenderableType:
    """Every limit with its value and what stands beside it, findings, the answer."""
    analysis = result.analysis
    table = _table("limited id", "value", "site", "limit", "")
    for row in gate_rows(result, plain=True):
        style = {True: "green", False: "red", None: _OTHERWISE}[row.passed]
        table.add_row(
            Text(row.id),
            Text(row.value),
            Text(row.site),
            Text(row.limit),
            Text(row.sign, style=style if row.limited else "dim"),
        )
    icon, word = STATUS[result.status]
    answer = gate_sentence(result)
    return Group(
        _head(analysis),
        Text(),
        table,
        Text(),
        Text(IN_WORDS, style="dim"),
        *_findings(result.findings, analysis),
        *_assumed(analysis),
        Text(),
        Text.assemble(
            (f"{icon} {word}", f"bold {_STYLE.get(result.status, _OTHERWISE)}"),
            f" ({answer.replace(': ', '): ', 1)}",
        ),
    )


def _head(analysis: Analysis) -> Text:
    """Source, adapter, probe, coverage."""
    model = analysis.model
    step = "" if analysis.source.step is None else f", step {analysis.source.step}"
    streams = ", ".join(dict.fromkeys(f"{chain.streams} streams" for chain in analysis.chains))
    return Text.assemble(
        (one_line(analysis.source.path), "bold"),
        f"{step}\n",
        f"adapter {one_line(model.adapter)}, family {model.family}, {streams}; ",
        f"{coverage_of(analysis)}\n",
        probe_of(analysis),
    )


def _source(label: str, analysis: Analysis) -> Text:
    """Which file a label stands for, and what was measured."""
    return Text.assemble(
        (f"{one_line(label)}: ", "bold"),
        f"{one_line(analysis.source.path)}, family {analysis.model.family}, ",
        f"{short_probe(analysis)}, {coverage_of(analysis)}",
    )


def _table(*columns: str) -> Table:
    """A table whose first column keeps its words and whose others are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for k, column in enumerate(columns):
        table.add_column(
            Text(one_line(column)),
            justify="right" if 0 < k < len(columns) - (columns[-1] == "") else "left",
            overflow="fold",
            no_wrap=False,
        )
    return table


def _numbers(analysis: Analysis) -> Table:
    """Forward and backward worst values of the key ids."""
    table = _table(over_sites([analysis]), "forward", "backward", "limit")
    for row in pair_rows(analysis):
        limits = dict.fromkeys(
            limit_words(limit_on(analysis, row.pattern.replace("*", way))) for way in DIRECTIONS
        )
        table.add_row(
            Text.assemble(row.pattern, "\n", (f"  {row.words}", "dim")),
            Text(row.forward),
            Text(row.backward),
            Text(" / ".join(limit for limit in limits if limit)),
        )
    return table


def _curves(analysis: Analysis) -> Iterator[RenderableType]:
    """Composite forward and backward over depth, on one scale."""
    curves = {way: metric(analysis, gain_id("composite", way)) or () for way in DIRECTIONS}
    top = top_of(*curves.values())
    for way, values in curves.items():
        if values:
            yield Text.assemble(
                (f"composite {way:<9}", "dim"), sparkline(values, top=top), no_wrap=True
            )
    if any(curves.values()):
        scale = f"each bar: worst of its sites, log scale from 1 to {number(top, plain=True)}"
        yield Text(f"{'':<19}{scale}", style="dim")


def _compared_curves(sources: Mapping[str, Analysis]) -> Iterator[RenderableType]:
    """Composite curves of all sources on one scale."""
    curves = {
        (label, way): values
        for label, analysis in sources.items()
        for way in DIRECTIONS
        if (values := metric(analysis, gain_id("composite", way)))
    }
    if not curves:
        return
    top = top_of(*curves.values())
    for (label, way), values in curves.items():
        yield Text.assemble(
            f"{shorten(label, 16):<17}",
            (f"composite {way:<9}", "dim"),
            sparkline(values, top=top, width=36),
            no_wrap=True,
        )
    yield Text(f"{'':<36}log scale from 1 to {number(top, plain=True)}", style="dim")


def _findings(findings: Iterable[Finding], analysis: Analysis) -> Iterator[RenderableType]:
    """An empty line, then each finding with its advice below; nothing without findings."""
    for k, finding in enumerate(ordered(findings)):
        if k == 0:
            yield Text()
        style = _STYLE.get(finding.severity, _OTHERWISE)
        place = place_of(analysis, finding.site)
        where = f" ({place})" if place and place.split(",")[0] not in finding.message else ""
        yield Text.assemble(
            (f"{SEVERITY_ICON[finding.severity]} {finding.severity} {finding.rule}", style),
            f" {one_line(finding.message)}{where}",
        )
        if finding.advice:
            yield Padding(Text(one_line(finding.advice), style="dim"), (0, 0, 0, 2))


def _assumed(analysis: Analysis) -> Iterator[RenderableType]:
    """Settings that nobody gave, beside the numbers that rest on them."""
    names = [
        f"{one_line(name)} = {one_line(str(setting.value))}"
        for name, setting in analysis.model.settings.items()
        if setting.source == "assumed"
    ]
    if names:
        yield Text(f"Assumed: {', '.join(names)}", style=_OTHERWISE)


def verdict_text(analysis: Analysis) -> Text:
    """Icon, word, number, place, limit, probe, tokens, coverage."""
    head, _, rest = verdict_sentence(analysis).partition(": ")
    return Text.assemble((head, f"bold {_STYLE.get(analysis.verdict, _OTHERWISE)}"), f": {rest}")


def _side_by_side(sources: Sequence[tuple[str, Analysis]]) -> Iterator[RenderableType]:
    """One column per source, as many as there is room for; more stand below."""
    texts = key_texts([analysis for _, analysis in sources], plain=True)
    head = over_sites(analysis for _, analysis in sources)
    for start in range(0, len(sources), _MOST_COLUMNS):
        part = slice(start, start + _MOST_COLUMNS)
        table = _table(head, *(shorten(label, 14) for label, _ in sources[part]))
        for metric_id, row in texts.items():
            table.add_row(Text(broken(metric_id, 18)), *map(Text, row[part]))
        verdicts = (_short_verdict(analysis) for _, analysis in sources[part])
        table.add_row(Text("verdict"), *verdicts)
        yield table
        yield Text()


def _short_verdict(analysis: Analysis) -> Text:
    """Icon and word."""
    word = f"{ICON[analysis.verdict]} {WORD[analysis.verdict]}"
    return Text(word, style=f"bold {_STYLE.get(analysis.verdict, _OTHERWISE)}")
