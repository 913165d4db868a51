"""What both renderers need to know about lines and labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mhc_diag_reports.page import Series


def stretches(sound: Sequence[bool], breaks: Sequence[int]) -> Iterator[range]:
    """Ranges of positions that belong on one line: no gap inside, no chain crossed."""
    start = None
    for i, is_sound in enumerate([*sound, False]):
        if start is not None and (not is_sound or i in breaks):
            yield range(start, i)
            start = None
        if is_sound and start is None:
            start = i


def apart(wanted: Sequence[float], low: float, high: float, *, gap: float) -> list[float]:
    """Places at least ``gap`` apart, in the order wanted: one pass down, one up."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], low), high) for i in order]
    for k in range(1, len(placed)):
        placed[k] = max(placed[k], placed[k - 1] + gap)
    if placed and placed[-1] > high:
        placed[-1] = high
        for k in range(len(placed) - 2, -1, -1):
            placed[k] = min(placed[k], placed[k + 1] - gap)
    result = [0.0] * len(wanted)
    for k, i in enumerate(order):
        result[i] = placed[k]
    return result


def odd_kinds(line: Series) -> dict[str, list[float]]:
    """``inf``, ``nan`` -> the places where a line has no number but that; gaps are not meant."""
    found: dict[str, list[float]] = {}
    for x, v in zip(line.x, line.y, strict=True):
        if v is not None and not math.isfinite(v):
            found.setdefault(f"{v:g}", []).append(x)
    return found
