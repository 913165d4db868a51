"""Families against loops, against the libraries that they reproduce, and on every array library."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mhc_diag.errors import OptionError
from mhc_diag.families.birkhoff import permutation_matrices, permutation_mixture
from mhc_diag.families.hc import Logits, hc_maps, mhc_lite_maps, mhc_maps, packed_logits
from mhc_diag.families.norms import flat, rms, unit_length
from mhc_diag.families.sinkhorn import VARIANTS, project, variant

LOGITS = hnp.arrays(np.float64, (3, 4, 4), elements=st.floats(-8, 8))


def by_loops(logits: np.ndarray, name: str, iterations: int) -> np.ndarray:
    """Each variant written out entry by entry, from its published description."""
    A = logits.astype(float).tolist()
    n = len(A)

    def normalise(axis: str, divide: Any) -> None:
        for k in range(n):
            cells = [(k, j) for j in range(n)] if axis == "row" else [(i, k) for i in range(n)]
            total = sum(A[i][j] for i, j in cells)
            for i, j in cells:
                A[i][j] = A[i][j] / divide(total)

    def exponentiate(shift: Any) -> None:
        shifts = [[shift(i, j) for j in range(n)] for i in range(n)]
        for i in range(n):
            for j in range(n):
                A[i][j] = math.exp(A[i][j] - shifts[i][j])

    row_max = lambda i, j: max(A[i])
    column_max = lambda i, j: max(A[k][j] for k in range(n))
    matrix_max = lambda i, j: max(max(row) for row in A)
    if name == "deepseek":
        exponentiate(row_max)
        normalise("row", lambda s: s)
        for i in range(n):
            for j in range(n):
                A[i][j] += 1e-6
        plus = lambda s: s + 1e-6
        normalise("column", plus)
        for _ in range(iterations - 1):
            normalise("row", plus)
            normalise("column", plus)
        return np.array(A)
    if name == "tokenbender":
        A = [[value / 0.05 for value in row] for row in A]
    if name == "motif":
        A = [[min(max(value, -20.0), 20.0) for value in row] for row in A]
    shifts = {
        "paper": matrix_max,
        "lucidrains": column_max,
        "log-columns-first": column_max,
        "motif": lambda i, j: 0.0,
    }
    exponentiate(shifts.get(name, row_max))
    divide = {
        "torchtitan": lambda s: s + 1e-6,
        "megatron": lambda s: max(s, 1e-6),
        "motif": lambda s: max(s, 1e-8),
        "lucidrains": lambda s: max(s, 1e-12),
    }.get(name, lambda s: s)
    columns_first = name in ("paper", "lucidrains", "log-columns-first")
    for _ in range(iterations):
        for axis in ("column", "row") if columns_first else ("row", "column"):
            normalise(axis, divide)
    return np.array(A)


@pytest.mark.parametrize("name", VARIANTS)
@given(logits=LOGITS)
def test_every_sinkhorn_variant_agrees_with_its_loop(name: str, logits: np.ndarray) -> None:
    if name == "tokenbender":
        logits = logits / 10
    got = project(logits, variant(name, iterations=5))
    want = np.stack([by_loops(one, name, 5) for one in logits])
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("name", VARIANTS)
@given(logits=LOGITS)
def test_the_axis_normalised_last_is_the_exact_one(name: str, logits: np.ndarray) -> None:
    how = variant(name)
    sums = project(logits, how).sum(how.order[1])
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_variants_differ_where_logits_are_sharp() -> None:
    logits = np.random.default_rng(0).normal(scale=10, size=(200, 4, 4))
    difference = np.abs(
        project(logits, variant("deepseek")) - project(logits, variant("torchtitan"))
    )
    assert difference.max() > 0.5


@pytest.mark.parametrize(("iterations", "seed"), [(20, 0), (3, 1), (1, 2)])
def test_lucidrains_variants_equal_the_package(iterations: int, seed: int) -> None:
    from hyper_connections.manifold_constrained_hyper_connections import (
        log_domain_sinkhorn_knopps,
        sinkhorn_knopps,
    )

    logits = torch.randn(50, 4, 4, generator=torch.Generator().manual_seed(seed)) * 4
    ours = project(logits.numpy(), variant("lucidrains", iterations=iterations))
    np.testing.assert_allclose(ours, sinkhorn_knopps(logits, iterations).numpy(), atol=2e-6)
    ours = project(logits.numpy(), variant("log-columns-first", iterations=iterations))
    np.testing.assert_allclose(
        ours, log_domain_sinkhorn_knopps(logits, iterations).numpy(), atol=2e-6
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_one_definition_serves_numpy_torch_and_the_strict_standard(name: str) -> None:
    logits = np.random.default_rng(1).normal(size=(7, 4, 4))
    want = project(logits, variant(name))
    np.testing.assert_allclose(
        project(torch.from_numpy(logits), variant(name)).numpy(), want, rtol=1e-12
    )
    strict = project(array_api_strict.asarray(logits), variant(name))
    np.testing.assert_allclose(np.asarray(strict), want, rtol=1e-12)


def test_an_unknown_variant_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match="Known: paper, deepseek"):
        variant("deepsek")


def test_permutation_matrices_are_all_of_them_identity_first() -> None:
    P = permutation_matrices(3)
    assert P.shape == (6, 3, 3)
    assert (P[0] == np.eye(3)).all()
    assert (P[1] == np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]])).all()
    assert len({tuple(one.ravel()) for one in P}) == 6


@pytest.mark.parametrize("library", ["numpy", "torch", "strict"])
def test_a_permutation_mixture_is_doubly_stochastic_and_weighted_as_given(library: str) -> None:
    logits = np.random.default_rng(2).normal(size=(5, 24))
    make = {"numpy": np.asarray, "torch": torch.from_numpy, "strict": array_api_strict.asarray}[
        library
    ]
    H = np.asarray(permutation_mixture(make(logits), 4))
    np.testing.assert_allclose(H.sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(H.sum(-2), 1, atol=1e-12)
    weights = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(H[0], np.tensordot(weights, permutation_matrices(4), 1), atol=1e-12)


def test_packed_logits_split_pre_post_res_in_this_order_row_major() -> None:
    n, C = 2, 3
    weight = np.arange(8 * n * C, dtype=float).reshape(8, n * C)
    x_hat = np.ones((1, n * C))
    logits = packed_logits(
        x_hat, weight=weight, bias=np.arange(8.0), scales=np.array([1.0, 10.0, 100.0]), n=n
    )
    rows = weight.sum(1)
    np.testing.assert_array_equal(logits.pre[0], [rows[0], rows[1] + 1])
    np.testing.assert_array_equal(logits.post[0], rows[2:4] * 10 + [2, 3])
    np.testing.assert_array_equal(logits.res[0], (rows[4:] * 100 + [4, 5, 6, 7]).reshape(2, 2))


def test_the_static_point_needs_no_weight() -> None:
    logits = packed_logits(None, weight=None, bias=np.arange(8.0), scales=np.ones(3), n=2)
    np.testing.assert_array_equal(logits.res, [[4, 5], [6, 7]])


def test_hc_maps_are_the_logits_themselves() -> None:
    logits = Logits(pre=np.ones(2), post=np.full(2, 3.0), res=np.array([[5.0, -1], [0, 2]]))
    maps = hc_maps(logits)
    assert maps.H_res is logits.res
    assert maps.logits is None


def test_mhc_maps_gate_read_and_write_with_sigmoids() -> None:
    zero = Logits(pre=np.zeros(2), post=np.zeros(2), res=np.zeros((2, 2)))
    maps = mhc_maps(zero, variant("paper"), pre_eps=1e-6)
    np.testing.assert_allclose(maps.H_pre, 0.5 + 1e-6)
    np.testing.assert_allclose(maps.H_post, 1.0)
    np.testing.assert_allclose(maps.H_res, 0.5)
    assert mhc_maps(zero, None).H_res is zero.res


def test_mhc_lite_maps_without_preference_are_uniform() -> None:
    maps = mhc_lite_maps(Logits(pre=np.zeros(3), post=np.zeros(3), res=np.zeros(6)), 3)
    np.testing.assert_allclose(maps.H_res, 1 / 3)


def test_norms_follow_their_formulas() -> None:
    x = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(rms(x, 0.0), x / math.sqrt(12.5))
    np.testing.assert_allclose(rms(x, 0.0, np.array([2.0, 0.0])), [[6 / math.sqrt(12.5), 0]])
    np.testing.assert_allclose(unit_length(x, np.array([0.0, 1.0])), x / 5 * math.sqrt(2) * [1, 2])
    np.testing.assert_array_equal(unit_length(np.zeros((1, 2)), np.zeros(2)), 0)
    np.testing.assert_array_equal(flat(np.arange(6.0).reshape(1, 2, 3)), [np.arange(6.0)])
