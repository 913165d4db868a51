"""The list of ids: complete, described, and helpful when one does not exist."""

from __future__ import annotations

import pytest

from mhc_diag.errors import OptionError
from mhc_diag.metrics import METRICS, find_metric
from mhc_diag.metrics.readings import READINGS
from mhc_diag.metrics.table import PARTS

CONTRACT = (
    {
        f"{scope}.{direction}.{reading}.{aggregate}"
        for scope in ("single", "composite", "window")
        for direction in ("forward", "backward")
        for reading in ("amax", "amin", "norm")
        for aggregate in ("mean", "p50", "p99", "max", "min", "mean_matrix")
    }
    | {
        "manifold.row_error.mean",
        "manifold.row_error.max",
        "manifold.column_error.mean",
        "manifold.column_error.max",
        "manifold.min_entry.min",
    }
    | {
        f"{scope}{rest}"
        for scope in ("", "composite.")
        for rest in (
            "spectrum.lambda2.mean",
            "spectrum.lambda2.min",
            "spectrum.lambda2.max",
            "spectrum.sigma_max.max",
            "spectrum.sigma_min.min",
            "mixing.off_diagonal.mean",
            "mixing.entropy.mean",
            "mixing.distance_identity.mean",
            "mixing.distance_uniform.mean",
        )
    }
)


def test_every_id_of_the_contract_is_there() -> None:
    assert set(METRICS) >= CONTRACT


def test_the_other_ids_are_bands_and_cancellation() -> None:
    rest = set(METRICS) - CONTRACT
    assert {name.rsplit(".", 1)[1] for name in rest} == {"p5", "p95", "max"}
    assert {name for name in rest if name.endswith(".max")} == {
        "composite.forward.cancellation.max",
        "composite.backward.cancellation.max",
    }


@pytest.mark.parametrize("name", METRICS)
def test_every_id_says_what_it_is(name: str) -> None:
    metric = METRICS[name]
    assert metric.id == name
    assert metric.bad in {"high", "low", "neither"}
    assert metric.formula
    assert metric.unit
    assert metric.source
    assert metric.meaning.endswith(".")
    assert "{}" not in metric.formula + metric.meaning


def test_ids_differ_in_formula_so_that_no_two_mean_the_same() -> None:
    same_words = {(m.formula, m.meaning) for m in METRICS.values()}
    assert len(same_words) == len(METRICS)


def test_every_part_names_a_reading_that_exists() -> None:
    names = {part.reading for part in PARTS.values() if "cancellation" not in part.reading}
    assert names == set(READINGS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("composite.forward.amax.mean", "Figs. 3b and 7b"),
        ("single.backward.amax.mean", "Figs. 3a and 7a"),
        ("composite.backward.amax.mean_matrix", "Fig. 8"),
        ("manifold.row_error.max", "section 4.1"),
    ],
)
def test_the_papers_own_curves_name_their_figure(name: str, words: str) -> None:
    assert words in METRICS[name].source
    assert "2512.24880" in METRICS[name].source


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("composite.forward.amax.mean", "A = M_l ... M_0"),
        ("composite.backward.amax.mean", "A = M_{L-1} ... M_l"),
        ("composite.forward.amax.mean", "max_i |sum_j A_ij|"),
        ("composite.backward.amax.mean", "max_j |sum_i A_ij|"),
        ("window.forward.amax.p99", "largest over all a <= b"),
        ("window.backward.amin.mean", "smallest over all b >= a"),
        ("single.forward.norm.mean_matrix", "of the token mean of A"),
    ],
)
def test_formulas_say_what_is_computed(name: str, words: str) -> None:
    assert words in METRICS[name].formula


def test_the_bad_end_follows_the_reading() -> None:
    ends = {name.split(".")[2]: METRICS[name].bad for name in METRICS if name[:6] == "single"}
    assert ends == {"amax": "high", "amin": "low", "norm": "high"}


def test_ids_after_the_rounding_have_the_same_definition() -> None:
    assert find_metric("applied.single.forward.amax.max") is METRICS["single.forward.amax.max"]


@pytest.mark.parametrize(
    "name", ["composite.forward.amx.mean", "applied.composite.forward.amx.mean"]
)
def test_an_unknown_id_names_the_nearest(name: str) -> None:
    with pytest.raises(OptionError, match=r"no such id.*Nearest: composite\.forward\.amax\.mean"):
        find_metric(name)


def test_an_id_like_no_other_is_sent_to_the_list() -> None:
    with pytest.raises(OptionError, match="'mhc-diag metrics' lists them all"):
        find_metric("zzz")
