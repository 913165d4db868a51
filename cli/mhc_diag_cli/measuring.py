"""From the options to one analysis per source."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mhc_diag_cli.console import Console
from mhc_diag_cli.options import Limiting, Measuring
from mhc_diag_cli.stored import run_and_step
from mhc_diag_cli.taps import taps
from mhc_diag_cli.values import bounds, check_device, gain_limit, settings

if TYPE_CHECKING:
    from mhc_diag.analysis import Analysis
    from mhc_diag.rules.records import Limit


def measurer(
    measuring: Measuring, console: Console, *, limiting: Limiting | None = None
) -> Callable[[str], Analysis]:
    """Return the function that analyses one source as the options say.

    The options are read here, once, so that a wrong one is told before anything is measured.

    Raises:
        OptionError: an option that cannot be read.
    """
    wishes = wishes_of(measuring) | {
        "limits": None if limiting is None else limits(limiting),
        "allow_partial": measuring.allow_partial,
    }
    return partial(_measure, console, wishes)


def wishes_of(measuring: Measuring) -> dict[str, Any]:
    """What the options ask to be measured, by the names of :class:`mhc_diag.pipeline.Wishes`.

    Raises:
        OptionError: an option that cannot be read.
    """
    return {
        "probe": measuring.probe.value if measuring.probe else None,
        "model": measuring.model,
        "inputs": measuring.inputs,
        "tokens": measuring.tokens,
        "seed": measuring.seed,
        "device": check_device(measuring.device),
        "adapter": measuring.adapter,
        "taps": taps(measuring.tap),
        "settings": settings(measuring.set),
        "step": measuring.step,
    }


def _measure(console: Console, wishes: dict[str, Any], source: str) -> Analysis:
    from mhc_diag.pipeline import analyze

    path, step = run_and_step(source)
    if step is not None:
        wishes = wishes | {"step": step}
    with console.working(f"measuring {source}"):
        analysis: Analysis = analyze(path, **wishes)
    return analysis


def limits(limiting: Limiting) -> dict[str, Limit] | None:
    """The limits that the options give, as the library takes them; None where they give none."""
    from mhc_diag.limits import limits_of

    maxima, minima = bounds("--max", limiting.max), bounds("--min", limiting.min)
    if limiting.max_gain is None and not maxima and not minima:
        return None
    return limits_of(gain_limit(limiting.max_gain), maxima, minima)


def inputs_of(measuring: Measuring, *sources: str) -> tuple[str, ...]:
    """Every word that may name a file which no output may replace."""
    return (*sources, *([measuring.inputs] if measuring.inputs else []))
