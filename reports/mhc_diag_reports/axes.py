"""Ranges and ticks: logarithmic about 1 for gains, plain for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mhc_diag_reports.page import Axis, Tick
from mhc_diag_reports.texts import number, power

_SYMMETRIC = 1.0 / 3.0
"""Attenuation of at least this share of the amplification (in decades) gets equal room."""
_DECADE_STEPS = (1, 2, 5, 10, 20, 50, 100, 200)
_MOST_TICKS = 7
_FINE_DECADES = 2.0
"""Axes of fewer decades carry 1, 2, 5 in each."""


def gain_axis(
    values: Iterable[float | None], *, include: Iterable[float] = (), label: str = "gain"
) -> Axis:
    """A log10 axis about 1: symmetric about it when attenuation matters beside amplification.

    Where it does not, 1 stays near the bottom, so that the plot is not half empty.

    Args:
        values: everything that is drawn; None, NaN, infinity, zero and negative values have no
            place on the axis and are marked at its edge instead.
        include: further gains that must be visible, such as a limit.
        label: text beside the axis.
    """
    logs = [math.log10(v) for v in values if v is not None and math.isfinite(v) and v > 0]
    logs += [math.log10(v) for v in include if math.isfinite(v) and v > 0]
    top = max([*logs, math.log10(1.05)])
    bottom = min([*logs, 0.0])
    if -bottom >= _SYMMETRIC * top:
        high = min(max(top, -bottom) * 1.08, 307.0)
        low = -high
    else:
        high = min(top * 1.1, 307.0)
        low = max(min(bottom * 1.1, -0.06 * high), -307.0)
    return Axis(label=label, low=10.0**low, high=10.0**high, ticks=_log_ticks(low, high), log=True)


def _log_ticks(low: float, high: float) -> tuple[Tick, ...]:
    """Ticks between 10**low and 10**high; 1 is always one of them when it is in range."""
    span = high - low
    if span < math.log10(2.0):
        return nice_ticks(10.0**low, 10.0**high, most=5)
    if span <= _FINE_DECADES:
        leads = (1, 2, 5) if span > math.log10(3.0) else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
        found = [
            lead * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for lead in leads
        ]
        return tuple(Tick(value=v, text=f"{v:g}") for v in found if low <= math.log10(v) <= high)
    step = next((s for s in _DECADE_STEPS if span / s <= _MOST_TICKS), _DECADE_STEPS[-1])
    first = math.ceil(low / step) * step
    exponents = range(first, math.floor(high) + 1, step)
    return tuple(Tick(value=10.0**e, text=power(e)) for e in exponents)


def linear_axis(
    values: Iterable[float | None], *, include: Iterable[float] = (), label: str = "", most: int = 5
) -> Axis:
    """A plain axis around the finite values, with a little air."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    finite += [v for v in include if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        air = 0.05 * abs(high) or 1.0
    else:
        air = 0.08 * (high - low)
    low, high = low - air, high + air
    return Axis(label=label, low=low, high=high, ticks=nice_ticks(low, high, most=most))


def scalar_axis(values: Iterable[float | None], *, label: str) -> Axis:
    """For losses and norms: logarithmic when positive and over more than a factor of 30."""
    values = list(values)
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if finite and min(finite) > 0 and max(finite) > 30 * min(finite):
        low, high = math.log10(min(finite)), math.log10(max(finite))
        air = 0.06 * (high - low)
        low, high = max(low - air, -307.0), min(high + air, 307.0)
        return Axis(label=label, low=10**low, high=10**high, ticks=_log_ticks(low, high), log=True)
    return linear_axis(finite, label=label, most=4)


def site_axis(n_sites: int) -> Axis:
    """Site numbers 0 .. L-1 with half a site of air at both ends."""
    return Axis(
        label="site (execution order)",
        low=-0.5,
        high=max(n_sites, 1) - 0.5,
        ticks=index_ticks(n_sites),
    )


def step_axis(steps: Iterable[float]) -> Axis:
    """Training steps."""
    steps = list(steps) or [0.0]
    low, high = min(steps), max(steps)
    air = 0.02 * (high - low) or 0.5
    ticks = tuple(
        Tick(value=t.value, text=step_text(t.value)) for t in nice_ticks(low, high, most=6)
    )
    whole = tuple(t for t in ticks if float(t.value).is_integer())
    return Axis(label="training step", low=low - air, high=high + air, ticks=whole)


def step_text(step: float) -> str:
    """Steps from ten thousand on in thousands: 12000 -> 12k."""
    return f"{step / 1000:g}k" if abs(step) >= 10_000 else f"{step:.0f}"


def index_ticks(amount: int, *, most: int = 7) -> tuple[Tick, ...]:
    """Whole numbers 0 .. amount - 1."""
    step = next(
        (lead * 10**e for e in range(7) for lead in (1, 2, 5) if amount / (lead * 10**e) <= most),
        amount,
    )
    return tuple(Tick(value=float(i), text=str(i)) for i in range(0, amount, step))


def nice_ticks(low: float, high: float, *, most: int) -> tuple[Tick, ...]:
    """At most ``most`` + 1 round numbers between ``low`` and ``high``."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return (Tick(value=low, text=number(low)),)
    size = 10.0 ** math.floor(math.log10(span / most))
    step = next(size * lead for lead in (1, 2, 2.5, 5, 10, 20) if span / (size * lead) <= most)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if not math.isclose(round(step, decimals), step, rel_tol=1e-6):
        decimals += 1
    first = math.ceil(low / step - 1e-9)
    found = [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
    wide = max(abs(low), abs(high)) >= 1e5 or decimals > 7
    return tuple(Tick(value=v, text=number(v) if wide else f"{v:.{decimals}f}") for v in found)
