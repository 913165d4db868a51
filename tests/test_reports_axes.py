"""Numbers, foreign text, scales, labels and colours."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mhc_diag_reports import axes, colours, texts
from mhc_diag_reports.geometry import apart


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "\N{EN DASH}"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (0.0, "0"),
        (1.0, "1.000000"),
        (1.0 + 1e-9, "1.000000"),
        (1.00002, "1.000020"),
        (1.005, "1.0050"),
        (0.999914, "0.999914"),
        (36.512, "36.5"),
        (3012.4, "3012"),
        (1e300, "1.00\N{MULTIPLICATION SIGN}10³⁰⁰"),
        (3.3e-16, "3.30\N{MULTIPLICATION SIGN}10⁻¹⁶"),
    ],
)
def test_numbers_have_three_digits_and_more_only_near_one(value: float | None, shown: str) -> None:
    assert texts.number(value) == shown


def test_foreign_text_loses_what_a_reader_cannot_see() -> None:
    assert texts.one_line("a\x1b[31m\u202eb\ud800\nc") == "a\ufffd[31m\ufffdb\ufffd c"
    assert texts.clean("Größe 試験") == "Größe 試験"


def test_gain_axes_are_symmetric_when_attenuation_matters() -> None:
    both = axes.gain_axis([0.01, 100.0])
    up = axes.gain_axis([1.0, 3000.0])
    assert both.low * both.high == pytest.approx(1.0)
    assert [tick.text for tick in up.ticks] == ["1", "10", "100", "10³"]
    assert up.low < 1.0
    assert up.low > 0.3


@pytest.mark.parametrize(
    "values", [[], [1.0], [math.inf, math.nan, None, 0.0, -1.0], [1e300], [1e-300, 1e308]]
)
def test_no_values_break_an_axis(values: list[float | None]) -> None:
    axis = axes.gain_axis(values)
    assert 0 < axis.low < 1 <= axis.high < math.inf
    assert 1 <= len(axis.ticks) <= 12
    assert axes.linear_axis(values).low < axes.linear_axis(values).high
    assert axes.scalar_axis(values, label="x").low < axes.scalar_axis(values, label="x").high


def test_labels_are_moved_apart_and_stay_inside() -> None:
    placed = apart([50.0, 50.0, 51.0, 100.0], 0.0, 100.0, gap=14.0)
    assert np.diff(sorted(placed)).min() >= 14.0 - 1e-9
    assert max(placed) <= 100.0


def test_colours_do_not_repeat_while_any_are_left() -> None:
    chosen = colours.assign(["hc", "hc", "mhc", "mhc", "custom"])
    assert chosen[0] == colours.HC
    assert colours.MHC in chosen
    assert len(set(chosen)) == 5


@pytest.mark.parametrize("share", [-2.0, -1.0, -0.4, 0.0, 0.7, 1.0, 9.0])
def test_colour_levels_stay_on_the_ramp_and_one_is_the_middle(share: float) -> None:
    assert 0 <= colours.level_of(share, 1.0) < len(colours.RAMP)
    assert colours.level_of(0.0, 3.0) == colours.LEVELS
