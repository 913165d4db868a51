"""Products over depth: order, scale, and the same on every array library."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import doubly_stochastic, stacks

from mhc_diag.arrays import to_numpy
from mhc_diag.compose import Scaled, concatenate, magnitudes, prefix, scaled, suffix, windows_ending

LIBRARIES = {"numpy": np.asarray, "torch": torch.asarray, "strict": array_api_strict.asarray}
TWO = np.asarray([[[[1.0, 2.0], [3.0, 4.0]]], [[[0.5, 0.5], [1.0, 0.0]]]])
"""Two sites that neither commute nor equal their transposes, [2, 1, 2, 2]."""


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Any:
    return LIBRARIES[request.param]


def doubles(A: Scaled) -> np.ndarray:
    """The matrices as doubles, for products that fit."""
    exponent = np.clip(to_numpy(A.exponent), -4000, 4000).astype(np.int32)
    return np.asarray(np.ldexp(to_numpy(A.values), exponent[..., None, None]))


def chained(M: np.ndarray, a: int, b: int) -> np.ndarray:
    """M_b ... M_a by numpy's own matmul, per token."""
    A = M[a]
    for l in range(a + 1, b + 1):
        A = M[l] @ A
    return np.asarray(A)


def test_the_first_site_stands_rightmost(library: Any) -> None:
    M = library(TWO)
    np.testing.assert_array_equal(doubles(prefix(M))[1, 0], [[2.0, 3.0], [1.0, 2.0]])
    np.testing.assert_array_equal(doubles(suffix(M))[0, 0], [[2.0, 3.0], [1.0, 2.0]])


def test_the_first_prefix_and_the_last_suffix_are_the_sites_themselves(library: Any) -> None:
    M = library(TWO)
    np.testing.assert_array_equal(doubles(prefix(M))[0], TWO[0])
    np.testing.assert_array_equal(doubles(suffix(M))[1], TWO[1])


def test_prefix_suffix_and_windows_equal_plain_products(library: Any) -> None:
    M = np.random.default_rng(0).standard_normal((5, 3, 4, 4))
    M[2, 1] = 0.0
    L = len(M)
    want = np.stack([chained(M, 0, l) for l in range(L)])
    np.testing.assert_allclose(doubles(prefix(library(M))), want, rtol=1e-12, atol=1e-13)
    want = np.stack([chained(M, l, L - 1) for l in range(L)])
    np.testing.assert_allclose(doubles(suffix(library(M))), want, rtol=1e-12, atol=1e-13)
    for b, A in windows_ending(library(M)):
        want = np.stack([chained(M, a, b) for a in range(b + 1)])
        np.testing.assert_allclose(doubles(A), want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 2), (2, 4), (4, 4), (3, None)])
def test_a_block_of_start_sites_gives_just_its_windows(first: int, last: int | None) -> None:
    M = np.random.default_rng(1).standard_normal((5, 2, 3, 3))
    seen = []
    for b, A in windows_ending(M, first=first, last=last):
        for i, product in enumerate(doubles(A)):
            np.testing.assert_allclose(product, chained(M, first + i, b), rtol=1e-12, atol=1e-13)
            seen.append((first + i, b))
    stop = 4 if last is None else last
    assert seen == [(a, b) for b in range(first, 5) for a in range(first, min(b, stop) + 1)]


@pytest.mark.parametrize("size", [1e10, 1e-10, 1e300, 1e-300, 5e-324])
def test_four_hundred_sites_of_any_size_keep_every_digit(size: float, library: Any) -> None:
    M = np.full((400, 1, 2, 2), size)
    A = prefix(library(M))
    value, exponent = to_numpy(A.values)[-1, 0, 0, 0], to_numpy(A.exponent)[-1, 0]
    log2 = np.log2(value) + float(exponent)
    assert log2 == pytest.approx(400 * np.log2(size) + 399, rel=1e-13)
    np.testing.assert_array_equal(to_numpy(A.values)[-1, 0], value)


def test_scaling_by_a_power_of_two_changes_no_digit(library: Any) -> None:
    M = np.random.default_rng(2).standard_normal((3, 2, 4, 4)) * 1e-200
    np.testing.assert_array_equal(doubles(scaled(library(M))), M)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_every_precision_is_multiplied_in_float64(dtype: torch.dtype) -> None:
    M = torch.asarray(TWO).to(dtype)
    assert prefix(M).values.dtype == torch.float64
    np.testing.assert_array_equal(doubles(prefix(M))[1, 0], [[2.0, 3.0], [1.0, 2.0]])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_entries_that_are_not_finite_propagate_and_stay_in_their_token(
    bad: float, library: Any
) -> None:
    M = np.broadcast_to(np.eye(2) + 0.5, (4, 3, 2, 2)).copy()
    M[1, 2, 0, 0] = bad
    finite = np.isfinite(to_numpy(prefix(library(M)).values)).all(axis=(-2, -1))
    np.testing.assert_array_equal(finite, [[True] * 3] + [[True, True, False]] * 3)
    np.testing.assert_allclose(doubles(prefix(library(M)))[3, 0], chained(M[:, :1], 0, 3)[0])


def test_a_site_of_zeros_gives_zeros_from_there_on(library: Any) -> None:
    M = np.full((400, 1, 2, 2), 1e10)
    M[200] = 0.0
    found = to_numpy(prefix(library(M)).values)
    assert not found[200:].any()
    assert found[:200].all()


@settings(max_examples=50, deadline=None)
@given(stacks(exponents=(-3, 3)))
def test_the_last_prefix_is_the_first_suffix(M: np.ndarray) -> None:
    size = doubles(prefix(magnitudes(M)))[-1].max()
    np.testing.assert_allclose(
        doubles(prefix(M))[-1], doubles(suffix(M))[0], rtol=0, atol=1e-13 * size
    )


@settings(max_examples=50, deadline=None)
@given(stacks(exponents=(-3, 3)))
def test_the_transposed_chain_reversed_is_the_transposed_product(M: np.ndarray) -> None:
    upside_down = M[::-1].swapaxes(-1, -2)
    np.testing.assert_array_equal(
        doubles(prefix(upside_down))[::-1].swapaxes(-1, -2), doubles(suffix(M))
    )


@settings(max_examples=50, deadline=None)
@given(doubly_stochastic(max_sites=6))
def test_products_of_doubly_stochastic_matrices_are_doubly_stochastic(M: np.ndarray) -> None:
    for _, A in windows_ending(M):
        np.testing.assert_allclose(doubles(A).sum(-1), 1.0, rtol=1e-13)
        np.testing.assert_allclose(doubles(A).sum(-2), 1.0, rtol=1e-13)
        assert doubles(A).min() >= 0


def test_magnitudes_keep_size_and_drop_signs(library: Any) -> None:
    M = np.asarray([[[[1.0, -2e200], [-3.0, 0.0]]]])
    np.testing.assert_array_equal(doubles(magnitudes(library(M))), np.abs(M))


def test_stacks_are_joined_along_their_first_axis(library: Any) -> None:
    A, B = scaled(library(TWO)), scaled(library(TWO * 1e100))
    np.testing.assert_array_equal(doubles(concatenate([A, B])), np.concatenate([TWO, TWO * 1e100]))
