"""What a parallel job must not do: wait for ever, mix runs, guess, or lose a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from job_launch import Launched, launch
from monitored import ID, IDS, zoo

import mhc_diag as md

pytestmark = pytest.mark.slow

REFUSED = {
    "a mesh with a name that says nothing": ("OptionError", "mesh dimension 'world'"),
    "a mesh that hides the pipeline": ("OptionError", "hold different sites although the mesh"),
    "no rank has sites": ("NoHyperConnectionsError", "looked for"),
    "a tap that fits nowhere": ("NoHyperConnectionsError", "blocks.*.mix"),
    "a model of one rank that cannot be read": ("OptionError", "'rounds'"),
    "the folder of another model": ("RunError", "another model's run"),
    "the folder of another writer": ("RunError", "another writer"),
}
REFUSED_OF_FOUR = {
    "equal names behind a stage that only embeds": ("OptionError", "number their layers from 0"),
    "pipeline and data parallel without a mesh": ("OptionError", "mesh=mesh"),
    "a mesh of a part of the job": ("OptionError", "2 of 4 ranks"),
}
LOST = ("equal names on all stages without a mesh", "a stage that hears nothing")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    return launch(tmp_path_factory.mktemp("two"), 2, [*REFUSED, *LOST])


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    return launch(tmp_path_factory.mktemp("four"), 4, list(REFUSED_OF_FOUR))


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_reaches_both_ranks(two: Launched, name: str) -> None:
    kind, words = REFUSED[name]
    for said in two.said(name):
        assert said["error"][0] == kind
        assert words in said["error"][1]


@pytest.mark.parametrize("name", REFUSED_OF_FOUR)
def test_a_refusal_reaches_all_four_ranks(four: Launched, name: str) -> None:
    kind, words = REFUSED_OF_FOUR[name]
    for said in four.said(name):
        assert said["error"][0] == kind
        assert words in said["error"][1]


def test_stages_with_equal_names_are_never_taken_for_replicas(two: Launched) -> None:
    answers = [said["answer"] for said in two.said("equal names on all stages without a mesh")]
    assert "only some ranks were given token ids" in answers[0][0]
    assert answers[0][-1] == "3 problems"
    assert not (two.folder / "equal names on all stages without a mesh").exists()


def test_a_silent_stage_leaves_no_record_of_half_the_depth(two: Launched) -> None:
    writer, silent = (said["answer"] for said in two.said("a stage that hears nothing"))
    assert "rank 1 heard no forward pass although other stages did" in writer[0]
    assert "no training-mode forward pass" in silent[0]
    assert not (two.folder / "a stage that hears nothing").exists()


@pytest.mark.parametrize("name", ["a rank dies", "the rank that writes dies"])
def test_a_run_survives_the_death_of_a_rank_and_goes_on(tmp_path: Path, name: str) -> None:
    launched = launch(tmp_path, 2, [name])
    dead = 0 if name == "the rank that writes dies" else 1
    assert launched.codes[dead] == -9
    left = json.loads((tmp_path / f"{name}.{1 - dead}.json").read_text())
    assert "RuntimeError" in left["crash"]  # of gloo: the peer is gone
    run = tmp_path / name
    frame = md.read_run(run, ids=[ID])
    assert sorted(frame["step"].unique()) == [0, 1]
    assert frame["value"].notna().all()
    model = zoo()
    with md.Monitor(model, run, every=1) as monitor:
        model(IDS)
        monitor.step(2)
    assert sorted(md.read_run(run, ids=[ID])["step"].unique()) == [0, 1, 2]
