"""Each reading on matrices whose answer is known, on every array library."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

from mhc_diag.compose import Scaled, scaled
from mhc_diag.metrics.numbers import to_float
from mhc_diag.metrics.readings import COLUMNS, READINGS, ROWS, cancellation, read

LIBRARIES = {"numpy": np.asarray, "torch": torch.asarray, "strict": array_api_strict.asarray}

KNOWN: dict[str, tuple[Any, dict[str, Any]]] = {
    "asymmetric": (
        [[1, 2], [3, 4]],
        {
            "forward.amax": 7,
            "backward.amax": 6,
            "forward.amin": 3,
            "backward.amin": 4,
            "forward.norm": 7,
            "backward.norm": 6,
            "manifold.row_error": 6,
            "manifold.column_error": 5,
            "manifold.min_entry": 1,
            "spectrum.lambda2": (math.sqrt(33) - 5) / 2,
            "mixing.off_diagonal": 0.5,
            "mixing.distance_identity": math.sqrt(22),
            "mixing.distance_uniform": math.sqrt(21),
        },
    ),
    "cancelling": (
        [[10, -10], [0, 1]],
        {"forward.amax": 1, "forward.amin": 0, "forward.norm": 20, "backward.amax": 10}
        | {"backward.amin": 9, "backward.norm": 11, "manifold.min_entry": -10}
        | {"spectrum.lambda2": 1, "mixing.off_diagonal": 10 / 21}
        | {"mixing.entropy": 0.5, "manifold.row_error": 1, "manifold.column_error": 10},
    ),
    "rows alone sum to one": (
        [[0.5, 0.5], [1, 0]],
        {"forward.amax": 1, "forward.amin": 1, "backward.amax": 1.5, "backward.amin": 0.5}
        | {"manifold.row_error": 0, "manifold.column_error": 0.5, "spectrum.lambda2": 0.5},
    ),
    "identity": (
        np.eye(4),
        {f"{d}.{r}": 1 for d in ("forward", "backward") for r in ("amax", "amin", "norm")}
        | {"spectrum.lambda2": 1, "spectrum.sigma_max": 1, "spectrum.sigma_min": 1}
        | {"mixing.off_diagonal": 0, "mixing.entropy": 0}
        | {"mixing.distance_identity": 0, "mixing.distance_uniform": 1}
        | {"manifold.row_error": 0, "manifold.column_error": 0, "manifold.min_entry": 0},
    ),
    "uniform": (
        np.full((4, 4), 0.25),
        {f"{d}.{r}": 1 for d in ("forward", "backward") for r in ("amax", "amin", "norm")}
        | {"spectrum.lambda2": 0, "spectrum.sigma_max": 1, "spectrum.sigma_min": 0}
        | {"mixing.off_diagonal": 0.75, "mixing.entropy": 1}
        | {"mixing.distance_identity": 1, "mixing.distance_uniform": 0},
    ),
    "rotation by a right angle": (
        [[0, -2], [2, 0]],
        {"spectrum.lambda2": 2, "spectrum.sigma_max": 2, "spectrum.sigma_min": 2}
        | {"mixing.off_diagonal": 1, "mixing.entropy": 0},
    ),
    "one stream": (
        [[-3]],
        {"forward.amax": 3, "backward.norm": 3, "manifold.row_error": 4}
        | {"spectrum.sigma_max": 3, "mixing.off_diagonal": 0, "manifold.min_entry": -3},
    ),
}
CASES = [
    pytest.param(matrix, reading, value, id=f"{name}: {reading}")
    for name, (matrix, values) in KNOWN.items()
    for reading, value in values.items()
]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Any:
    return LIBRARIES[request.param]


@pytest.mark.parametrize(("matrix", "reading", "value"), CASES)
def test_a_known_matrix_gives_its_known_answer(
    matrix: Any, reading: str, value: float, library: Any
) -> None:
    A = scaled(library(np.asarray(matrix, dtype=np.float64)[None]))
    numbers, defined = read(READINGS[reading], A)
    assert defined.all()
    np.testing.assert_allclose(to_float(numbers), [value], rtol=1e-14, atol=1e-15)


def test_every_reading_has_a_known_answer() -> None:
    assert {reading for _, values in KNOWN.values() for reading in values} == set(READINGS)


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_is_the_same_on_every_library_and_keeps_the_leading_axes(
    reading: str, library: Any
) -> None:
    M = np.random.default_rng(0).standard_normal((3, 5, 4, 4))
    want, _ = read(READINGS[reading], scaled(M))
    found, defined = read(READINGS[reading], scaled(library(M)))
    assert to_float(found).shape == defined.shape == (3, 5)
    np.testing.assert_allclose(to_float(found), to_float(want), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("power", [-600, 600])
@pytest.mark.parametrize("reading", READINGS)
def test_a_matrix_of_any_size_is_read_in_its_own_size(reading: str, power: int) -> None:
    M = np.random.default_rng(1).standard_normal((2, 3, 3))
    numbers, _ = read(READINGS[reading], Scaled(M, np.full(2, power)))
    tenth, _ = read(READINGS[reading], Scaled(M * 2.0**100, np.full(2, power - 100)))
    np.testing.assert_allclose(to_float(numbers), to_float(tenth), rtol=1e-13)
    plain, _ = read(READINGS[reading], scaled(M * 2.0**power))
    np.testing.assert_allclose(to_float(numbers), to_float(plain), rtol=1e-13)


def test_entropy_is_not_defined_for_a_row_of_zeros() -> None:
    A = scaled(np.asarray([[[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]]]))
    np.testing.assert_array_equal(read(READINGS["mixing.entropy"], A)[1], [False, True])
    np.testing.assert_array_equal(read(READINGS["mixing.off_diagonal"], A)[1], [True, True])


def test_shares_of_nothing_are_not_defined() -> None:
    A = scaled(np.zeros((1, 3, 3)))
    assert not read(READINGS["mixing.off_diagonal"], A)[1].any()
    assert not read(READINGS["mixing.entropy"], A)[1].any()


@pytest.mark.parametrize(("axis", "value"), [(ROWS, 20.0), (COLUMNS, 11.0)])
def test_cancellation_is_the_norm_lost_to_signs(axis: int, value: float, library: Any) -> None:
    A = scaled(library(np.eye(2)[None]))
    lost = scaled(library(np.asarray([[[10.0, 10.0], [0.0, 1.0]]])))
    np.testing.assert_allclose(to_float(cancellation(A, lost, axis)), [value])


def test_a_product_of_zeros_without_magnitudes_has_cancelled_nothing() -> None:
    nothing, ones = scaled(np.zeros((1, 2, 2))), scaled(np.ones((1, 2, 2)))
    np.testing.assert_array_equal(to_float(cancellation(nothing, nothing, ROWS)), [1.0])
    np.testing.assert_array_equal(to_float(cancellation(nothing, ones, ROWS)), [np.inf])
