from __future__ import annotations

import math

import numpy as np
import pytest

from mhc_diag.errors import OptionError
from mhc_diag.rules.bounds import Breach, breach, resolve
from mhc_diag.rules.case import shown, worst
from mhc_diag.rules.records import Limit

KNOWN = ["composite.forward.amax.mean", "composite.backward.amax.mean", "single.forward.norm.max"]


def masked(*values: float | None) -> np.ma.MaskedArray:
    data = [np.nan if value is None else value for value in values]
    return np.ma.MaskedArray(data, mask=[value is None for value in values])


def test_a_plain_id_overrides_a_pattern_whatever_their_order() -> None:
    limits = {KNOWN[0]: Limit(max=5.0), "composite.*.amax.mean": Limit(max=2.0, min=0.5)}
    assert resolve(limits, KNOWN) == {
        KNOWN[0]: Limit(max=5.0, min=0.5),
        KNOWN[1]: Limit(max=2.0, min=0.5),
    }


def test_a_limit_that_matches_nothing_names_the_nearest_id() -> None:
    with pytest.raises(OptionError, match=r"Did you mean 'composite\.forward\.amax\.mean'"):
        resolve({"composite.forward.amax.maen": Limit(max=2)}, KNOWN)


@pytest.mark.parametrize("bound", [math.nan, math.inf])
def test_a_bound_that_is_no_number_is_refused(bound: float) -> None:
    with pytest.raises(OptionError, match="finite number"):
        resolve({KNOWN[0]: Limit(max=bound)}, KNOWN)


@pytest.mark.parametrize(
    ("values", "limit", "expected"),
    [
        (masked(1, 3, 4, 2), Limit(max=2), Breach(value=4.0, site=2, side="max")),
        (masked(1, 2, None), Limit(max=2), None),
        (masked(1, None, -3), Limit(min=0), Breach(value=-3.0, site=2, side="min")),
        (masked(1, 2, None), Limit(min=1), None),
        (masked(9, -math.inf, 1), Limit(max=2), Breach(value=-math.inf, site=1, side="inf")),
        (masked(None, None), Limit(max=2), None),
    ],
    ids=["above", "at", "below", "at-min", "infinite", "gap"],
)
def test_breach_finds_the_worst_value_outside(
    values: np.ma.MaskedArray, limit: Limit, expected: Breach | None
) -> None:
    assert breach(values, limit) == expected


def test_worst_puts_nan_before_infinity_before_numbers() -> None:
    at = worst(masked(5, math.inf, math.nan, None), "high")
    assert at is not None
    assert math.isnan(at[0])
    assert at[1] == 2
    assert worst(masked(5, math.inf, 9), "low") == (math.inf, 1)
    assert worst(masked(5, None, 9), "low") == (5.0, 0)
    assert worst(masked(5, None, 9), "high") == (9.0, 2)
    assert worst(masked(None), "high") is None


@pytest.mark.parametrize(
    ("value", "beside", "text"),
    [
        (36.4999, None, "36.5"),
        (2.0, None, "2.0"),
        (2.00001, 2.0, "2.00001"),
        (1e300, None, "1e+300"),
    ],
)
def test_numbers_are_shown_short_but_not_equal_to_their_limit(
    value: float, beside: float | None, text: str
) -> None:
    assert shown(value, beside=beside) == text
