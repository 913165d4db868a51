"""Runs over training: worst gain against step, sites x steps, curves at a few steps.

Letters: L sites, S recorded steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mhc_diag_reports import axes
from mhc_diag_reports.heat import heatmaps
from mhc_diag_reports.page import Axis, Marker, Panel, Section, Series, Values
from mhc_diag_reports.panels import DIRECTIONS
from mhc_diag_reports.readings import (
    auxiliary_chains,
    breaks_of,
    finite,
    highest,
    main_sites,
    values_of,
)
from mhc_diag_reports.said import odd_of, range_of
from mhc_diag_reports.texts import count, number

if TYPE_CHECKING:
    from mhc_diag.runs.read import RunHistory

Runs = Sequence[tuple[str, str, "RunHistory"]]
"""Label, colour, history."""

_SCALARS = (("loss", "Loss"), ("grad_norm", "Gradient norm"))
_MULTIPLES = 6
"""Small multiples: enough to see a change, few enough to compare."""
_MOST_POINTS = 400
"""Points per line over steps; beyond, each bin keeps its worst."""


def run_section(runs: Runs, bounds: Mapping[str, float | None]) -> Section | None:
    """Worst composite gain, loss and gradient norm over steps; None without recorded steps."""
    runs = [run for run in runs if len(run[2].steps)]
    if not runs:
        return None
    x = axes.step_axis([float(s) for _, _, history in runs for s in history.steps])
    figures = [
        p for p in (_worst_panel(runs, bounds, x), *_scalar_panels(runs, x)) if p is not None
    ]
    lead = (
        "The worst site of every recorded step, with loss and gradient norm on the same step axis."
    )
    return Section(
        key="training", title="Over training", lead=lead, figures=tuple(figures), columns=3
    )


def map_section(runs: Runs) -> Section | None:
    """Composite gain over sites and steps, one heatmap per run and direction."""
    figures = heatmaps([(label, history) for label, _, history in runs if len(history.steps)])
    if not figures:
        return None
    lead = (
        "Composite gain at every site (vertical, input at the bottom) and recorded step "
        "(horizontal), with one colour scale for all. Hatched: not measured or not a number."
    )
    return Section(key="maps", title="Where and when", lead=lead, figures=tuple(figures))


def multiples_section(runs: Runs, bounds: Mapping[str, float | None]) -> Section | None:
    """Composite curves over depth at a few steps, all on one scale."""
    runs = [run for run in runs if len(run[2].steps) and run[2].sites]
    steps = sorted({int(s) for _, _, history in runs for s in history.steps})
    if len(steps) < 2:
        return None
    places = np.unique(
        np.linspace(0, len(steps) - 1, min(_MULTIPLES, len(steps))).round().astype(int)
    )
    chosen = [steps[int(i)] for i in places]
    lines = {step: [s for run in runs for s in _curves(run, step)] for step in chosen}
    drawn = [v for found in lines.values() for line in found for v in line.y]
    bound = min((b for b in bounds.values() if b is not None), default=None)
    y = axes.gain_axis(drawn, include=() if bound is None else (bound,))
    n_sites = 1 + max(site.index for _, _, history in runs for site in history.sites)
    x = axes.site_axis(n_sites)
    panels = [
        Panel(
            key=f"step-{step}",
            title=f"Step {step}",
            metric_id="composite.*." + _reading(runs[0][2], "forward").split(".", 2)[2],
            x=Axis(label="site", low=x.low, high=x.high, ticks=x.ticks),
            y=y,
            series=tuple(found),
            threshold=bound,
            caption="",
            desc=" ".join(_peak(line, "site") for line in found),
            size="small",
        )
        for step, found in lines.items()
        if found
    ]
    lead = (
        "Composite gain over depth at a few steps, on one scale. Solid: forward; dashed: backward."
    )
    return Section(
        key="steps", title="Depth at a few steps", lead=lead, figures=tuple(panels), columns=3
    )


def _reading(history: RunHistory, direction: str) -> str:
    """The recorded composite id to draw: the paper's when there, else the first in order."""
    wanted = [f"composite.{direction}.amax.{aggregate}" for aggregate in ("mean", "max")]
    rest = sorted(key for key in history.values if key.startswith(f"composite.{direction}."))
    return next(
        (key for key in [*wanted, *rest] if key in history.values),
        f"composite.{direction}.amax.mean",
    )


def _at(history: RunHistory, metric_id: str) -> Any:
    """[S, L] of one id as a masked array."""
    return np.ma.asarray(history.values[metric_id])


def _curves(run: tuple[str, str, RunHistory], step: int) -> list[Series]:
    """Both directions of one run over depth at one step; nothing when it was not recorded."""
    label, colour, history = run
    at = np.flatnonzero(np.asarray(history.steps) == step)
    breaks = breaks_of([site.chain for site in history.sites])
    x = tuple(float(site.index) for site in history.sites)
    found = []
    for direction in DIRECTIONS:
        metric_id = _reading(history, direction)
        if metric_id not in history.values or not at.size:
            continue
        y = values_of(_at(history, metric_id)[int(at[-1])])
        if any(v is not None for v in y):
            found.append(replace(_line(label, colour, direction, x, y), breaks=breaks))
    return found


def _line(label: str, colour: str, direction: str, x: tuple[float, ...], y: Values) -> Series:
    """A line of one direction."""
    backward = direction == "backward"
    marker: Marker = "square" if backward else "circle"
    return Series(label=label, colour=colour, x=x, y=y, dashed=backward, marker=marker)


def _worst_panel(runs: Runs, bounds: Mapping[str, float | None], x: Axis) -> Panel | None:
    """Worst composite gain over the sites of each step, per run and direction."""
    lines, ids = [], set()
    for label, colour, history in runs:
        keep = main_sites(history.sites, auxiliary_chains(history.model))
        for direction in DIRECTIONS:
            metric_id = _reading(history, direction)
            if metric_id not in history.values:
                continue
            ids.add(metric_id)
            worst = [highest(values_of(row[keep])) for row in _at(history, metric_id)]
            y = [None if w is None else w[0] for w in worst]
            xs, ys = _thinned([float(s) for s in history.steps], y)
            lines.append(_line(label, colour, direction, xs, ys))
    if not lines:
        return None
    limits = [b for i in ids if (b := bounds.get(i)) is not None]
    bound = min(limits, default=None)
    shared = sorted({i.replace("forward", "*").replace("backward", "*") for i in ids})
    y_axis = axes.gain_axis(
        (v for line in lines for v in line.y),
        include=() if bound is None else (bound,),
        label="gain",
    )
    return Panel(
        key="worst",
        title="Worst composite gain",
        metric_id=", ".join(shared),
        x=x,
        y=y_axis,
        series=tuple(lines),
        threshold=bound,
        caption="The highest value over all sites at each step. Solid: forward; dashed: backward.",
        desc=" ".join(_peak(line, "step") for line in lines),
        size="small",
    )


def _scalar_panels(runs: Runs, x: Axis) -> list[Panel]:
    """Loss and gradient norm, where any run recorded them."""
    panels = []
    for key, title in _SCALARS:
        lines = []
        for label, colour, history in runs:
            if key not in history.scalars:
                continue
            xs, ys = _thinned(
                [float(s) for s in history.steps], list(_recorded(history.scalars[key]))
            )
            if any(v is not None for v in ys):
                lines.append(Series(label=label, colour=colour, x=xs, y=ys))
        if not lines:
            continue
        y = axes.scalar_axis((v for line in lines for v in line.y), label="")
        panels.append(
            Panel(
                key=f"scalar-{key.replace('_', '-')}",
                title=title,
                metric_id=key,
                x=x,
                y=y,
                series=tuple(lines),
                reference=None,
                size="small",
                caption="",
                desc=" ".join(_ending(line) for line in lines),
            )
        )
    return panels


def _recorded(array: Any) -> Values:
    """A scalar per step. In a plain array, NaN also stands for no record, so it is a gap there."""
    values = values_of(array)
    if isinstance(array, np.ma.MaskedArray):
        return values
    return tuple(None if v is None or math.isnan(v) else v for v in values)


def _ending(line: Series) -> str:
    """Where a scalar ends, and at how many steps there is no number."""
    numbers = finite(line.y)
    said = (
        f"{line.label} ends at {number(numbers[-1])}" if numbers else f"{line.label} has no number"
    )
    gaps = sum(v is None for v in line.y)
    tail = f"; {count(gaps, 'step')} without a number (NaN or not recorded)" if gaps else ""
    return f"{said}{odd_of(line, 'step')}{tail}."


def _thinned(
    x: list[float], y: list[float | None]
) -> tuple[tuple[float, ...], tuple[float | None, ...]]:
    """At most ``_MOST_POINTS`` points; each bin keeps its worst, so that no peak is lost."""
    if len(x) <= _MOST_POINTS:
        return tuple(x), tuple(y)
    edges = np.linspace(0, len(x), _MOST_POINTS + 1).astype(int)
    kept = []
    for low, high in pairwise(edges):
        worst = highest(y[low:high])
        kept.append(int(low) + (0 if worst is None else worst[1]))
    return tuple(x[i] for i in kept), tuple(y[i] for i in kept)


def _peak(line: Series, what: str) -> str:
    """One line in words."""
    direction = "backward" if line.dashed else "forward"
    return f"{line.label} {direction} {range_of(line, what)}{odd_of(line, what)}."
