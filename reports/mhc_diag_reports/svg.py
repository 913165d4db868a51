"""Panels as inline SVG, with presentation attributes alone.

No ``style`` attribute and no class is needed to see a figure, so it survives a content security
policy that blocks styles and scripts. Ink is ``currentColor``: the page decides between light and
dark, and its style sheet may recolour sources by their attribute. ``data-`` attributes feed the
read-out under the pointer, which is an enhancement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from mhc_diag_reports.geometry import odd_kinds
from mhc_diag_reports.page import Figure, Heatmap, Panel, Series
from mhc_diag_reports.svg_frame import Frame, document, fixed, grid, hatch
from mhc_diag_reports.svg_heat import draw_heatmap
from mhc_diag_reports.svg_lines import LABEL_CHARACTERS, draw_band, draw_labels, draw_line
from mhc_diag_reports.texts import shorten

_SIZES = {"full": (520.0, 320.0), "small": (372.0, 250.0)}
_LABEL_WIDTH = 7.6
"""Width of a character of a 12-unit label, in user units."""


def draw(figure: Figure) -> str:
    """One ``<svg>`` element, with title and description."""
    if isinstance(figure, Heatmap):
        return draw_heatmap(figure)
    return _panel(figure)


def _panel(panel: Panel) -> str:
    """Axes, bands, lines, labels."""
    width, height = _SIZES[panel.size]
    longest = max((len(shorten(s.label, LABEL_CHARACTERS)) for s in panel.series), default=0)
    left = 16.0 + 6.6 * max([3, *(len(t.text) for t in panel.y.ticks)])
    right = 16.0 + _LABEL_WIDTH * longest
    frame = Frame(
        x0=left,
        y0=22.0,
        width=width - left - right,
        height=height - 22.0 - 38.0,
        x=panel.x,
        y=panel.y,
    )
    return document(panel.key, panel.title, panel.desc, (width, height), _body(panel, frame))


def _body(panel: Panel, frame: Frame) -> Iterator[str]:
    """Everything inside, back to front."""
    yield f'<g data-panel="{_readout(frame)}" data-axis="{escape(panel.x.label.split()[0])}">'
    yield from grid(frame)
    yield from _gaps(panel, frame)
    yield from _separators(panel, frame)
    for line in panel.series:
        for band in sorted(line.bands, key=lambda band: band.inner):
            yield from draw_band(line, band, frame)
    yield from _reference(panel, frame)
    rows = _rows_of_marks(panel.series)
    for line, row in zip(panel.series, rows, strict=True):
        yield from draw_line(line, frame, name=_spoken(line, panel.series), row=row)
    yield from _limit(panel, frame)
    yield from draw_labels(panel.series, frame)
    yield "</g>"


def _rows_of_marks(series: Sequence[Series]) -> list[int]:
    """The first row at the upper edge that is each line's own, from the top; see odd_kinds."""
    rows = [len(odd_kinds(line)) for line in series]
    return [sum(rows[:k]) for k in range(len(rows))]


def _spoken(line: Series, series: Sequence[Series]) -> str:
    """The name for the read-out; with both directions of a source in one panel, also which."""
    name = shorten(line.label, 24)
    alone = sum(other.label == line.label for other in series) == 1
    return name if alone else f"{name} {'backward' if line.dashed else 'forward'}"


def _readout(frame: Frame) -> str:
    """Plot box and x range for the read-out under the pointer."""
    box = (frame.x0, frame.y0, frame.width, frame.height)
    return " ".join([*(fixed(v) for v in box), f"{frame.x.low:g}", f"{frame.x.high:g}"])


def _reference(panel: Panel, frame: Frame) -> Iterator[str]:
    """The thick line at 1."""
    if panel.reference is not None:
        yield (
            f'<path d="M{fixed(frame.x0)} {fixed(frame.py(panel.reference))}h{fixed(frame.width)}"'
            ' stroke="currentColor" stroke-width="2.6" stroke-opacity=".5" fill="none"'
            ' stroke-linecap="butt"/>'
        )


def _limit(panel: Panel, frame: Frame) -> Iterator[str]:
    """The dashed limit, labelled where the lines leave most room."""
    if panel.threshold is None or not panel.y.low <= panel.threshold <= panel.y.high:
        return
    y, text = frame.py(panel.threshold), f"limit {panel.threshold:g}"
    x = _roomiest(panel, frame, 6.5 * len(text), y - 8)
    yield (
        f'<path d="M{fixed(frame.x0)} {fixed(y)}h{fixed(frame.width)}" stroke="currentColor"'
        ' stroke-width="1.2" stroke-dasharray="3 4" fill="none" stroke-linecap="butt"/>'
    )
    yield f'<text x="{fixed(x)}" y="{fixed(y - 5)}" font-size="11">{text}</text>'


def _roomiest(panel: Panel, frame: Frame, width: float, y: float) -> float:
    """Left end, among a few, where a label at height ``y`` is furthest from every line."""
    points = [
        (frame.px(x), frame.py(v))
        for line in panel.series
        for x, v in zip(line.x, line.y, strict=True)
        if v is not None and math.isfinite(v)
    ]

    def room(left: float) -> float:
        near = [abs(py - y) for px, py in points if left - 8 <= px <= left + width + 8]
        return min(near, default=math.inf)

    places = [
        frame.x0 + 6 + (frame.width - width - 12) * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    return max(places, key=lambda left: min(room(left), 14.0))


def _gaps(panel: Panel, frame: Frame) -> Iterator[str]:
    """Columns without a value, hatched in the colour of the source that lacks it."""
    half = 0.5 if panel.x.label.startswith("site") else 0.0
    for k, line in enumerate(panel.series):
        path = ""
        for x in (x for x, y in zip(line.x, line.y, strict=True) if y is None):
            left = frame.px(x - half)
            right = max(frame.px(x + half), left + 2)
            path += f"M{fixed(left)} {fixed(frame.y0)}H{fixed(right)}"
            path += f"v{fixed(frame.height)}H{fixed(left)}z"
        if path:
            name = f"{panel.key}-hatch-{k}"
            yield hatch(name, line.colour)
            yield f'<path d="{path}" fill="url(#{name})"/>'


def _separators(panel: Panel, frame: Frame) -> Iterator[str]:
    """Where chains start."""
    for mark in panel.separators:
        x = frame.px(mark.value - 0.5)
        if mark.value > 0:
            yield (
                f'<path d="M{fixed(x)} {fixed(frame.y0)}v{fixed(frame.height)}"'
                ' stroke="currentColor" stroke-opacity=".4" stroke-dasharray="1 3" fill="none"/>'
            )
        yield (
            f'<text x="{fixed(x + 4)}" y="{fixed(frame.y0 + frame.height - 6)}" font-size="10.5"'
            f' fill-opacity=".72">{escape(shorten(mark.text, 14))}</text>'
        )
