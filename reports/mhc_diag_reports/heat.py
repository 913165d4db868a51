"""Composite gain over sites and steps as heatmaps on one colour scale.

Letters: L sites, S recorded steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mhc_diag_reports import axes
from mhc_diag_reports.page import Axis, Heatmap, Tick, Values
from mhc_diag_reports.panels import DIRECTIONS, gain_id
from mhc_diag_reports.readings import finite, highest, values_of
from mhc_diag_reports.texts import count, number, power

if TYPE_CHECKING:
    from mhc_diag.runs.read import RunHistory

_MOST_COLUMNS = 200
_LEAST_DECADES = math.log10(2.0)
"""The colour scale reaches at least from 1/2 to 2, so that rounding noise stays pale."""


def heatmaps(runs: Sequence[tuple[str, RunHistory]]) -> list[Heatmap]:
    """One heatmap per run and direction, all on one scale."""
    grids = [
        (f"map-{i}-{direction}", label, history, metric_id)
        for i, (label, history) in enumerate(runs)
        for direction in DIRECTIONS
        if (metric_id := _recorded(history, direction))
    ]
    everything = [
        v for _, _, history, i in grids for row in _rows(history, i) for v in finite(row) if v > 0
    ]
    logs = [math.log10(v) for v in everything]
    decades = max([_LEAST_DECADES, *(abs(v) for v in logs)])
    floor = min([0.0, *logs])
    return [
        _heatmap(key, label, history, metric_id, scale=(decades, floor))
        for key, label, history, metric_id in grids
    ]


def _recorded(history: RunHistory, direction: str) -> str | None:
    """The id to draw: the mean over tokens when it was recorded, else the largest."""
    wanted = (gain_id("composite", direction, aggregate) for aggregate in ("mean", "max"))
    return next((i for i in wanted if i in history.values), None)


def _rows(history: RunHistory, metric_id: str) -> tuple[Values, ...]:
    """[L][S] values of one id."""
    return tuple(values_of(row) for row in np.ma.asarray(history.values[metric_id]).T)


def _heatmap(
    key: str, label: str, history: RunHistory, metric_id: str, *, scale: tuple[float, float]
) -> Heatmap:
    """One run and direction."""
    decades, floor = scale
    rows, steps, thinned = _thinned(_rows(history, metric_id), [int(s) for s in history.steps])
    direction = metric_id.split(".")[1]
    ticks = tuple(
        Tick(value=t.value + 0.5, text=axes.step_text(float(steps[int(t.value)])))
        for t in axes.index_ticks(len(steps), most=6)
    )
    sites = [site.index for site in history.sites]
    y_ticks = tuple(
        Tick(value=t.value + 0.5, text=str(sites[int(t.value)]))
        for t in axes.index_ticks(len(rows), most=7)
    )
    return Heatmap(
        key=key,
        title=f"{label}: {direction}",
        metric_id=metric_id,
        values=rows,
        x=Axis(label="training step", low=0.0, high=float(len(steps)), ticks=ticks),
        y=Axis(label="site", low=0.0, high=float(len(rows)), ticks=y_ticks),
        decades=decades,
        floor=floor,
        bar=_bar(decades, floor),
        caption=f"Each column is the worst of up to {thinned} recorded steps."
        if thinned > 1
        else "",
        desc=_said(label, rows, sites, steps),
    )


def _thinned(
    rows: tuple[Values, ...], steps: list[int]
) -> tuple[tuple[Values, ...], list[int], int]:
    """At most ``_MOST_COLUMNS`` columns; each keeps the worst of its steps, per site."""
    each = -(-len(steps) // _MOST_COLUMNS)
    if each <= 1:
        return rows, steps, 1
    starts = range(0, len(steps), each)
    kept = tuple(
        tuple(None if (w := highest(row[s : s + each])) is None else w[0] for s in starts)
        for row in rows
    )
    return kept, [steps[s] for s in starts], each


def _bar(decades: float, floor: float) -> tuple[Tick, ...]:
    """Ticks of the colour bar: whole decades, or 1 and the ends where there are none."""
    if decades < 1.0:
        ends = [10.0**-decades] if floor < -0.5 * decades else []
        middle = 10.0 ** (decades / 2)
        return tuple(
            Tick(value=v, text="1" if v == 1.0 else number(v))
            for v in (*ends, 1.0, middle, 10.0**decades)
        )
    step = max(1, math.ceil((decades - floor) / 6))
    exponents = (e for e in range(math.ceil(floor), math.floor(decades) + 1) if e % step == 0)
    return tuple(Tick(value=10.0**e, text=power(e)) for e in exponents)


def _said(label: str, rows: tuple[Values, ...], sites: list[int], steps: list[int]) -> str:
    """Peak with site and step, and how many cells have no number."""
    cells = [
        (v, site, step)
        for site, row in zip(sites, rows, strict=True)
        for step, v in zip(steps, row, strict=True)
    ]
    numbers = [cell for cell in cells if cell[0] is not None and math.isfinite(cell[0])]
    endless = [cell for cell in cells if cell[0] is not None and math.isinf(cell[0])]
    missing = len(cells) - len(numbers) - len(endless)
    said = f"{label} has no number"
    if numbers:
        value, site, step = max(numbers, key=lambda cell: cell[0] or 0.0)
        said = f"{label} is highest at site {site}, step {step}: {number(value)}"
    if endless:
        first = min(step for _, _, step in endless)
        said += f"; infinite in {count(len(endless), 'cell')}, first at step {first}"
    if missing:
        said += f"; {count(missing, 'cell')} of {len(cells)} not measured or not a number (hatched)"
    return f"{said}."
