"""One frame of a run that is training: as it stands, and how it came there.

It fits into 80 columns and 24 lines for a run that records the default ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mhc_diag_reports.panels import DIRECTIONS, gain_id
from mhc_diag_reports.readings import values_of
from mhc_diag_reports.sparks import sparkline, top_of, trend_line
from mhc_diag_reports.terminal import verdict_text
from mhc_diag_reports.texts import count, decimals_of, listed, number, one_line, shorten
from mhc_diag_reports.words import coverage_of, ordered

if TYPE_CHECKING:
    from mhc_diag.analysis import Analysis
    from mhc_diag.runs.follow import Snapshot, Worst

_FIRST = (
    *(gain_id("composite", direction, "mean") for direction in DIRECTIONS),
    *(gain_id("composite", direction, "max") for direction in DIRECTIONS),
    *(gain_id("single", direction, "mean") for direction in DIRECTIONS),
    "manifold.row_error.max",
    "manifold.column_error.max",
)
"""Ids that are shown first; others follow in the order of the run."""
_MOST_IDS = 8
_SCALARS = ("loss", "grad_norm")
_BESIDE = 29 + 10 + 6
"""Columns left of the trend: id, value, site."""
_LATE = 5
"""A record is late after so many usual intervals."""


def run_frame(
    snapshot: Snapshot, analysis: Analysis | None, *, now: float, width: int = 80
) -> RenderableType:
    """Verdict, worst readings with their sites and trends, loss, curves over depth.

    Args:
        snapshot: the run as it stands.
        analysis: of its last record; None for a model without hyper-connections.
        now: seconds since 1970.
        width: columns of the terminal.
    """
    parts: list[RenderableType] = [*_head(snapshot, analysis, now)]
    if analysis is not None:
        parts += [verdict_text(analysis), *_findings(analysis)]
    parts += [Text(), _readings(snapshot, width=max(10, min(60, width - _BESIDE)))]
    if analysis is not None:
        parts += [Text(), *_depth(snapshot, width=max(10, width - 20))]
    return Group(*parts)


def waiting_frame(path: str, *, why: str) -> RenderableType:
    """What is shown before the first record."""
    return Text(f"waiting for the run {one_line(path)}: {why}", style="yellow")


def age_words(seconds: float) -> str:
    """How long ago, in steps so coarse that the line rarely changes.

    >>> age_words(3.0), age_words(42.0), age_words(150.0), age_words(8000.0)
    ('just now', '40 s ago', '2 min ago', '2 h ago')
    """
    if math.isnan(seconds):
        return "at an unknown time"
    if seconds < 10:
        return "just now"
    for size, unit, step in ((60, "s", 10), (3600, "min", 1), (172800, "h", 1)):
        if seconds < size:
            per = {"s": 1, "min": 60, "h": 3600}[unit]
            return f"{int(seconds // per) // step * step} {unit} ago"
    return f"{int(seconds // 86400)} days ago"


def _head(snapshot: Snapshot, analysis: Analysis | None, now: float) -> Iterator[Text]:
    """Run, step and model; when the last record came, and whether it should have come before."""
    run, step = snapshot.latest, snapshot.steps[-1]
    model = f"family {one_line(str(run.model.get('family')))}, {count(len(run.sites), 'site')}"
    if analysis is not None:
        model = f"{one_line(analysis.model.adapter)}, {coverage_of(analysis)}"
    name = (shorten(run.path, 30), "bold")
    yield Text.assemble(name, f"  step {step}  ", (model, "dim"), no_wrap=True, overflow="ellipsis")
    age = max(0.0, now - snapshot.times[-1])
    is_live = analysis is None or analysis.probe.kind == "tokens"
    usual = _usual(snapshot.times) if is_live else None  # a sweep is recorded afterwards
    head = Text(f"last record {age_words(age)}", no_wrap=True, overflow="ellipsis")
    if usual is not None:
        head.append(f", usually every {_duration(usual)}")
        if age > max(30.0, _LATE * usual):
            head.append(": ended or stalled", style="bold yellow")
    whole = "" if snapshot.is_whole else " read from the end of a long file"
    head.append(f"; {count(len(snapshot.steps), 'record')}{whole}")
    if snapshot.n_damaged:
        head.append(f"; {count(snapshot.n_damaged, 'damaged line')} left out", style="yellow")
    yield head


def _usual(times: Sequence[float]) -> float | None:
    """Seconds between records: the median of the last twenty."""
    recent = times[-21:]
    gaps = [b - a for a, b in pairwise(recent) if b > a]
    return median(gaps) if gaps else None


def _duration(seconds: float) -> str:
    """Of a few digits.

    >>> _duration(0.25), _duration(8.3), _duration(200.0)
    ('0.25 s', '8 s', '3 min')
    """
    if seconds < 1:
        return f"{seconds:.2g} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _readings(snapshot: Snapshot, *, width: int) -> Table:
    """One row per id: worst value, its site, its trend over the recorded steps."""
    first, last = snapshot.steps[0], snapshot.steps[-1]
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    over = f"steps {first} to {last}" if first != last else f"step {last}"
    titles = ("worst over sites", "now", "site", over) if snapshot.latest.sites else (over, "now")
    table.add_row(*(Text(title, style="dim") for title in titles))
    shown = _shown(snapshot)
    gains = [snapshot.worst[name] for name in shown if _is_gain(name)]
    top = top_of(*gains)
    gained = [now.value for name in shown if _is_gain(name) and (now := snapshot.now.get(name))]
    decimals = decimals_of(gained, apart=False)
    for name in shown:
        values = snapshot.worst[name]
        line = (
            sparkline(values, top=top, width=width)
            if _is_gain(name)
            else trend_line(values, width=width)
        )
        table.add_row(
            Text(name),
            *_now(snapshot.now.get(name), decimals if _is_gain(name) else None),
            Text(line),
        )
    for name in _SCALARS:
        if name in snapshot.scalars:
            numbers = snapshot.scalars[name]
            line = trend_line(numbers, width=width)
            table.add_row(Text(name), Text(number(numbers[-1], plain=True)), Text(), Text(line))
    return table


def _now(found: Worst | None, decimals: int | None) -> tuple[Text, Text]:
    if found is None:
        return Text(number(None)), Text()
    return Text(number(found.value, plain=True, decimals=decimals), style="bold"), Text(
        str(found.site)
    )


def _shown(snapshot: Snapshot) -> list[str]:
    """Ids in the order of their weight, as many as a terminal has room for."""
    known = [name for name in _FIRST if name in snapshot.worst]
    return [*known, *(name for name in snapshot.worst if name not in _FIRST)][:_MOST_IDS]


def _is_gain(name: str) -> bool:
    return name.removeprefix("applied.").startswith(("single.", "composite.", "window."))


def _depth(snapshot: Snapshot, *, width: int) -> Iterator[Text]:
    """Composite curves over depth at the last record, on one scale."""
    values = {
        way: values_of(snapshot.latest.values[name][0])
        for way in DIRECTIONS
        if (name := _composite(snapshot, way)) is not None
    }
    top = top_of(*values.values())
    for way, curve in values.items():
        yield Text.assemble(
            (f"composite {way:<9}", "dim"),
            sparkline(curve, top=top, width=width),
            no_wrap=True,
        )
    if values:
        scale = f"over depth, now; gains: log scale from 1 to {number(top, plain=True)}"
        yield Text(f"{'':<19}{scale}", style="dim")


def _composite(snapshot: Snapshot, way: str) -> str | None:
    wanted = (gain_id("composite", way, aggregate) for aggregate in ("mean", "max"))
    return next((name for name in wanted if name in snapshot.latest.values), None)


def _findings(analysis: Analysis) -> Iterator[Text]:
    """Which rules spoke, and where the worst sites are; 'mhc-diag analyze' says it in words."""
    sites = dict.fromkeys(
        finding.site for finding in ordered(analysis.findings) if finding.site is not None
    )
    rules = dict.fromkeys(
        finding.rule for finding in ordered(analysis.findings) if finding.severity != "info"
    )
    if rules:
        names = [f"{site} {shorten(analysis.sites[site].name, 28)}" for site in sites]
        where = f"; site {listed(names, at_most=2)}" if names else ""
        yield Text(f"{listed(list(rules), at_most=6)}{where}", style="dim")
