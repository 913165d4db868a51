"""The lines of a panel with bands, markers and names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from mhc_diag_reports.geometry import apart, odd_kinds, stretches
from mhc_diag_reports.page import Band, Series
from mhc_diag_reports.svg_frame import Frame, fixed, text_attribute
from mhc_diag_reports.texts import numbers, shorten

LABEL_CHARACTERS = 15
_LABEL_GAP = 14.0
_WORD_ROOM = 30.0
"""Width of a word beside a mark, with the mark."""
_MARKERS = 16
"""Markers on a line, at most; a value without neighbours always has one."""


def draw_band(line: Series, band: Band, frame: Frame) -> Iterator[str]:
    """A closed shape per stretch without a gap."""
    sound = [
        low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
        for low, high in zip(band.lower, band.upper, strict=True)
    ]
    path = ""
    for run in stretches(sound, line.breaks):
        up = [f"{fixed(frame.px(line.x[i]))} {fixed(frame.py(band.upper[i] or 0.0))}" for i in run]
        down = [
            f"{fixed(frame.px(line.x[i]))} {fixed(frame.py(band.lower[i] or 0.0))}"
            for i in reversed(run)
        ]
        path += "M" + "L".join(up + down) + "z"
    if path:
        opacity = ".24" if band.inner else ".13"
        yield f'<path d="{path}" fill="{line.colour}" fill-opacity="{opacity}"/>'


def draw_line(line: Series, frame: Frame, *, name: str, row: int) -> Iterator[str]:
    """The line with its markers, and marks near the edge for what is not a number.

    Args:
        line: the values.
        frame: where they are drawn.
        name: what the read-out calls it.
        row: which row of marks at the upper edge is its own.
    """
    shown = " ".join(
        "-" if v is None else text
        for v, text in zip(line.y, numbers(line.y, plain=True, apart=False), strict=True)
    )
    steps = (
        ""
        if line.x == tuple(map(float, range(len(line.x))))
        else f' data-x="{" ".join(f"{x:g}" for x in line.x)}"'
    )
    yield (
        f'<g fill="{line.colour}" stroke="{line.colour}"'
        f" data-label={text_attribute(name)}"
        f' data-y="{shown}"{steps}>'
    )
    sound = [v is not None and math.isfinite(v) for v in line.y]
    path, marked = "", set[int]()
    every = max(1, math.ceil(len(line.x) / _MARKERS))
    for run in stretches(sound, line.breaks):
        points = [f"{fixed(frame.px(line.x[i]))} {fixed(frame.py(line.y[i] or 0.0))}" for i in run]
        path += "M" + "L".join(points) if len(points) > 1 else ""
        marked |= {run[0]} if len(run) == 1 else {i for i in run if i % every == every // 2}
    if path:
        dash = ' stroke-dasharray="7 4"' if line.dashed else ""
        yield f'<path d="{path}" fill="none" stroke-width="1.9"{dash}/>'
    if marked:
        yield f'<path d="{"".join(_mark(line, i, frame) for i in sorted(marked))}" stroke="none"/>'
    yield from _odd(line, frame, row)
    yield "</g>"


def _mark(line: Series, i: int, frame: Frame) -> str:
    """A small disc (forward) or square (backward)."""
    x, y = frame.px(line.x[i]), frame.py(line.y[i] or 0.0)
    if line.marker == "square":
        return f"M{fixed(x - 2.6)} {fixed(y - 2.6)}h5.2v5.2h-5.2z"
    return f"M{fixed(x - 2.9)} {fixed(y)}a2.9 2.9 0 1 0 5.8 0a2.9 2.9 0 1 0 -5.8 0z"


def _odd(line: Series, frame: Frame, row: int) -> Iterator[str]:
    """Infinity as triangles, NaN as crosses, each kind in a row of its own at the upper edge."""
    for k, (word, places) in enumerate(odd_kinds(line).items()):
        top, path = frame.y0 + 2 + 12 * (row + k), ""
        for at in map(frame.px, places):
            nan = f"M{fixed(at - 4)} {fixed(top)}l8 8m0 -8l-8 8"
            path += nan if word == "nan" else f"M{fixed(at)} {fixed(top)}l4.5 8h-9z"
        ink = 'fill="none" stroke-width="2"' if word == "nan" else 'stroke="none"'
        yield f'<path d="{path}" {ink}/>'
        yield _odd_word(word, frame, (frame.px(places[0]), frame.px(places[-1])), top)


def _odd_word(word: str, frame: Frame, ends: tuple[float, float], top: float) -> str:
    """The name of a row of marks: before the first, or behind the last where the axis is near."""
    fits = ends[0] - _WORD_ROOM >= frame.x0
    x, anchor = (ends[0] - 6, "end") if fits else (ends[1] + 7, "start")
    return (
        f'<text x="{fixed(x)}" y="{fixed(top + 9)}" text-anchor="{anchor}" stroke="none"'
        f' font-size="11">{word}</text>'
    )


def draw_labels(series: Sequence[Series], frame: Frame) -> Iterator[str]:
    """Names beside the last points, moved apart where they would overlap; a source once."""
    named: dict[str, tuple[Series, float]] = {}
    for line in series:
        last = next((v for v in reversed(line.y) if v is not None and not math.isnan(v)), None)
        place = frame.y0 + 8 if last is None or math.isinf(last) else frame.py(last)
        named.setdefault(line.label, (line, place))
    placed = apart(
        [place for _, place in named.values()],
        frame.y0 + 4,
        frame.y0 + frame.height,
        gap=_LABEL_GAP,
    )
    x = fixed(frame.x0 + frame.width + 7)
    for (line, _), y in zip(named.values(), placed, strict=True):
        name = escape(shorten(line.label, LABEL_CHARACTERS))
        ink = f'fill="{line.colour}" font-weight="600"'
        yield f'<text x="{x}" y="{fixed(y + 4)}" {ink}>{name}</text>'
