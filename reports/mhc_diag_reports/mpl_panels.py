"""One panel or heatmap on matplotlib axes; what the inline SVG draws, drawn again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mhc_diag_reports.colours import LEVELS, RAMP, level_of
from mhc_diag_reports.geometry import apart, odd_kinds, stretches
from mhc_diag_reports.page import Axis, Band, Heatmap, Panel, Series
from mhc_diag_reports.texts import number, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SOFT = "#5A616C"
_INK = "#17191D"
_MARKERS = 16


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Lines with bands, the line at 1, the limit and direct labels."""
    _frame(axes, panel.x, panel.y, panel.title, panel.metric_id)
    axes.grid(axis="y", color=_INK, alpha=0.1, linewidth=0.7)
    _gaps(axes, panel)
    for mark in panel.separators:
        axes.axvline(mark.value - 0.5, color=_INK, alpha=0.35, linewidth=0.8, linestyle=(0, (1, 3)))
        axes.text(
            mark.value - 0.2,
            0.03,
            shorten(mark.text, 14),
            transform=axes.get_xaxis_transform(),
            fontsize=7.5,
            color=_SOFT,
        )
    for line in panel.series:
        for band in sorted(line.bands, key=lambda band: band.inner):
            _band(axes, line, band, panel.y)
    if panel.reference is not None:
        axes.axhline(panel.reference, color=_INK, alpha=0.5, linewidth=2.2)
    if panel.threshold is not None and panel.y.low <= panel.threshold <= panel.y.high:
        axes.axhline(panel.threshold, color=_INK, linewidth=1.0, linestyle=(0, (3, 3)))
        _limit_label(axes, panel, panel.threshold)
    for line in panel.series:
        _line(axes, line)
    _odd(axes, panel.series)
    _labels(axes, panel.series)


def _frame(axes: Axes, x: Axis, y: Axis, title: str, metric_id: str) -> None:
    """Scales, ticks and the title over the left end."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    if y.log:
        axes.set_yscale("log")
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    for one, axis in ((axes.xaxis, x), (axes.yaxis, y)):
        one.set_major_locator(FixedLocator([tick.value for tick in axis.ticks]))
        one.set_major_formatter(FixedFormatter([tick.text for tick in axis.ticks]))
        one.set_minor_locator(NullLocator())
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(x.label, fontsize=8.5)
    axes.annotate(
        shorten(title, 40),
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 18),
        textcoords="offset points",
        fontsize=10.5,
        fontweight="bold",
    )
    axes.annotate(
        metric_id,
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 7),
        textcoords="offset points",
        fontsize=7,
        family="monospace",
        color=_SOFT,
    )


def _gaps(axes: Axes, panel: Panel) -> None:
    """Hatched columns where a source has no value."""
    missing = sorted(
        {x for line in panel.series for x, v in zip(line.x, line.y, strict=True) if v is None}
    )
    half = 0.5 if panel.x.label.startswith("site") else 0.005 * (panel.x.high - panel.x.low)
    for x in missing:
        axes.axvspan(
            x - half,
            x + half,
            facecolor="none",
            edgecolor=_SOFT,
            hatch="////",
            linewidth=0,
            alpha=0.6,
        )


def _band(axes: Axes, line: Series, band: Band, y: Axis) -> None:
    """One range over tokens, in stretches without a gap."""
    sound = [
        low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
        for low, high in zip(band.lower, band.upper, strict=True)
    ]
    for run in stretches(sound, line.breaks):
        axes.fill_between(
            [line.x[i] for i in run],
            [max(band.lower[i] or 0.0, y.low) for i in run],
            [max(band.upper[i] or 0.0, y.low) for i in run],
            color=line.colour,
            alpha=0.24 if band.inner else 0.13,
            linewidth=0,
        )


def _line(axes: Axes, line: Series) -> None:
    """The line and its markers."""
    sound = [v is not None and math.isfinite(v) for v in line.y]
    every = max(1, math.ceil(len(line.x) / _MARKERS))
    for run in stretches(sound, line.breaks):
        marked = [0] if len(run) == 1 else [k for k, i in enumerate(run) if i % every == every // 2]
        axes.plot(
            [line.x[i] for i in run],
            [line.y[i] or 0.0 for i in run],
            color=line.colour,
            linewidth=1.6,
            linestyle=(0, (5, 2.5)) if line.dashed else "-",
            marker="s" if line.marker == "square" else "o",
            markersize=3.4,
            markevery=marked,
        )


def _odd(axes: Axes, series: Sequence[Series]) -> None:
    """Marks at the upper edge for what is not a number, each line and kind in its own row."""
    rows = ((line, *kind) for line in series for kind in odd_kinds(line).items())
    for row, (line, word, places) in enumerate(rows):
        height = 0.975 - 0.06 * row
        axes.plot(
            places,
            [height] * len(places),
            "x" if word == "nan" else "^",
            color=line.colour,
            markersize=5,
            transform=axes.get_xaxis_transform(),
        )
        low, high = axes.get_xlim()
        fits = places[0] - low > 0.06 * (high - low)
        axes.annotate(
            word,
            (places[0] if fits else places[-1], height),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-5 if fits else 5, 0),
            textcoords="offset points",
            ha="right" if fits else "left",
            va="center",
            fontsize=7.5,
            color=line.colour,
        )


def _limit_label(axes: Axes, panel: Panel, bound: float) -> None:
    """The limit's value over its line, at the end that the lines leave free."""
    ends = [
        [v for line in panel.series for v in (line.y[:k] if k > 0 else line.y[k:])] for k in (5, -5)
    ]
    rooms = [
        min(
            (abs(math.log(v / bound)) for v in end if v is not None and math.isfinite(v) and v > 0),
            default=9.0,
        )
        for end in ends
    ]
    at_left = rooms[0] >= rooms[1]
    axes.annotate(
        f"limit {bound:g}",
        (0.01 if at_left else 0.99, bound),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        ha="left" if at_left else "right",
        fontsize=8,
    )


def _labels(axes: Axes, series: Sequence[Series]) -> None:
    """Names beside the last points, moved apart in axes units; a source once."""
    named: dict[str, tuple[Series, float]] = {}
    for line in series:
        last = next((v for v in reversed(line.y) if v is not None and not math.isnan(v)), math.inf)
        place = 1.0
        if math.isfinite(last):
            at = axes.transData.transform((0.0, max(last, axes.get_ylim()[0])))
            place = float(axes.transAxes.inverted().transform(at)[1])
        named.setdefault(line.label, (line, place))
    gap = 12.0 / 72.0 / (axes.get_window_extent().height / axes.figure.get_dpi())
    placed = apart([place for _, place in named.values()], 0.0, 1.0, gap=gap)
    for (line, _), y in zip(named.values(), placed, strict=True):
        axes.annotate(
            shorten(line.label, 11),
            (1.0, y),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight="bold",
            color=line.colour,
        )


def draw_heatmap(axes: Axes, figure: Heatmap) -> None:
    """Cells in ramp levels, hatching behind what has no number, a colour bar in gain units."""
    from matplotlib.colors import ListedColormap

    _frame(axes, figure.x, figure.y, figure.title, figure.metric_id)
    axes.set_facecolor("white")
    axes.patch.set(hatch="////", edgecolor=_SOFT, linewidth=0)
    levels = np.array(
        [
            [
                np.nan
                if v is None or math.isnan(v)
                else 2.0 * LEVELS + 1.0
                if math.isinf(v)
                else level_of(math.log10(v), figure.decades)
                if v > 0
                else 0.0
                for v in row
            ]
            for row in figure.values
        ],
        dtype=float,
    )
    axes.imshow(
        np.ma.masked_invalid(levels),
        cmap=ListedColormap([*RAMP, _INK]),
        vmin=-0.5,
        vmax=2 * LEVELS + 1.5,
        origin="lower",
        aspect="auto",
        extent=(figure.x.low, figure.x.high, figure.y.low, figure.y.high),
        interpolation="nearest",
    )
    _bar(axes, figure)


def _bar(axes: Axes, figure: Heatmap) -> None:
    """The colour scale beside the map."""
    from matplotlib.colors import ListedColormap

    lowest = level_of(figure.floor, figure.decades)
    bar = axes.inset_axes((1.03, 0.0, 0.025, 1.0))
    ramp = np.arange(lowest, 2 * LEVELS + 1, dtype=float)[:, None]
    bar.imshow(
        ramp,
        cmap=ListedColormap(list(RAMP)),
        vmin=-0.5,
        vmax=2 * LEVELS + 0.5,
        origin="lower",
        aspect="auto",
        extent=(0.0, 1.0, lowest - 0.5, 2 * LEVELS + 0.5),
    )
    bar.set_xticks([])
    bar.yaxis.tick_right()
    places = [(math.log10(tick.value) / figure.decades + 1.0) * LEVELS for tick in figure.bar]
    bar.set_yticks(places, [tick.text for tick in figure.bar], fontsize=8)
    bar.tick_params(axis="y", length=0)
    for spine in bar.spines.values():
        spine.set_visible(False)
    if any(v is not None and math.isinf(v) for row in figure.values for v in row):
        bar.set_xlabel(f"{number(math.inf)}: black", fontsize=7, color=_SOFT)
