"""The frame of an SVG figure: outer element, plotting area, axes, hatching."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from mhc_diag_reports.page import Axis
from mhc_diag_reports.texts import clean

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The plotting area of a figure in user units, and the way there from data units."""

    x0: float
    y0: float
    width: float
    height: float
    x: Axis
    y: Axis

    def px(self, value: float) -> float:
        """Horizontal place of a data value."""
        return self.x0 + self.width * (value - self.x.low) / (self.x.high - self.x.low)

    def py(self, value: float) -> float:
        """Vertical place; what the axis cannot show lies on its edge."""
        if self.y.log:
            low, high = math.log10(self.y.low), math.log10(self.y.high)
            share = 0.0 if value <= 0 else (math.log10(value) - low) / (high - low)
        else:
            share = (value - self.y.low) / (self.y.high - self.y.low)
        return self.y0 + self.height * (1.0 - min(1.0, max(0.0, share)))


def fixed(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def text_attribute(text: str) -> str:
    """``text`` as a quoted attribute."""
    return quoteattr(clean(text))


def document(
    key: str, title: str, desc: str, size: tuple[float, float], body: Iterator[str]
) -> str:
    """The outer element of every figure."""
    width, height = size
    head = (
        f'<svg role="img" aria-labelledby="{key}-t {key}-d" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height:g}" font-family="{FONT}" font-size="12"'
        ' fill="currentColor" stroke-linejoin="round" stroke-linecap="round">'
    )
    return "\n".join(
        [
            head,
            f'<title id="{key}-t">{escape(clean(title))}</title>',
            f'<desc id="{key}-d">{escape(clean(desc))}</desc>',
            *body,
            "</svg>",
        ]
    )


def grid(frame: Frame) -> Iterator[str]:
    """Ticks, hairlines and the labels of both axes."""
    bottom, right = frame.y0 + frame.height, frame.x0 + frame.width
    rows = [(frame.py(t.value), t.text) for t in frame.y.ticks]
    columns = [(frame.px(t.value), t.text) for t in frame.x.ticks]
    path = "".join(f"M{fixed(frame.x0)} {fixed(y)}H{fixed(right)}" for y, _ in rows)
    yield f'<path d="{path}" stroke="currentColor" stroke-opacity=".11" fill="none"/>'
    path = "".join(f"M{fixed(x)} {fixed(bottom)}v4" for x, _ in columns)
    path += f"M{fixed(frame.x0)} {fixed(bottom)}H{fixed(right)}"
    yield f'<path d="{path}" stroke="currentColor" stroke-opacity=".45" fill="none"/>'
    yield '<g fill-opacity=".72" text-anchor="end">'
    for y, text in rows:
        yield f'<text x="{fixed(frame.x0 - 7)}" y="{fixed(y + 4)}">{escape(text)}</text>'
    yield '</g><g fill-opacity=".72" text-anchor="middle">'
    for x, text in columns:
        yield f'<text x="{fixed(x)}" y="{fixed(bottom + 17)}">{escape(text)}</text>'
    centre = frame.x0 + frame.width / 2
    yield f'<text x="{fixed(centre)}" y="{fixed(bottom + 33)}">{escape(frame.x.label)}</text></g>'
    if frame.y.label:
        left = fixed(max(2.0, frame.x0 - 30))
        yield f'<text x="{left}" y="12" fill-opacity=".72">{escape(clean(frame.y.label))}</text>'


def hatch(name: str, colour: str = "currentColor") -> str:
    """Thin diagonal lines: not measured."""
    return (
        f'<defs><pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse"'
        ' patternTransform="rotate(45)">'
        f'<path d="M0 0V6" stroke="{colour}" stroke-opacity=".45"'
        ' stroke-width="1.6"/></pattern></defs>'
    )
