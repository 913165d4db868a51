"""The page's figures as one PNG, PDF or SVG, drawn by matplotlib on white.

matplotlib is imported inside the functions and its global state is left alone: the object interface
with the Agg canvas, never pyplot. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mhc_diag_reports.content import page_of
from mhc_diag_reports.page import Heatmap, Page, Section
from mhc_diag_reports.texts import clean, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from mhc_diag.comparison import Comparison
    from mhc_diag.limits import GateResult
    from mhc_diag.runs.read import RunHistory

WIDTH = 12.0
"""Inches; at 200 dots per inch a PNG is 2400 pixels wide."""
DPI = 200
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": "#17191D",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.edgecolor": "#8A9099",
    "axes.labelcolor": "#5A616C",
    "xtick.color": "#5A616C",
    "ytick.color": "#5A616C",
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "mhc-diag",
    "pdf.fonttype": 42,
}
_ROW = {2: 3.05, 3: 2.45}
"""Height of a row of figures in inches, by columns."""
_SECTION = 0.62
"""Height of a section heading, with the air above it."""
_VERDICT = 0.3
_TOP, _BOTTOM = 0.75, 0.55
_LEFT, _RIGHT, _BETWEEN = 0.62, 0.75, 1.05


def render_png(
    comparison: Comparison,
    *,
    runs: Sequence[RunHistory] = (),
    command: str = "",
    gate: GateResult | None = None,
) -> bytes:
    """All figures on one image, 2400 pixels wide."""
    page = page_of(comparison, runs=runs, command=command, gate=gate)
    return _render(page, "png", {"Software": None})


def render_pdf(
    comparison: Comparison,
    *,
    runs: Sequence[RunHistory] = (),
    command: str = "",
    gate: GateResult | None = None,
) -> bytes:
    """All figures on one PDF page, as vectors with text as text."""
    page = page_of(comparison, runs=runs, command=command, gate=gate)
    return _render(page, "pdf", {"CreationDate": None})


def render_svg(
    comparison: Comparison,
    *,
    runs: Sequence[RunHistory] = (),
    command: str = "",
    gate: GateResult | None = None,
) -> bytes:
    """All figures in one SVG file, text as text."""
    page = page_of(comparison, runs=runs, command=command, gate=gate)
    return _render(page, "svg", {"Date": None})


def _render(page: Page, suffix: str, metadata: Mapping[str, None]) -> bytes:
    """Draw and encode."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font"
        )  # names in any script
        figure = _draw(page)
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=dict(metadata))
    return buffer.getvalue()


def _draw(page: Page) -> MatplotlibFigure:
    """Header, then sections of figures from top to bottom."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = _TOP + _VERDICT * (len(page.verdicts) + (page.gate is not None)) + _BOTTOM
    height += sum(_SECTION + _rows(section) * _ROW[section.columns] for section in page.sections)
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    FigureCanvasAgg(figure)
    y = _header(figure, page, height)
    for section in page.sections:
        y = _section(figure, section, y)
    figure.text(_LEFT / WIDTH, 0.2 / height, clean(page.tool), fontsize=7.5, color="#5A616C")
    return figure


def _rows(section: Section) -> int:
    """Rows of figures in a section."""
    return -(-len(section.figures) // section.columns)


def _header(figure: MatplotlibFigure, page: Page, height: float) -> float:
    """Title and one verdict line per source; the height below them, in inches from the bottom."""
    left = _LEFT / WIDTH
    figure.text(
        left, (height - 0.5) / height, shorten(page.title, 90), fontsize=17, fontweight="bold"
    )
    y = height - _TOP
    if page.gate is not None:
        y -= _VERDICT
        answer = f"gate  {page.gate.icon} {page.gate.word} ({page.gate.sentence})"
        figure.text(left, y / height, shorten(answer, 120), fontsize=10.5, fontweight="bold")
    for line in page.verdicts:
        y -= _VERDICT
        site = line.place.split(",")[0]
        value = (
            f"{line.number} {line.metric_id} at {site}, {line.limit}"
            if line.number
            else shorten(line.missing or "no value", 60)
        )
        figure.text(left, y / height, "●", color=line.colour, fontsize=11)
        figure.text(
            left + 0.018,
            y / height,
            f"{shorten(line.label, 16)}  {line.icon} {line.word}",
            fontsize=10.5,
            fontweight="bold",
        )
        figure.text(
            left + 0.28,
            y / height,
            f"{value}; {shorten(line.probe, 46)}",
            fontsize=8.5,
            color="#5A616C",
        )
    return y


def _section(figure: MatplotlibFigure, section: Section, top: float) -> float:
    """A heading and its grid of figures; the height below them."""
    from mhc_diag_reports.mpl_panels import draw_heatmap, draw_panel

    height = float(figure.get_figheight())
    figure.text(
        _LEFT / WIDTH,
        (top - _SECTION + 0.16) / height,
        section.title,
        fontsize=12.5,
        fontweight="bold",
    )
    top -= _SECTION
    columns, row = section.columns, _ROW[section.columns]
    each = (WIDTH - _LEFT - _RIGHT - _BETWEEN * (columns - 1)) / columns
    for k, item in enumerate(section.figures):
        x = _LEFT + (k % columns) * (each + _BETWEEN)
        y = top - (k // columns + 1) * row + 0.5
        axes = figure.add_axes((x / WIDTH, y / height, each / WIDTH, (row - 1.0) / height))
        if isinstance(item, Heatmap):
            draw_heatmap(axes, item)
        else:
            draw_panel(axes, item)
    return top - _rows(section) * row
