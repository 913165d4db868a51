"""Every id against the slow twin, on whatever matrices hypothesis can think of."""

from __future__ import annotations

import mpmath  # type: ignore[import-untyped]  # ships no types
import numpy as np
import oracle
import pytest
from factories import make_chain, trace_of
from hypothesis import given, settings
from oracle_readings import Number
from strategies import doubly_stochastic, not_finite, stacks, with_holes

from mhc_diag.metrics import METRICS, Readout, read_out

SCALE_FREE = ("off_diagonal", "entropy")


def assert_agrees(
    found: dict[str, Readout],
    wanted: dict[str, list[Number]],
    *,
    spectra: bool = True,
) -> None:
    """Within 1e-6 of the norm of the same product, wherever that does not cancel."""
    assert list(found) == list(METRICS)
    assert set(found) == set(wanted)
    for name, readout in found.items():
        if not spectra and "lambda2" in name:
            continue
        for l, want in enumerate(wanted[name]):
            assert bool(readout.missing[l]) == (want is None), (name, l)
            if want is not None:
                assert_close(readout, want, tolerance_of(name, l, wanted), (name, l))


def tolerance_of(name: str, l: int, wanted: dict[str, list[Number]]) -> Number:
    """None where the contract promises nothing: beyond a cancellation of 1e6."""
    scope = name.split(".", maxsplit=1)[0]
    direction = "backward" if "backward" in name or "column" in name else "forward"
    scope = scope if scope in {"composite", "window"} else "single"
    if scope == "composite":
        lost = wanted[f"composite.{direction}.cancellation.max"][l]
        if mpmath.isfinite(lost) and lost > 1e6:
            return None
    if "cancellation" in name:
        value = wanted[name][l]
        return value * mpmath.mpf("1e-6")
    size = wanted[f"{scope}.{direction}.norm.max"][l]
    if "distance" in name or "error" in name:
        size = size + 1
    if any(word in name for word in SCALE_FREE):
        size = mpmath.mpf(1)
    if "sigma" in name or "lambda2" in name:  # in units of the 2-norm, at most n times the other
        size = size * 5
    return size * mpmath.mpf("1e-6")


def assert_close(readout: Readout, want: Number, tolerance: Number, place: tuple[str, int]) -> None:
    value = mpmath.ldexp(
        mpmath.mpf(float(readout.numbers.values[place[1]])),
        int(readout.numbers.exponent[place[1]]),
    )
    if not mpmath.isfinite(want):
        assert str(value) == str(want), (place, value, want)
    elif tolerance is not None:
        assert abs(value - want) <= tolerance, (place, value, want)


def found_in(M: np.ndarray, measured: list[bool] | None = None) -> dict[str, Readout]:
    return read_out(trace_of([make_chain(M, measured=measured)]))


@settings(max_examples=15, deadline=None)
@given(doubly_stochastic(max_sites=3, max_tokens=3, max_streams=4))
def test_every_id_agrees_with_its_twin_on_doubly_stochastic_matrices(M: np.ndarray) -> None:
    assert_agrees(found_in(M), oracle.measure(M))


@settings(max_examples=40, deadline=None)
@given(stacks(max_sites=3, max_tokens=3, max_streams=4))
def test_every_id_agrees_with_its_twin_on_signed_matrices(M: np.ndarray) -> None:
    assert_agrees(found_in(M), oracle.measure(M), spectra=M.shape[-1] <= 2)


@pytest.mark.parametrize("exponents", [(-300, -250), (250, 300), (-300, 300)])
def test_products_far_beyond_a_double_agree_with_their_twin(exponents: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    M = rng.standard_normal((5, 4, 3, 3)) * 10.0 ** rng.integers(*exponents, (5, 4, 1, 1))
    assert_agrees(found_in(M), oracle.measure(M), spectra=False)


@settings(max_examples=30, deadline=None)
@given(with_holes(stacks(max_sites=4, max_tokens=2, max_streams=3)))
def test_sites_that_were_not_measured_are_missing_and_never_bridged(
    case: tuple[np.ndarray, list[bool]],
) -> None:
    M, measured = case
    assert_agrees(found_in(M, measured), oracle.measure(M, measured), spectra=False)


@settings(max_examples=30, deadline=None)
@given(not_finite(stacks(max_sites=3, max_tokens=3, max_streams=3)))
def test_entries_that_are_not_finite_reach_every_number_they_touch(M: np.ndarray) -> None:
    assert_agrees(found_in(M), oracle.measure(M), spectra=False)


def test_eigenvalues_of_long_signed_products_agree_with_their_twin() -> None:
    rng = np.random.default_rng(3)
    M = np.eye(4) + 0.4 * rng.standard_normal((9, 2, 4, 4))
    assert_agrees(found_in(M), oracle.measure(M))
