"""Aggregates over tokens: quantiles at the edges, and numbers beyond the range of a double."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mhc_diag.compose import Scaled
from mhc_diag.metrics.aggregates import QUANTILES, aggregate, mean_matrix
from mhc_diag.metrics.numbers import Numbers, log10, plain, to_float

INF, NAN = np.inf, np.nan


def of(tokens: list[float], name: str) -> float:
    return float(to_float(aggregate(plain(np.asarray([tokens])), [name])[name])[0])


@pytest.mark.parametrize(
    ("tokens", "name", "value"),
    [
        ([3.0, 1.0, 2.0], "p50", 2.0),
        ([4.0, 1.0, 2.0, 3.0], "p50", 2.5),
        ([1.0, 2.0], "p99", 1.99),
        ([1.0, 2.0], "p5", 1.05),
        ([5.0], "p99", 5.0),
        ([1.0, 3.0, 2.0], "mean", 2.0),
        ([1.0, 3.0, 2.0], "max", 3.0),
        ([1.0, 3.0, 2.0], "min", 1.0),
    ],
)
def test_quantiles_interpolate_linearly(tokens: list[float], name: str, value: float) -> None:
    assert of(tokens, name) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("tokens", "name", "value"),
    [
        ([1.0, 2.0, INF], "p50", 2.0),  # its upper neighbour has weight zero
        ([1.0, 2.0, 3.0, INF], "p50", 2.5),
        ([1.0, INF], "p50", INF),
        ([1.0, INF, INF], "p50", INF),
        ([INF, INF], "p50", INF),
        ([1.0, INF], "min", 1.0),
        ([1.0, INF], "p5", INF),
        ([1.0, INF], "mean", INF),
        ([1.0] * 100 + [INF], "p99", 1.0),  # position 99 of 0 .. 100 exactly
        ([1.0] * 101 + [INF], "p99", 1.0),
        ([1.0] * 99 + [INF], "p99", INF),
    ],
)
def test_a_neighbour_counts_only_by_its_weight(
    tokens: list[float], name: str, value: float
) -> None:
    assert of(tokens, name) == value


@pytest.mark.parametrize("name", [*QUANTILES, "mean"])
@pytest.mark.parametrize("tokens", [[NAN, 1.0, 2.0], [1.0, 2.0, NAN], [INF, NAN], [NAN]])
def test_a_token_that_is_nan_makes_the_number_nan(tokens: list[float], name: str) -> None:
    assert np.isnan(of(tokens, name))


def test_a_nan_of_one_site_leaves_the_others_alone() -> None:
    found = aggregate(plain(np.asarray([[NAN, 1.0], [2.0, 4.0]])), ["p50", "mean"])
    np.testing.assert_array_equal(to_float(found["p50"]), [NAN, 3.0])
    np.testing.assert_array_equal(to_float(found["mean"]), [NAN, 3.0])


@given(hnp.arrays(np.float64, (2, 7), elements=st.floats(0, 1e6)))
def test_quantiles_of_plain_doubles_are_numpys(readings: np.ndarray) -> None:
    found = aggregate(plain(readings), QUANTILES)
    for name, share in QUANTILES.items():
        want = np.quantile(readings, float(share), axis=-1)
        np.testing.assert_allclose(to_float(found[name]), want, rtol=1e-12, atol=1e-12)


@given(
    hnp.arrays(np.float64, 6, elements=st.floats(-4, 4)),
    hnp.arrays(np.int64, 6, elements=st.integers(-40, 40)),
)
def test_the_far_range_follows_the_rules_of_the_near_one(
    values: np.ndarray, exponent: np.ndarray
) -> None:
    names = [*QUANTILES, "mean"]
    near = aggregate(Numbers(values[None], exponent[None]), names)
    far = aggregate(Numbers(values[None], exponent[None] + 5000), names)
    for name in names:
        back = Numbers(far[name].values, far[name].exponent - 5000)
        scale = np.abs(np.ldexp(values, exponent)).max()
        np.testing.assert_allclose(to_float(back), to_float(near[name]), rtol=0, atol=1e-15 * scale)


def test_tokens_are_ordered_by_value_over_the_whole_range() -> None:
    readings = Numbers(
        np.asarray([[1.0, 0.0, 1.5, 1.0, INF, 1.0]]), np.asarray([[4000, 9999, -4000, 0, 0, 4001]])
    )
    found = aggregate(readings, ["min", "p50", "max"])
    assert to_float(found["min"])[0] == 0.0
    assert log10(found["p50"])[0] == pytest.approx(3999 * np.log10(2))  # between 1 and 2**4000
    assert to_float(found["max"])[0] == INF
    smallest = aggregate(readings[:, 2:], ["min"])["min"]
    assert log10(smallest)[0] == pytest.approx(-4000 * np.log10(2) + np.log10(1.5))


def test_a_mean_beyond_the_range_of_a_double_keeps_its_log10() -> None:
    readings = Numbers(np.asarray([[1.0, 3.0]]), np.asarray([[3000, 3000]]))
    mean = aggregate(readings, ["mean"])["mean"]
    assert to_float(mean)[0] == INF
    assert log10(mean)[0] == pytest.approx(3001 * np.log10(2))


def test_the_mean_of_numbers_near_the_largest_double_does_not_overflow() -> None:
    assert of([1.5e308, 1.5e308, 1.5e308], "mean") == pytest.approx(1.5e308)


@pytest.mark.parametrize(
    ("number", "expected"), [(0.0, -INF), (INF, INF), (NAN, NAN), (-1000.0, 3.0)]
)
def test_log10_of_special_numbers(number: float, expected: float) -> None:
    np.testing.assert_allclose(log10(plain([number])), [expected])


def test_the_mean_matrix_averages_sizes_far_apart_with_their_scale() -> None:
    values = np.stack([np.eye(2), 3 * np.eye(2), np.zeros((2, 2))])[None]
    mean = mean_matrix(Scaled(values, np.asarray([[5000, 5000, -(2**40)]])))
    found = Numbers(mean.values[0], np.broadcast_to(mean.exponent - 5000, (2, 2)))
    np.testing.assert_allclose(to_float(found), np.eye(2) * 4 / 3, rtol=1e-15)


def test_opposite_tokens_cancel_in_the_mean_matrix_alone() -> None:
    values = np.stack([np.eye(2), -np.eye(2)])[None]
    assert not mean_matrix(Scaled(values, np.zeros((1, 2), dtype=np.int64))).values.any()
