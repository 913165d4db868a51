"""Heatmaps as inline SVG: one path per colour, runs of equal cells merged.

Letters: L sites, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from mhc_diag_reports.colours import LEVELS, RAMP, level_of
from mhc_diag_reports.page import Heatmap
from mhc_diag_reports.svg_frame import Frame, document, fixed, grid, hatch

_SIZE = (520.0, 320.0)
_ENDLESS = -1
_HATCHED = -2


def draw_heatmap(figure: Heatmap) -> str:
    """Cells, axes and the colour bar."""
    frame = Frame(
        x0=44.0, y0=22.0, width=_SIZE[0] - 44.0 - 84.0, height=260.0, x=figure.x, y=figure.y
    )
    return document(figure.key, figure.title, figure.desc, _SIZE, _body(figure, frame))


def _body(figure: Heatmap, frame: Frame) -> Iterator[str]:
    """Everything inside, back to front."""
    yield from _cells(figure, frame)
    yield from grid(frame)
    yield from _bar(figure, frame)


def _levels_of(figure: Heatmap) -> Iterator[list[int]]:
    """Ramp index per cell, site 0 first."""
    for row in figure.values:
        yield [
            _HATCHED
            if v is None or math.isnan(v)
            else _ENDLESS
            if math.isinf(v)
            else level_of(math.log10(v) if v > 0 else -math.inf, figure.decades)
            if v > 0
            else 0
            for v in row
        ]


def merged(rows: list[list[int]]) -> dict[int, str]:
    """Path data per level in cell units, y down from the last row; equal neighbours are one step.

    >>> merged([[3, 3, 5]])
    {3: 'M0 .5h2', 5: 'M2 .5h1'}
    """
    paths: dict[int, list[str]] = {}
    height = len(rows)
    for i, row in enumerate(rows):
        y = f"{height - 1 - i}.5".removeprefix("0")
        start = 0
        for j in range(1, len(row) + 1):
            if j == len(row) or row[j] != row[start]:
                paths.setdefault(row[start], []).append(f"M{start} {y}h{j - start}")
                start = j
    return {level: "".join(parts) for level, parts in sorted(paths.items())}


def _cells(figure: Heatmap, frame: Frame) -> Iterator[str]:
    """The map in cell units under one transform."""
    columns, rows = figure.x.high or 1.0, figure.y.high or 1.0
    paths = merged(list(_levels_of(figure)))
    name = f"{figure.key}-hatch"
    if _HATCHED in paths:
        yield hatch(name)
        yield (
            f'<rect x="{fixed(frame.x0)}" y="{fixed(frame.y0)}" width="{fixed(frame.width)}"'
            f' height="{fixed(frame.height)}" fill="url(#{name})"/>'
        )
    yield (
        f'<g transform="translate({fixed(frame.x0)} {fixed(frame.y0)})'
        f' scale({frame.width / columns:.6g} {frame.height / rows:.6g})"'
        ' shape-rendering="crispEdges"'
        ' stroke-linecap="butt" stroke-width="1" fill="none">'
    )
    for level, path in paths.items():
        if level == _HATCHED:
            continue
        if level == _ENDLESS:
            yield f'<path d="{path}" stroke="currentColor"/>'
        else:
            yield f'<path class="h{level}" d="{path}" stroke="{RAMP[level]}"/>'
    yield "</g>"


def _bar(figure: Heatmap, frame: Frame) -> Iterator[str]:
    """The colour scale in gain units, at the right."""
    lowest = level_of(figure.floor, figure.decades)
    levels = range(lowest, 2 * LEVELS + 1)
    x, each = frame.x0 + frame.width + 22.0, frame.height / len(levels)
    yield '<g shape-rendering="crispEdges" stroke="none">'
    for k, level in enumerate(levels):
        y = frame.y0 + frame.height - (k + 1) * each
        yield (
            f'<rect class="h{level}" x="{fixed(x)}" y="{y:.2f}" width="12" height="{each:.2f}"'
            f' fill="{RAMP[level]}"/>'
        )
    yield '</g><g fill-opacity=".72">'
    for tick in figure.bar:
        steps = (math.log10(tick.value) / figure.decades + 1.0) * LEVELS - lowest + 0.5
        y = frame.y0 + frame.height - steps * each
        yield f'<text x="{fixed(x + 18)}" y="{fixed(y + 4)}">{escape(tick.text)}</text>'
    yield f'<text x="{fixed(x)}" y="12">gain</text></g>'
    if any(v is not None and math.isinf(v) for row in figure.values for v in row):
        y = frame.y0 + frame.height + 17
        yield f'<path d="M{fixed(x)} {fixed(y - 10)}h12v12h-12z"/>'
        yield f'<text x="{fixed(x + 18)}" y="{fixed(y)}" fill-opacity=".72">inf</text>'
