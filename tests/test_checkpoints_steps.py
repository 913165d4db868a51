"""The training step of a checkpoint: its own, trainer_state.json's, or its name's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mhc_diag.checkpoints.steps import step_of


def stepless(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, w=np.zeros(1))
    return path


def test_the_files_own_step_comes_first(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-7" / "model_900.pt"
    path.parent.mkdir()
    path.write_bytes(checkpoints["hc"].read_bytes())
    (path.parent / "trainer_state.json").write_text('{"global_step": 8}')
    assert step_of(path) == (40, "the file's own step")


@pytest.mark.parametrize("as_folder", [True, False])
def test_trainer_state_comes_before_the_name(as_folder: bool, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    path = stepless(folder / "model_900.npz")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 8, "epoch": 2.0}))
    assert step_of(folder if as_folder else path) == (8, "trainer_state.json")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ckpt_epoch2_step1000.npz", 1000),
        ("step=0050.pt", 50),
        ("ckpt.1200", 1200),
        ("ckpt.1200.safetensors", 1200),
        ("300.pt", 300),
        ("model-5.trace.safetensors", 5),
        ("mp4.h5", 4),
        ("checkpoint-7/model.npz", 7),
        ("run3/model.npz", 3),
    ],
)
def test_the_last_number_in_the_name_counts(name: str, step: int, tmp_path: Path) -> None:
    path = stepless(tmp_path / "outer" / name)
    origin = "its folder's name" if "/" in name else "its name"
    assert step_of(path) == (step, origin)


def test_a_folder_is_known_by_its_own_name(tmp_path: Path) -> None:
    stepless(tmp_path / "run9" / "checkpoint-70" / "model.npz")
    assert step_of(tmp_path / "run9" / "checkpoint-70") == (70, "its name")
    stepless(tmp_path / "run9" / "last" / "model.npz")
    assert step_of(tmp_path / "run9" / "last") is None


@pytest.mark.parametrize(
    "state", ["{", "[]", '{"global_step": "8"}', '{"global_step": true}', "{}"]
)
def test_an_odd_trainer_state_says_nothing(state: str, tmp_path: Path) -> None:
    path = stepless(tmp_path / "last" / "model.npz")
    (path.parent / "trainer_state.json").write_text(state)
    assert step_of(path) is None


def test_a_number_that_no_step_can_be_is_none(tmp_path: Path) -> None:
    assert step_of(stepless(tmp_path / "last" / f"model-{'9' * 40}.npz")) is None
