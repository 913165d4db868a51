"""Okabe-Ito for sources, blue over grey to orange for gains; readable on white and on black."""

from __future__ import annotations

from collections.abc import Sequence

HC = "#D55E00"
MHC = "#0072B2"
_OF_FAMILY = {
    "hc": HC,
    "mhc": MHC,
    "mhc-lite": "#009E73",
    "kromhc": "#CC79A7",
    "identity": "#767676",
}
_OTHERS = ("#009E73", "#CC79A7", "#B07A00", "#56B4E9", "#767676", MHC, HC)

ON_DARK = {
    HC: "#F0803C",
    MHC: "#4DA6E0",
    "#009E73": "#2DBE96",
    "#CC79A7": "#E29BC4",
    "#B07A00": "#E69F00",
    "#56B4E9": "#7CC7F2",
    "#767676": "#A8A8A8",
}
"""The same hues, lighter, for a dark ground. #B07A00 is Okabe-Ito's orange, darkened for white."""

LEVELS = 16
"""Colour steps from 1 to the end of the scale, on each side."""
_LIGHT = ("#08306B", "#2171B5", "#9ECAE1", "#F1EFEA", "#FDBE85", "#E6550D", "#7F2704")
_DARK = ("#B5DBFF", "#4C9BDC", "#23517D", "#2A2E36", "#8A4716", "#EE7B22", "#FFE0B5")


def assign(families: Sequence[str]) -> tuple[str, ...]:
    """One colour per source: its family's own when free, else the next free one."""
    taken: list[str] = []
    for family in families:
        own = _OF_FAMILY.get(family)
        free = [c for c in _OTHERS if c not in taken and c not in (HC, MHC)] or [
            _OTHERS[len(taken) % len(_OTHERS)]
        ]
        taken.append(own if own and own not in taken else free[0])
    return tuple(taken)


def _mix(first: str, second: str, share: float) -> str:
    """The colour ``share`` of the way from ``first`` to ``second``."""
    a, b = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (first, second))
    return "#" + "".join(f"{round(p + (q - p) * share):02X}" for p, q in zip(a, b, strict=True))


def _ramp(anchors: Sequence[str]) -> tuple[str, ...]:
    """2 * LEVELS + 1 colours through the anchors; the middle one means a gain of 1."""
    colours = []
    for level in range(2 * LEVELS + 1):
        place = level / (2 * LEVELS) * (len(anchors) - 1)
        left = min(int(place), len(anchors) - 2)
        colours.append(_mix(anchors[left], anchors[left + 1], place - left))
    return tuple(colours)


RAMP = _ramp(_LIGHT)
"""Gains on a light ground: index 0 is 10**-decades, LEVELS is 1, 2 * LEVELS is 10**decades."""
RAMP_ON_DARK = _ramp(_DARK)


def level_of(log_gain: float, decades: float) -> int:
    """Index into the ramp; the middle level means within half a level of 1."""
    level = round(log_gain / decades * LEVELS) + LEVELS
    return max(0, min(2 * LEVELS, level))


def css_on_dark() -> str:
    """Rules that recolour the figures on a dark ground; attributes alone are right on white."""
    lines = [
        f'[stroke="{c}"]{{stroke:{d}}}[fill="{c}"]{{fill:{d}}}font[color="{c}"]{{color:{d}}}'
        for c, d in ON_DARK.items()
    ]
    lines += [f"rect.h{i}{{fill:{c}}}path.h{i}{{stroke:{c}}}" for i, c in enumerate(RAMP_ON_DARK)]
    return "".join(lines)
