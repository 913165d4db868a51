"""``mhc-diag sweep``, and the report of the run that it makes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from run_cases import GAIN
from schemas import assert_valid
from test_cli_startup import HEAVY, loaded_by

from mhc_diag.runs.read import load_run


@pytest.fixture
def folder(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """Checkpoints of steps 10, 20, 30: an HC model whose H_res grows."""
    import torch

    target = tmp_path / "out"
    target.mkdir()
    content = torch.load(checkpoints["hc"], weights_only=True)
    for step in (10, 20, 30):
        for name, tensor in content["model"].items():
            if ".hc_" in name:
                tensor.mul_(1.5)
        torch.save({**content, "step": step}, target / f"model-{step}.pt")
    return target


def test_the_plan_is_told_and_the_run_is_shown(run: Run, folder: Path, tmp_path: Path) -> None:
    ended = run("sweep", folder, "-o", tmp_path / "run")
    assert ended.code == 0
    plan = [re.sub(" +", " ", line) for line in ended.err.splitlines()]
    wanted = [f"step {s} {folder}/model-{s}.pt (the file's own step)" for s in (10, 20, 30)]
    assert plan == wanted
    row = next(line for line in ended.out.splitlines() if line.startswith(GAIN))
    assert len(row.split()[-1]) == 3
    assert "static probe" in ended.out
    assert load_run(tmp_path / "run").steps.tolist() == [10, 20, 30]


def test_a_second_sweep_goes_on_and_force_begins_anew(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    there = tmp_path / "run"
    assert run("sweep", folder / "model-20.pt", "-o", there).code == 0
    ended = run("sweep", folder, "-o", there)
    assert [("recorded already" in line) for line in ended.err.splitlines()] == [False, True, False]
    assert load_run(there).steps.tolist() == [10, 20, 30]
    assert run("sweep", folder, "-o", there, "--probe", "isotropic", "--tokens", "4").code == 2
    words = ["--probe", "isotropic", "--tokens", "4", "--force", "--quiet"]
    ended = run("sweep", folder, "-o", there, *words, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert_valid(ended.json, "listing")
    assert ended.json["entries"][0]["records"] == 3
    assert {probe["kind"] for probe in load_run(there).probes} == {"isotropic"}


def test_one_bad_checkpoint_is_exit_2_and_the_others_are_recorded(
    run: Run, folder: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    words = [folder, f"25={checkpoints['mhc']}", f"26={checkpoints['residual']}"]
    ended = run("sweep", *words, "-o", tmp_path / "run")
    assert ended.code == 2
    errors = [line for line in ended.err.splitlines() if line.startswith("mhc-diag: ")]
    assert len(errors) == 2
    assert "another model" in errors[0]
    assert load_run(tmp_path / "run").steps.tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--step", "3"], "every checkpoint has its own"),
        (["--jobs", "0"], "0 jobs"),
        (["--adapter", "nonsense"], "nonsense"),
        (["--set", "sinkhorn_iters"], "not a pair"),
    ],
)
def test_a_wrong_option_is_exit_2_and_leaves_nothing(
    words: list[str], said: str, run: Run, folder: Path, tmp_path: Path
) -> None:
    ended = run("sweep", folder, "-o", tmp_path / "run", *words)
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_into_a_checkpoint(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        np.savez(file, w=np.zeros(1))
    ended = run("sweep", folder, "-o", folder)
    assert ended.code == 2
    assert "it is one of the checkpoints" in ended.err
    assert not (folder / "run.json").exists()


def test_the_run_of_a_sweep_is_reported_over_depth_and_steps(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    assert run("sweep", folder, "-o", tmp_path / "run").code == 0
    page = tmp_path / "r.html"
    assert run("report", tmp_path / "run", "-o", page, "-o", tmp_path / "r.json").code == 0
    text = page.read_text()
    assert "Where and when" in text
    assert "not a measurement on data" in text
    assert run("gate", tmp_path / "run", "--max-gain", "1e9").code == 2
    assert run("gate", tmp_path / "run", "--max-gain", "1e9", "--probe", "static").code == 0


@pytest.mark.parametrize("command", ["sweep", "watch", "export"])
def test_stored_numbers_need_neither_torch_nor_pandas(
    command: str, run: Run, folder: Path, tmp_path: Path
) -> None:
    there = tmp_path / "run"
    if command == "sweep":
        words = [folder, "-o", there]
    else:
        assert run("sweep", folder, "-o", there).code == 0
        words = [there, *(["-o", tmp_path / "x.csv"] if command == "export" else [])]
    assert not loaded_by(command, *words) & HEAVY
