"""The door and the array glue, the same on numpy, torch and a strict array API library."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

from mhc_diag import arrays
from mhc_diag.errors import OptionError

LIBRARIES = {"numpy": np.asarray, "torch": torch.asarray, "strict": array_api_strict.asarray}
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8_e5m2": torch.float8_e5m2,
    "float8_e4m3fn": torch.float8_e4m3fn,
}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Any:
    return LIBRARIES[request.param]


def awkward_floats() -> np.ndarray:
    """Ties, neighbours of ties, subnormals and limits of every narrow format, and noise."""
    rng = np.random.default_rng(0)
    mantissas = 1.0 + np.arange(0, 4096) / 4096
    x = (mantissas[:, None] * 2.0 ** np.arange(-30, 20)).ravel()
    tiny = (mantissas[:, None] * 2.0 ** np.arange(-145, -120)).ravel()
    x = np.concatenate([x, tiny, rng.standard_normal(2000) * 10.0 ** rng.integers(-40, 38, 2000)])
    x = x.astype(np.float32)
    edges = [
        0.0,
        -0.0,
        np.inf,
        np.nan,
        65504,
        65519.996,
        65520,
        448,
        464,
        464.1,
        57344,
        61440,
        3e38,
    ]
    x = np.concatenate([x, np.nextafter(x, np.float32(0)), np.asarray(edges, np.float32)])
    return np.concatenate([x, -x]).astype(np.float64)


@pytest.mark.parametrize("name", DTYPES)
def test_rounding_gives_the_values_of_a_torch_cast(name: str, library: Any) -> None:
    x = awkward_floats()
    if name == "float8_e4m3fn":  # beyond its range torch's releases differ: NaN or saturation
        x = x[~(np.abs(x) > 464)]
    cast = torch.asarray(x).to(torch.float32).to(DTYPES[name]).to(torch.float64).numpy()
    np.testing.assert_array_equal(arrays.to_numpy(arrays.round_to(library(x), name)), cast)


def test_a_format_without_infinity_gives_nan_beyond_its_range() -> None:
    x = np.asarray([464.0, -480.0, np.inf])
    np.testing.assert_array_equal(arrays.round_to(x, "float8_e4m3fn"), [448, np.nan, np.nan])


def test_rounding_to_float64_changes_nothing() -> None:
    x = np.asarray([np.pi, 1e-300])
    assert arrays.round_to(x, "torch.float64") is x


def test_rounding_to_an_unknown_format_says_which_are_known() -> None:
    with pytest.raises(OptionError, match=r"'int3' is no known.*bfloat16"):
        arrays.round_to(np.ones(2), "int3")


@pytest.mark.parametrize("axis", [-1, 0])
def test_softmax_sums_to_one_and_survives_large_inputs(library: Any, axis: int) -> None:
    x = np.asarray([[1000.0, 1000.0, -1000.0], [1.0, 2.0, 3.0]])
    found = arrays.to_numpy(arrays.softmax(library(x), axis))
    want = np.exp(x - x.max(axis, keepdims=True))
    np.testing.assert_allclose(found, want / want.sum(axis, keepdims=True), rtol=1e-15)


def test_logsumexp_survives_large_inputs_and_empty_sums(library: Any) -> None:
    x = library(np.asarray([[1000.0, 1000.0], [-np.inf, -np.inf], [-1000.0, -1001.0]]))
    want: list[float] = [1000 + np.log(2), -np.inf, -1000 + np.log1p(np.exp(-1))]
    np.testing.assert_allclose(arrays.to_numpy(arrays.logsumexp(x, -1)), want, rtol=1e-15)
    assert arrays.logsumexp(x, -1, keepdims=True).shape == (3, 1)


def test_sigmoid_is_exact_in_its_tails_and_does_not_overflow(library: Any) -> None:
    x = np.asarray([-800.0, -40.0, 0.0, 3.0, 800.0])
    want = [0.0, np.exp(-40.0), 0.5, 1 / (1 + np.exp(-3.0)), 1.0]
    np.testing.assert_allclose(arrays.to_numpy(arrays.sigmoid(library(x))), want, rtol=1e-13)


def test_exponents_and_powers_of_two_take_a_double_apart_exactly(library: Any) -> None:
    x = np.asarray([1.0, 0.75, -8.0, 5e-324, 2.0**-1022, 1.7e308])
    e = arrays.exponents(library(x))
    half = arrays.to_numpy(e) // 2
    back = np.frexp(x)[0] * 2.0**half * 2.0 ** (arrays.to_numpy(e) - half)
    np.testing.assert_array_equal(back, x)
    zeros = arrays.exponents(library(np.asarray([0.0, np.inf, -np.inf, np.nan])))
    np.testing.assert_array_equal(arrays.to_numpy(zeros), 0)


def test_powers_of_two_are_exact_over_the_range_of_normal_doubles(library: Any) -> None:
    k = np.arange(-1100, 1100)
    want = [2.0 ** max(-1022, min(1023, int(i))) for i in k]
    np.testing.assert_array_equal(arrays.to_numpy(arrays.pow2(library(k))), want)


def test_eigenvalues_come_largest_first_and_without_a_sign(library: Any) -> None:
    A = np.asarray([[[0.0, -2.0], [2.0, 0.0]], [[1.0, 5.0], [0.0, -3.0]]])
    found = arrays.to_numpy(arrays.eigvals_abs(library(A)))
    np.testing.assert_allclose(found, [[2.0, 2.0], [3.0, 1.0]], rtol=1e-14)


def test_singular_values_come_largest_first(library: Any) -> None:
    A = np.asarray([[3.0, 0.0], [0.0, -4.0]])
    np.testing.assert_allclose(arrays.to_numpy(arrays.svdvals(library(A))), [4.0, 3.0])


@pytest.mark.parametrize("function", [arrays.eigvals_abs, arrays.svdvals])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_has_no_spectrum_and_spoils_no_other(
    function: Any, bad: float
) -> None:
    A = np.stack([np.eye(3), np.full((3, 3), bad), 2 * np.eye(3)])
    want = np.asarray([[1.0] * 3, [np.nan] * 3, [2.0] * 3])
    np.testing.assert_allclose(function(A), want)


def test_a_matrix_without_convergence_becomes_nan_and_spoils_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = np.linalg.eigvals

    def fails_on_seven(A: np.ndarray) -> np.ndarray:
        if (A == 7).any():
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return np.asarray(real(A))

    monkeypatch.setattr(np.linalg, "eigvals", fails_on_seven)
    A = np.stack([np.eye(2), np.full((2, 2), 7.0)])[:, None]
    np.testing.assert_array_equal(arrays.eigvals_abs(A), [[[1, 1]], [[np.nan, np.nan]]])


def test_the_door_widens_every_float_and_copies_no_double() -> None:
    x = np.asarray([[1.5, -3.0]])
    assert arrays.to_float64(x) is x
    tensor = torch.asarray(x)
    assert np.shares_memory(arrays.to_float64(tensor), tensor.numpy())
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float8_e5m2):
        found = arrays.to_float64(tensor.to(dtype).requires_grad_())
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(arrays.to_float64([[1, 2]]), [[1.0, 2.0]])


def test_the_door_leaves_other_libraries_their_arrays() -> None:
    found = arrays.to_float64(array_api_strict.asarray([1.5], dtype=array_api_strict.float32))
    assert found.dtype == array_api_strict.float64


def test_streams_first_changes_the_layout_and_nothing_else(library: Any) -> None:
    A = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    moved = arrays.streams_first(library(A))
    np.testing.assert_array_equal(arrays.to_numpy(moved), A)
    strides = arrays.streams_first(A).strides
    assert min(strides[2:]) > max(strides[:2])


def test_arrays_of_two_libraries_are_refused() -> None:
    with pytest.raises(TypeError):
        arrays.namespace(torch.ones(1), array_api_strict.ones(1))


def test_the_metrics_import_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, mhc_diag.metrics, mhc_diag.compose; "
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'array_api_compat') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
