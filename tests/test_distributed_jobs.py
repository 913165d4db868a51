"""Jobs of 2 and 4 gloo processes write what a single process would have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed_models import batches, loss_of
from job_launch import Launched, launch
from monitored import IDS, zoo

import mhc_diag as md

pytestmark = pytest.mark.slow

TWO = (
    "ddp",
    "ddp attached before it is wrapped",
    "ddp few tokens",
    "ddp fewer tokens than ranks",
    "ddp accumulating",
    "ddp with floats",
    "fsdp2",
    "fsdp2 around sites",
    "fsdp2 with a mesh",
    "tp copies",
    "tp copies few tokens",
    "tp copies without a mesh",
    "sequence parallel",
    "sequence parallel on tp",
    "sequence parallel on tp few tokens",
    "sequence parallel on tp in dtensors",
    "gpipe",
    "1f1b",
    "1f1b few tokens",
    "1f1b with a mesh",
    "1f1b checkpointed",
    "1f1b with equal names and a mesh",
    "gpipe with a stage that only embeds",
    "gpipe with taps",
)
FOUR = (
    "ddp",
    "gpipe",
    "1f1b",
    "1f1b few tokens",
    "1f1b checkpointed",
    "1f1b in two data-parallel replicas",
    "1f1b in two data-parallel replicas few tokens",
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    return launch(tmp_path_factory.mktemp("two"), 2, TWO)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    return launch(tmp_path_factory.mktemp("four"), 4, FOUR)


def alone(
    folder: Path, *, n_microbatches: int = 1, every: int = 1, steps: int = 3, **options: Any
) -> Path:
    """The same training in this process alone."""
    import torch

    model = zoo()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with md.Monitor(model, folder, every=every, **{"tokens": 1000} | options) as monitor:
        for step, ids in enumerate(batches(steps)):
            optimizer.zero_grad()
            losses = [loss_of(model(part)) for part in ids.chunk(n_microbatches)]
            loss = torch.stack(losses).mean()
            loss.backward()
            optimizer.step()
            monitor.step(step, loss=loss)
    return folder


def assert_same(run: Path, wanted: Path, *, names: dict[str, str] | None = None) -> None:
    """Names of sites in their order, steps, ids, values, loss."""
    frames: list[pd.DataFrame] = [md.read_run(path) for path in (run, wanted)]
    got, want = (frame[frame["id"] != "grad_norm"].reset_index(drop=True) for frame in frames)
    wanted_names = [(names or {}).get(name, name) for name in names_of(wanted)]
    assert names_of(run) == wanted_names
    pd.testing.assert_frame_equal(got[["step", "site", "id"]], want[["step", "site", "id"]])
    np.testing.assert_allclose(got["value"], want["value"], rtol=1e-6, atol=1e-9)


def names_of(run: Path) -> list[str]:
    return [site["name"] for site in json.loads((run / "run.json").read_text())["sites"]]


def tokens_of(run: Path) -> list[int]:
    lines = (run / "stats.jsonl").read_text().splitlines()
    return [json.loads(line)["probe"]["tokens"] for line in lines]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddp", {"every": 2}),
        ("ddp attached before it is wrapped", {"steps": 1}),
        ("ddp accumulating", {"steps": 1}),
        ("fsdp2", {}),
        ("fsdp2 around sites", {}),
        ("fsdp2 with a mesh", {}),
        ("tp copies", {}),
        ("tp copies without a mesh", {}),
        ("gpipe", {"n_microbatches": 4}),
        ("1f1b", {"n_microbatches": 4}),
        ("1f1b with a mesh", {"n_microbatches": 4}),
        ("1f1b checkpointed", {"n_microbatches": 4}),
        ("gpipe with a stage that only embeds", {"n_microbatches": 4}),
    ],
)
def test_two_processes_write_the_numbers_of_one(
    two: Launched, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    run = two.run(name)
    assert_same(run, alone(tmp_path / "alone", **options))
    assert set(tokens_of(run)) == {64}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddp", {"every": 2}),
        ("gpipe", {"n_microbatches": 4}),
        ("1f1b", {"n_microbatches": 4}),
        ("1f1b checkpointed", {"n_microbatches": 4}),
        ("1f1b in two data-parallel replicas", {"n_microbatches": 4}),
    ],
)
def test_four_processes_write_the_numbers_of_one(
    four: Launched, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    run = four.run(name)
    assert_same(run, alone(tmp_path / "alone", **options))
    assert set(tokens_of(run)) == {64}


@pytest.mark.parametrize("job", ["two", "four"])
def test_all_stages_draw_the_tokens_that_a_single_process_draws(
    job: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(job).run("1f1b few tokens")
    assert_same(run, alone(tmp_path / "alone", n_microbatches=4, tokens=11))
    assert tokens_of(run) == [11, 11, 11]


@pytest.mark.parametrize("name", ["tp copies few tokens"])
def test_copies_draw_the_tokens_that_a_single_process_draws(
    two: Launched, tmp_path: Path, name: str
) -> None:
    run = two.run(name)
    assert_same(run, alone(tmp_path / "alone", tokens=11))
    assert tokens_of(run) == [11, 11, 11]


@pytest.mark.parametrize(
    ("job", "name", "wanted"),
    [
        ("two", "ddp few tokens", [11, 11, 11]),
        ("two", "ddp fewer tokens than ranks", [1]),
        ("two", "sequence parallel on tp few tokens", [11, 11, 11]),
        ("four", "1f1b in two data-parallel replicas few tokens", [11, 11, 11]),
    ],
)
def test_tokens_are_counted_over_the_whole_job(
    job: str, name: str, wanted: list[int], request: pytest.FixtureRequest
) -> None:
    launched = request.getfixturevalue(job)
    assert tokens_of(launched.run(name)) == wanted


def test_tokens_are_spread_evenly_over_replicas(two: Launched, four: Launched) -> None:
    for one in two.said("ddp few tokens")[0]["gathered"]:
        assert sorted(one) == [5, 6]
    for one in four.said("1f1b in two data-parallel replicas few tokens")[0]["gathered"]:
        assert sorted(one) == [5, 5, 6, 6]


def test_copies_send_nothing_once_they_are_known(two: Launched) -> None:
    assert two.said("tp copies few tokens")[0]["gathered"] == [[11, 11], [11], [11]]
    shards = two.said("sequence parallel on tp few tokens")[0]["gathered"]
    assert [sorted(one) for one in shards] == [[11, 11], [5, 6], [5, 6]]


@pytest.mark.parametrize(
    "name",
    ["sequence parallel", "sequence parallel on tp", "sequence parallel on tp in dtensors"],
)
def test_ranks_that_see_parts_of_sequences_bring_all_tokens(
    two: Launched, tmp_path: Path, name: str
) -> None:
    import torch

    model = zoo()
    with md.Monitor(model, tmp_path / "alone", every=1, tokens=1000) as monitor:
        for step in range(3):
            with torch.no_grad():
                model(IDS)
            monitor.step(step)
    run = two.run(name)
    assert_same(run, tmp_path / "alone")
    assert tokens_of(run) == [64, 64, 64]


def test_a_model_of_floats_is_data_parallel_where_parameters_are_equal(two: Launched) -> None:
    assert tokens_of(two.run("ddp with floats")) == [64]


def test_stages_with_equal_names_are_told_apart_by_the_mesh(two: Launched, tmp_path: Path) -> None:
    run = two.run("1f1b with equal names and a mesh")
    names = {}
    for block in range(3):
        stage, number = divmod(block, 2)
        for half in ("hc_attn", "hc_mlp"):
            names[f"blocks.{block}.{half}"] = f"stage{stage}.blocks.{number}.{half}"
    assert_same(run, alone(tmp_path / "alone", n_microbatches=4), names=names)


def test_a_tap_may_be_for_another_stage(two: Launched, tmp_path: Path) -> None:
    tap = md.tap(lambda module, args, output: output[1], stored="M")
    taps = {"blocks.*.hc_attn": tap, "blocks.*.hc_mlp": tap}
    wanted = alone(tmp_path / "alone", n_microbatches=4, taps=taps)
    assert_same(two.run("gpipe with taps"), wanted)


def test_a_gradient_norm_that_is_spread_over_ranks_is_the_whole_norm(
    two: Launched, tmp_path: Path
) -> None:
    import torch

    model = zoo()
    loss_of(model(batches(1)[0])).backward()
    wanted = torch.nn.utils.get_total_norm(
        [p.grad for p in model.parameters() if p.grad is not None]
    )
    frame = md.read_run(two.run("fsdp2"), steps=[0])
    got = frame[frame["id"] == "grad_norm"]["value"].item()
    assert got == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("job", ["two", "four"])
def test_a_recorded_step_is_one_gather_and_nothing_is_exchanged_in_a_hook(
    job: str, request: pytest.FixtureRequest
) -> None:
    launched = request.getfixturevalue(job)
    for said in launched.said("1f1b"):
        assert said["called"] == [
            "all_gather_object",  # which sites there are
            "broadcast_object_list",  # whether the folder is this model's
            "gather_object",
            "broadcast_object_list",  # whether the folder could be opened
            "gather_object",
            "gather_object",
        ]


def test_no_hook_is_left_and_only_one_process_wrote(two: Launched) -> None:
    assert two.codes == (0, 0)
    assert sorted(path.name for path in two.run("fsdp2").iterdir()) == ["run.json", "stats.jsonl"]
