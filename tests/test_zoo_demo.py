"""The demonstration as a library call, on models of one block."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

import mhc_diag as md
from mhc_diag.errors import OptionError, OutputError
from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.runs.read import load_run
from mhc_diag.zoo import demo
from mhc_diag.zoo.demo import DemoResult, Progress, run_demo
from mhc_diag.zoo.models import ZooConfig, load_checkpoint

NAMES = ("residual", "hc", "mhc", "mhc_lite")
STEPS = 7


@pytest.fixture(scope="module")
def small() -> object:
    with pytest.MonkeyPatch.context() as patch:
        tiny = functools.partial(ZooConfig, n_blocks=1, width=8, n_heads=2, context=16)
        patch.setattr(demo, "ZooConfig", tiny)
        yield


@pytest.fixture(scope="module")
def done(
    small: object, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, DemoResult, list[Progress]]:
    seen: list[Progress] = []
    folder = tmp_path_factory.mktemp("demo") / "out"
    threads = torch.get_num_threads()
    result = run_demo(folder, steps=STEPS, seed=3, on_progress=seen.append)
    assert torch.get_num_threads() == threads
    return folder, result, seen


def test_every_model_leaves_a_checkpoint_and_a_run(
    done: tuple[Path, DemoResult, list[Progress]],
) -> None:
    folder, result, _ = done
    assert [model.label for model in result.models] == ["residual", "HC", "mHC", "mHC-lite"]
    for model, name in zip(result.models, NAMES, strict=True):
        assert model.checkpoint == folder / f"{name}.pt"
        assert load_checkpoint(model.checkpoint).config.connection == model.connection
        history = load_run(model.run)
        assert history.steps.tolist() == [1, 5, 7]
        assert (history.scalars["grad_norm"] > 0).all()
        assert history.scalars["loss"][0] == pytest.approx(5.55, abs=0.2)
        assert len(history.sites) == (0 if name == "residual" else 2)
        assert set(history.values) == (set() if name == "residual" else set(DEFAULT_IDS))


def test_the_residual_model_has_no_analysis_and_the_others_are_comparable(
    done: tuple[Path, DemoResult, list[Progress]],
) -> None:
    _, result, _ = done
    assert result.models[0].analysis is None
    assert list(result.analyses) == ["HC", "mHC", "mHC-lite"]
    assert md.compare(*result.analyses.values(), labels=list(result.analyses)).differences == ()
    for model in result.models[1:]:
        analysis = result.analyses[model.label]
        assert analysis.source.path == str(model.checkpoint)
        assert analysis.source.step == STEPS
        assert analysis.probe.kind == "tokens"
        assert analysis.coverage.is_complete


def test_progress_counts_every_step_of_every_model(
    done: tuple[Path, DemoResult, list[Progress]],
) -> None:
    seen = done[2]
    assert [p.done for p in seen] == list(range(1, 4 * STEPS + 1))
    assert {p.total for p in seen} == {4 * STEPS}
    assert [p.step for p in seen] == [*range(1, STEPS + 1)] * 4
    assert all((p.gain is None) == (p.label == "residual") for p in seen)


def test_an_earlier_demonstration_stays_unless_forced(small: object, tmp_path: Path) -> None:
    run_demo(tmp_path, steps=2)
    before = (tmp_path / "runs" / "hc" / "stats.jsonl").read_bytes()
    with pytest.raises(OutputError, match=r"residual' is there.*--force"):
        run_demo(tmp_path, steps=1)
    assert (tmp_path / "runs" / "hc" / "stats.jsonl").read_bytes() == before
    run_demo(tmp_path, steps=1, force=True)
    assert load_run(tmp_path / "runs" / "hc").steps.tolist() == [1]


def test_a_demonstration_that_is_interrupted_keeps_its_records(
    small: object, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.label == "HC" and progress.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path, steps=9, on_progress=stop)
    assert load_run(tmp_path / "runs" / "hc").steps.tolist() == [1, 5]
    assert load_run(tmp_path / "runs" / "residual").steps.tolist() == [1, 5, 9]
    run_demo(tmp_path, steps=1, force=True)


def test_a_demonstration_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="steps=0"):
        run_demo(tmp_path, steps=0)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        run_demo(tmp_path / "file" / "out")
