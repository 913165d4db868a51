"""Curves in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mhc_diag_reports.readings import finite, highest

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"
"""Not measured."""
_TOP_AT_LEAST = 2.0
"""The tallest bar stands for a gain of at least this, so that noise about 1 stays flat."""


def sparkline(values: Sequence[float | None], *, top: float, width: int = 40) -> str:
    """Bars over depth on a log scale from 1 (or below: the lowest bar) to ``top``.

    Args:
        values: gains in site order; each of at most ``width`` bars shows the worst of its sites.
        top: gain of the tallest bar; see :func:`top_of`.
        width: most characters.

    Infinity is ``∞``, NaN ``!``, a bar without any measured site ``·``.

    >>> sparkline([1.0, 10.0, None, 100.0], top=100.0)
    '▁▅·█'
    """
    each = max(1, -(-len(values) // width))
    return "".join(
        _bar(highest(values[i : i + each]), math.log10(top)) for i in range(0, len(values), each)
    )


def trend_line(values: Sequence[float | None], *, width: int = 40) -> str:
    """Bars over time on a linear scale from the lowest number to the highest.

    Args:
        values: in order of time; each of at most ``width`` bars shows the highest of its values.
        width: most characters.

    Infinity is ``∞``, NaN ``!``, a bar without any value ``·``.

    >>> trend_line([4.0, 3.0, None, 1.0])
    '█▆·▁'
    """
    numbers = finite(values)
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    each = max(1, -(-len(values) // width))
    shown = (highest(values[i : i + each]) for i in range(0, len(values), each))
    return "".join(_step(worst, low, high - low) for worst in shown)


def top_of(*curves: Sequence[float | None]) -> float:
    """The gain that the tallest bar of several sparklines stands for."""
    return max([_TOP_AT_LEAST, *(v for curve in curves for v in finite(curve))])


def _step(worst: tuple[float, int] | None, low: float, span: float) -> str:
    """One character of a linear scale."""
    share = 0.0 if worst is None or not span else (worst[0] - low) / span
    return _character(worst, share)


def _bar(worst: tuple[float, int] | None, decades: float) -> str:
    """One character of the log scale."""
    share = 0.0 if worst is None or not worst[0] > 1.0 else math.log10(worst[0]) / decades
    return _character(worst, share)


def _character(worst: tuple[float, int] | None, share: float) -> str:
    """A bar of so much of the height, or what stands where there is no number."""
    if worst is None:
        return GAP
    if math.isnan(worst[0]):
        return "!"
    if math.isinf(worst[0]):
        return "∞"
    return BARS[min(len(BARS) - 1, max(0, round(share * (len(BARS) - 1))))]
