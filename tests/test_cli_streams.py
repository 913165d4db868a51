"""Streams that end early, are full, or carry no colour."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run

COMMAND = Path(sys.executable).with_name("mhc-diag")
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@needs_full
@pytest.mark.parametrize(
    "words", [["metrics"], ["metrics", "--json"], ["--help"], ["analyze", "absent.pt", "--json"]]
)
def test_a_full_disk_is_exit_2_and_said_once(words: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr
    assert "bug" not in done.stderr


@needs_full
def test_a_full_stderr_leaves_the_exit_code() -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [COMMAND, "analyze", "absent.pt"], stdout=full, stderr=full, check=False
        )
    assert done.returncode == 2


@pytest.mark.parametrize("words", [["rules"], ["--help"]])
def test_no_color_leaves_no_control_sequence_in_a_file(words: list[str]) -> None:
    wishes = {"NO_COLOR": "1", "FORCE_COLOR": "1", "GITHUB_ACTIONS": "1"}
    done = subprocess.run(
        [COMMAND, *words], capture_output=True, env=os.environ | wishes, check=True
    )
    assert done.stdout
    assert b"\x1b" not in done.stdout


def test_a_device_that_is_not_there_is_exit_2(
    run: Run, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    model = "mhc_diag.zoo.models:build"
    words = ["--model", model, "--inputs", "random:1x8", "--device", "cuda"]
    ended = run("analyze", checkpoints["hc"], *words)
    assert (ended.code, ended.out) == (2, "")
    assert "torch finds no CUDA device here" in ended.err
    assert "Leave --device out" in ended.err
