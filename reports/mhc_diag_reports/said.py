"""What a line shows, in words computed from its values."""

from __future__ import annotations

import math

from mhc_diag_reports.page import Series
from mhc_diag_reports.texts import count, listed, number, numbers

_CALM = 0.1
"""A line whose ends are closer than this is said to stay."""


def range_of(line: Series, what: str) -> str:
    """Where a line stays or peaks, among its numbers."""
    found = [(v, -i) for i, v in enumerate(line.y) if v is not None and math.isfinite(v)]
    if not found:
        return "has no number"
    (high, place), (low, _) = max(found), min(found)
    bottom, top = numbers([low, high])
    if top == bottom:
        return f"stays at {top}"
    if math.isclose(high, low, rel_tol=_CALM):
        return f"stays between {bottom} and {top}"
    return f"peaks at {number(high)} at {what} {line.x[-place]:.0f}"


def odd_of(line: Series, what: str) -> str:
    """Where the value is not finite."""
    odd = [
        f"{x:.0f} ({number(v)})"
        for x, v in zip(line.x, line.y, strict=True)
        if v is not None and not math.isfinite(v)
    ]
    return f"; not finite at {count(len(odd), what)}: {listed(odd)}" if odd else ""
