from __future__ import annotations

import json
from dataclasses import replace

import pytest
from factories import make_trace

from mhc_diag.analysis import Summary, analysis_of
from mhc_diag.comparison import Failure, compare, default_labels
from mhc_diag.errors import OptionError
from mhc_diag.metrics import DEFINITIONS
from mhc_diag.trace import Precision, Source

NAME = "composite.forward.amax.mean"


def source(path: str, *, step: int | None = None, kind: str = "torch-zip") -> Source:
    return Source(path=path, format=kind, step=step)


def test_two_models_on_the_same_inputs_are_comparable() -> None:
    hc = analysis_of(make_trace(L=6, spread=0.4, source="runs/hc.pt"))
    mhc = analysis_of(make_trace(L=8, family="mhc", source="runs/mhc.pt"))
    both = compare(hc, mhc)
    assert both.labels == ("hc", "mhc")
    assert both.differences == ()
    assert both.rows[NAME]["hc"] == hc.summary[NAME]
    assert both.rows[NAME]["mhc"] == mhc.summary[NAME]
    assert both.analyses == (hc, mhc)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probe": "static"}, "Probe (different): a: tokens; b: static"),
        ({"inputs": "sha256:beef"}, "Inputs (different): a: sha256:0f1e; b: sha256:beef"),
        ({"T": 9}, "Tokens behind each number (different): a: 5; b: 9"),
        ({"seed": 3}, "Seed (different): a: 0; b: 3"),
        (
            {"precision": Precision(applied="bfloat16")},
            "Precision that H_res is applied in (different): a: float32; b: bfloat16",
        ),
    ],
    ids=["probe", "inputs", "tokens", "seed", "precision"],
)
def test_each_part_of_the_identity_that_differs_is_named(change: dict, words: str) -> None:
    both = compare(a=analysis_of(make_trace()), b=analysis_of(make_trace(**change)))
    assert both.differences == (words,)
    assert both.to_dict()["comparable"] is False
    assert set(both.rows[NAME]) == {"a", "b"}  # both are shown all the same


def test_numbers_of_other_definitions_are_not_one() -> None:
    now = analysis_of(make_trace())
    assert now.identity.definitions == DEFINITIONS
    before = replace(now, identity=replace(now.identity, definitions=DEFINITIONS - 1))
    [text] = compare(now=now, before=before).differences
    assert text == "Version of the metric definitions (different): now: 1; before: 0"
    assert now.identity.differences(before.identity) == ("definitions: 1 against 0",)


@pytest.mark.parametrize(
    ("other", "is_cut"), [("b" * 64, True), ("a" * 63 + "b", False)], ids=["early", "late"]
)
def test_a_long_hash_is_cut_where_the_difference_still_shows(other: str, is_cut: bool) -> None:
    first, second = "sha256:" + "a" * 64, "sha256:" + other
    [text] = compare(
        analysis_of(make_trace(inputs=first)), analysis_of(make_trace(inputs=second))
    ).differences
    assert ("a" * 64 not in text) is is_cut
    assert (second in text) is not is_cut


def test_an_id_that_one_lacks_is_empty_there() -> None:
    whole = analysis_of(make_trace())
    some = analysis_of(make_trace(), ids=[])
    row = compare(whole=whole, some=some).rows["window.forward.amax.mean"]
    assert row["some"] == Summary()
    assert row["whole"] == whole.summary["window.forward.amax.mean"]


@pytest.mark.parametrize(
    ("sources", "labels"),
    [
        ([source("runs/hc.pt"), source("runs/mhc.safetensors")], ("hc", "mhc")),
        ([source("a/x.trace.safetensors", kind="trace"), source("y.npz")], ("x", "y")),
        ([source("m.pt", step=1), source("m.pt", step=2)], ("m step 1", "m step 2")),
        ([source("hc/model.pt"), source("mhc/model.pt")], ("hc/model", "mhc/model")),
        ([source("m.pt"), source("m.pt"), source("m #1.pt")], ("m #2", "m #3", "m #1")),
        ([source("v1.5", kind="hf-folder"), source("LlamaHC", kind="model")], ("v1.5", "LlamaHC")),
    ],
    ids=["stems", "trace", "steps", "folders", "numbers", "names"],
)
def test_default_labels_are_short_and_all_different(
    sources: list[Source], labels: tuple[str, ...]
) -> None:
    assert default_labels(sources) == labels


def test_labels_must_fit() -> None:
    one = analysis_of(make_trace(), ids=[])
    with pytest.raises(OptionError, match="as many different labels"):
        compare(one, one, labels=["a"])
    with pytest.raises(OptionError, match="as many different labels"):
        compare(one, one, labels=["a", "a"])
    assert compare(one, labels=["x"], y=one).labels == ("x", "y")


def test_what_is_no_analysis_is_refused() -> None:
    with pytest.raises(OptionError, match="no analysis was given"):
        compare()
    with pytest.raises(OptionError, match=r"md\.analyze"):
        compare(make_trace())  # type: ignore[arg-type]  # on purpose


def test_document_holds_each_analysis_and_what_failed() -> None:
    hc = analysis_of(make_trace(), ids=[])
    both = replace(
        compare(hc=hc), failed=(Failure(label="x", asked="analyze 'x'", came="empty", do="Look."),)
    )
    document = json.loads(both.to_json())
    assert document["analyses"] == [{"label": "hc", "analysis": json.loads(hc.to_json())}]
    assert document["failed"][0]["came"] == "empty"
    assert document["rows"][NAME]["hc"]["worst"] == hc.summary[NAME].worst
