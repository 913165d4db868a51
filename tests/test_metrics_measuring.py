"""From a trace to numbers: chains, holes, precisions, sizes, and only what was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from factories import make_chain, make_trace, signed_matrices, trace_of

from mhc_diag.arrays import round_to
from mhc_diag.errors import OptionError
from mhc_diag.metrics import METRICS, log10_of, measure, measuring, sites, windows
from mhc_diag.trace import Precision, Trace

FORWARD, BACKWARD = "composite.forward.amax.mean", "composite.backward.amax.mean"
BF16 = Precision(computed="float32", applied="bfloat16")


def trace_with(M: Any, **more: Any) -> Trace:
    return trace_of([make_chain(np.asarray(M, dtype=np.float64))], **more)


def numbers(trace: Trace, metric_id: str) -> list[Any]:
    return list(measure(trace, [metric_id])[metric_id].tolist())


def test_copies_of_the_identity_read_one_everywhere() -> None:
    found = measure(make_trace(family="identity", L=5, T=3))
    for name, values in found.items():
        if METRICS[name].ideal is not None:
            np.testing.assert_array_equal(values, METRICS[name].ideal, err_msg=name)


def test_composite_gains_are_products_per_token_before_any_averaging() -> None:
    M = [[[[2.0]], [[0.5]]], [[[0.5]], [[2.0]]]]
    assert numbers(trace_with(M), FORWARD) == [1.25, 1.0]
    assert numbers(trace_with(M), "composite.forward.amax.mean_matrix") == [1.25, 1.0]
    assert numbers(trace_with(M), "composite.forward.amax.max") == [2.0, 1.0]


def test_the_worst_window_may_hide_inside_a_calm_product() -> None:
    M = np.asarray([0.01, 100.0, 3.0, 0.001])[:, None, None, None]
    assert numbers(trace_with(M), FORWARD) == pytest.approx([0.01, 1.0, 3.0, 0.003])
    assert numbers(trace_with(M), "window.forward.amax.mean") == pytest.approx(
        [0.01, 100, 300, 0.3]
    )
    assert numbers(trace_with(M), "window.backward.amax.mean") == pytest.approx([3, 300, 3, 0.001])
    assert numbers(trace_with(M), "window.forward.amin.mean") == pytest.approx(
        [0.01, 1.0, 3.0, 0.001]
    )


def test_a_window_takes_its_aggregate_first_and_the_worst_then() -> None:
    M = [[[[4.0]], [[1.0]]], [[[0.25]], [[3.0]]]]  # means 2.5 | window 2.0, alone 1.625
    assert numbers(trace_with(M), "window.forward.amax.mean") == [2.5, 2.0]
    assert numbers(trace_with(M), "window.forward.amax.max") == [4.0, 3.0]


@pytest.mark.parametrize(("first", "second"), [(FORWARD, BACKWARD)])
def test_backward_is_forward_of_the_transposed_chain_reversed(first: str, second: str) -> None:
    M = signed_matrices((6, 3, 4, 4), spread=0.5)
    mirrored = trace_with(M[::-1].swapaxes(-1, -2))
    np.testing.assert_allclose(
        numbers(trace_with(M), second), numbers(mirrored, first)[::-1], rtol=1e-13
    )


def test_renaming_the_streams_changes_no_number() -> None:
    M = signed_matrices((4, 3, 4, 4), spread=0.5)
    order = [2, 0, 3, 1]
    found = measure(trace_with(M))
    for name, values in measure(trace_with(M[:, :, order][:, :, :, order])).items():
        np.testing.assert_allclose(values, found[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_chains_are_never_multiplied_with_each_other() -> None:
    M = signed_matrices((5, 3, 4, 4), spread=0.5)
    other = signed_matrices((3, 2, 2, 2), spread=0.5, seed=9)
    together = trace_of([make_chain(M), make_chain(other, name="mtp0", start=5, auxiliary=True)])
    alone = [measure(trace_with(M)), measure(trace_with(other))]
    for name, values in measure(together).items():
        want: Any = np.ma.concatenate([found[name] for found in alone])  # type: ignore[no-untyped-call]  # numpy
        np.testing.assert_array_equal(values.filled(-7), want.filled(-7), err_msg=name)


def test_an_unmeasured_site_cuts_composites_and_windows() -> None:
    trace = make_trace(L=5, T=2, unmeasured=[2])
    found = measure(trace)
    cut = {
        "single.forward.amax.mean": [0, 0, 1, 0, 0],
        "spectrum.lambda2.mean": [0, 0, 1, 0, 0],
        FORWARD: [0, 0, 1, 1, 1],
        "composite.spectrum.lambda2.mean": [0, 0, 1, 1, 1],
        "composite.forward.cancellation.max": [0, 0, 1, 1, 1],
        BACKWARD: [1, 1, 1, 0, 0],
        "window.forward.amax.mean": [0, 0, 1, 0, 0],
        "window.backward.norm.max": [0, 0, 1, 0, 0],
    }
    for name, missing in cut.items():
        np.testing.assert_array_equal(np.ma.getmaskarray(found[name]), missing, err_msg=name)
        assert np.isnan(found[name].data[np.ma.getmaskarray(found[name])]).all()
    right = measure(trace_with(trace.chains[0].M[3:]))
    for name in ("window.forward.amax.mean", BACKWARD):
        np.testing.assert_array_equal(found[name][3:], right[name])


def test_nothing_measured_means_every_number_is_missing() -> None:
    found = measure(make_trace(L=3, unmeasured=[0, 1, 2]))
    assert all(np.ma.getmaskarray(values).all() for values in found.values())


def test_no_tokens_means_every_number_is_missing() -> None:
    found = measure(trace_with(np.zeros((3, 0, 4, 4))))
    assert all(np.ma.getmaskarray(values).all() for values in found.values())


def test_one_stream_has_no_distances_no_entropy_and_no_second_eigenvalue() -> None:
    found = measure(trace_with(np.full((2, 3, 1, 1), 2.0)))
    missing = {name for name, values in found.items() if np.ma.getmaskarray(values).all()}
    words = ("entropy", "distance", "lambda2")
    assert missing == {name for name in METRICS if any(word in name for word in words)}
    assert all(not np.ma.getmaskarray(found[name]).any() for name in set(found) - missing)


def test_a_row_of_zeros_in_one_token_leaves_no_entropy_for_its_site() -> None:
    M = np.ones((2, 3, 2, 2))
    M[1, 2, 0] = 0.0
    assert numbers(trace_with(M), "mixing.entropy.mean") == [pytest.approx(1.0), None]
    assert numbers(trace_with(M), "composite.mixing.entropy.mean")[1] is None


@pytest.mark.parametrize("size", [1e10, 1e-10])
def test_four_hundred_large_or_small_sites_keep_their_log10(size: float) -> None:
    trace = trace_with(np.full((400, 2, 2, 2), size / 2))
    for name in (FORWARD, "composite.forward.norm.mean_matrix", "composite.spectrum.sigma_max.max"):
        assert log10_of(trace, name, 399) == pytest.approx(400 * np.log10(size), rel=1e-12)
    longest = 400 if size > 1 else 1  # the worst window is the longest where sites amplify
    worst = log10_of(trace, "window.forward.norm.max", 399)
    assert worst == pytest.approx(longest * np.log10(size), rel=1e-12)
    found = numbers(trace, FORWARD)
    assert found[399] == (np.inf if size > 1 else 0.0)
    assert found[29] == pytest.approx(size**30, rel=1e-12)
    assert numbers(trace, BACKWARD)[370] == pytest.approx(size**30, rel=1e-12)


def test_a_gain_of_ten_to_the_300_is_reported_as_such() -> None:
    trace = trace_with(np.full((30, 1, 1, 1), 1e10))
    assert numbers(trace, FORWARD)[29] == pytest.approx(1e300, rel=1e-13)
    assert log10_of(trace, FORWARD, 29) == pytest.approx(300)


def test_a_product_that_comes_back_into_range_was_never_lost() -> None:
    sizes = np.asarray([1e200] * 5 + [1e-200] * 5)[:, None, None, None]
    assert numbers(trace_with(sizes), FORWARD)[9] == pytest.approx(1.0, rel=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_a_value_and_not_a_gap(bad: float) -> None:
    M = np.broadcast_to(np.eye(2) + 0.5, (4, 3, 2, 2)).copy()
    M[1, 0, 0, 1] = bad
    found = measure(trace_with(M))
    for name in (FORWARD, "single.forward.norm.max", "window.forward.norm.max"):
        assert not np.ma.getmaskarray(found[name]).any()
        assert not np.isfinite(found[name][1]), name
    assert np.isfinite(found["single.forward.norm.max"][[0, 2, 3]]).all()
    assert np.isfinite(found["single.forward.amax.p50"][1]) == np.isinf(bad)


def test_applied_ids_read_the_rounded_matrices() -> None:
    M = signed_matrices((4, 3, 4, 4), spread=0.3)
    trace = trace_with(M, precision=BF16)
    rounded = measure(trace_with(round_to(M, "bfloat16")))
    found = measure(trace)
    assert list(found) == [*METRICS, *(f"applied.{name}" for name in METRICS)]
    for name in METRICS:
        np.testing.assert_array_equal(found[f"applied.{name}"], rounded[name], err_msg=name)
    assert (found["applied.manifold.row_error.max"] != found["manifold.row_error.max"]).all()


def test_applied_ids_stand_for_the_same_matrices_where_nothing_is_rounded() -> None:
    trace = make_trace()
    assert list(measure(trace)) == list(METRICS)
    found = measure(trace, [FORWARD, f"applied.{FORWARD}"])
    np.testing.assert_array_equal(found[FORWARD], found[f"applied.{FORWARD}"])


def test_only_the_ids_asked_for_come_back_in_their_order() -> None:
    asked = [BACKWARD, "mixing.entropy.mean", FORWARD, BACKWARD]
    found = measure(make_trace(), asked)
    assert list(found) == [BACKWARD, "mixing.entropy.mean", FORWARD]
    everything = measure(make_trace())
    for name, values in found.items():
        np.testing.assert_array_equal(values, everything[name])


def test_nothing_is_computed_for_ids_that_nobody_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed what nobody asked for")

    monkeypatch.setattr(measuring, "worst_windows", refuse)
    monkeypatch.setitem(sites.PRODUCTS, "suffix", refuse)
    monkeypatch.setattr(np.linalg, "eigvals", refuse)
    monkeypatch.setattr(sites, "cancellation", refuse)
    monkeypatch.setattr(sites, "token_sum", refuse)
    assert list(measure(make_trace(), [FORWARD])) == [FORWARD]


def test_an_unknown_id_names_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"single\.forward\.amax\.mean"):
        measure(make_trace(), ["single.forward.amax.means"])


def test_pieces_of_tokens_and_blocks_of_windows_change_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = trace_with(signed_matrices((7, 11, 3, 3), spread=0.5))
    whole = measure(trace)
    monkeypatch.setattr(sites, "PIECE", 7 * 9 * 2)
    monkeypatch.setattr(windows, "BATCH", 11 * 9 * 2)
    for name, values in measure(trace).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-12, err_msg=name)


def test_a_torch_trace_gives_the_numbers_of_a_numpy_trace() -> None:
    M = signed_matrices((3, 2, 4, 4)).astype(np.float32)
    found = measure(trace_of([make_chain(torch.asarray(M))]))  # type: ignore[arg-type]  # on purpose
    for name, values in measure(trace_of([make_chain(M)])).items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_measuring_leaves_the_trace_and_numpys_settings_alone() -> None:
    trace = make_trace(T=2)
    before, settings = trace.chains[0].M.copy(), np.geterr()
    measure(trace)
    np.testing.assert_array_equal(trace.chains[0].M, before)
    assert np.geterr() == settings


def test_a_trace_without_sites_has_no_numbers() -> None:
    found = measure(trace_with(np.zeros((0, 3, 4, 4))))
    assert all(values.shape == (0,) for values in found.values())
