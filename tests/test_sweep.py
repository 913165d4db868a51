"""Checkpoints of one training run -> a run folder."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_cases import GAIN, numbers

import mhc_diag as md
from mhc_diag.errors import (
    CheckpointError,
    MissingExtraError,
    NoHyperConnectionsError,
    OptionError,
    RunError,
)
from mhc_diag.pipeline import Wishes
from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.runs.plan import Planned, plan_sweep
from mhc_diag.runs.read import load_run
from mhc_diag.sweep import Measured, measured, sweep_checkpoints


def train(folder: Path, kind: Any, *, checkpoints: int, seed: int = 0, **config: Any) -> Path:
    """Trains a small model; a checkpoint after every second step."""
    from mhc_diag.zoo.models import ZooConfig, save_checkpoint
    from mhc_diag.zoo.trainer import Trainer, one_thread

    folder.mkdir(parents=True)
    shape = {"n_blocks": 2, "width": 16, "n_heads": 2, "context": 16} | config
    trainer = Trainer(ZooConfig(connection=kind, **shape), seed=seed, batch=2)
    with one_thread():
        for _ in range(checkpoints):
            trainer.step()
            trainer.step()
            save_checkpoint(
                folder / f"ckpt{trainer.n_steps}.pt", trainer.model, step=trainer.n_steps
            )
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints of an HC model, of steps 2, 4 and 6."""
    return train(tmp_path_factory.mktemp("three") / "hc", "hc", checkpoints=3)


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("twenty")
    return {kind: train(folder / kind, kind, checkpoints=20) for kind in ("hc", "mhc")}


def stepless(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, w=np.zeros(1))
    return str(path)


def swept(folder: Path, run: Path, **options: Any) -> Any:
    return sweep_checkpoints(plan_sweep([str(folder)], run), run, **options)


def lines(run: Path) -> list[dict[str, Any]]:
    """The records as they stand in the file, without their times."""
    found = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in found]


# ---- the plan


def test_a_plan_is_by_step_and_says_where_the_step_stands(three: Path, tmp_path: Path) -> None:
    named = stepless(tmp_path / "ckpt_5.npz")
    given = stepless(tmp_path / "best.npz")
    plan = plan_sweep([f"9={given}", named, str(three)], tmp_path / "run")
    own = "the file's own step"
    assert plan == (
        *(Planned(path=str(three / f"ckpt{step}.pt"), step=step, origin=own) for step in (2, 4)),
        Planned(path=named, step=5, origin="its name"),
        Planned(path=str(three / "ckpt6.pt"), step=6, origin=own),
        Planned(path=given, step=9, origin="given"),
    )


def test_a_folder_gives_its_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = stepless(folder / "step-1.npz")
    second = stepless(folder / "checkpoint-2" / "model-2.npz")
    shutil.copy(second, folder / "checkpoint-2" / "x.npz")
    (folder / "log-3.txt").write_text("loss 3")
    (folder / "empty-4").mkdir()
    assert [each.path for each in plan_sweep([str(folder)], None)] == [first]


def test_the_same_file_twice_is_one_checkpoint(tmp_path: Path) -> None:
    path = stepless(tmp_path / "ckpt_5.npz")
    (tmp_path / "latest").symlink_to(path)
    assert len(plan_sweep([path, path, str(tmp_path / "latest")], None)) == 1


def test_two_files_of_one_step_are_refused(tmp_path: Path) -> None:
    paths = [stepless(tmp_path / name / "ckpt_5.npz") for name in "ab"]
    with pytest.raises(OptionError, match=r"of step 5 \(its name\), and so is .*a/ckpt_5"):
        plan_sweep(paths, None)
    assert [each.step for each in plan_sweep([paths[0], f"6={paths[1]}"], None)] == [5, 6]


def test_a_checkpoint_without_a_step_is_refused(tmp_path: Path) -> None:
    path = stepless(tmp_path / "last" / "model.npz")
    with pytest.raises(OptionError, match="training step is not known: .* Say it: STEP=FILE"):
        plan_sweep([path], None)


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for source in ("absent.pt", "5=absent.pt"):
        with pytest.raises(CheckpointError, match=r"absent\.pt"):
            plan_sweep([source], None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no weights"):
        plan_sweep([str(tmp_path / "empty")], None)
    with pytest.raises(OptionError, match="no checkpoint was given"):
        plan_sweep([], None)


# ---- measuring and recording


def test_every_record_is_what_analyze_says_of_the_checkpoint(three: Path, tmp_path: Path) -> None:
    result = swept(three, tmp_path / "run")
    assert (result.recorded, result.failed) == ((2, 4, 6), ())
    for step in (2, 4, 6):
        alone = md.analyze(three / f"ckpt{step}.pt")
        recorded = md.analyze(tmp_path / "run", step=step)
        assert len(recorded.metrics) == len(DEFAULT_IDS)
        for name in recorded:
            assert numbers(recorded[name]) == numbers(alone[name])
        assert recorded.probe == alone.probe
        assert (recorded.verdict, recorded.model) == (alone.verdict, alone.model)
    both = [md.analyze(tmp_path / "run", step=step) for step in (2, 6)]
    assert md.compare(*both).differences == ()


def test_options_reach_every_checkpoint(three: Path, tmp_path: Path) -> None:
    wishes = Wishes(probe="isotropic", tokens=8, seed=3)
    swept(three, tmp_path / "run", wishes=wishes)
    probes = load_run(tmp_path / "run").probes
    assert {(p["kind"], p["tokens"], p["seed"]) for p in probes} == {("isotropic", 8, 3)}
    analysis = md.analyze(tmp_path / "run", probe="isotropic")
    wanted = md.analyze(three / "ckpt6.pt", probe="isotropic", tokens=8, seed=3)
    assert numbers(analysis[GAIN]) == numbers(wanted[GAIN])


def test_what_is_recorded_is_not_measured_again(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = tmp_path / "run", []
    sweep_checkpoints(plan_sweep([str(three / "ckpt4.pt")], run), run)
    monkeypatch.setattr(
        sys.modules["mhc_diag.sweep"],
        "measured",
        lambda *task: (seen.append(task[0].step), measured(*task))[1],
    )
    done: list[int] = []
    result = swept(three, run, on_done=done.append)
    assert (result.recorded, seen, done) == ((2, 6), [2, 6], [2, 6])
    assert load_run(run).steps.tolist() == [2, 4, 6]
    assert swept(three, run).recorded == ()


def test_a_checkpoint_of_another_model_fails_alone(three: Path, tmp_path: Path) -> None:
    train(tmp_path / "wide", "hc", checkpoints=1, width=32)
    plan = plan_sweep([str(three), f"5={tmp_path / 'wide' / 'ckpt2.pt'}"], None)
    result = sweep_checkpoints(plan, tmp_path / "run")
    assert result.recorded == (2, 4, 6)
    (failure,) = result.failed
    assert failure.label.endswith("wide/ckpt2.pt")
    assert "model width is 16 there, 32 here" in failure.came


def test_a_damaged_checkpoint_fails_alone(three: Path, tmp_path: Path) -> None:
    bad = tmp_path / "ckpt5.pt"
    bad.write_bytes((three / "ckpt6.pt").read_bytes()[:3000])
    result = sweep_checkpoints(plan_sweep([str(three), str(bad)], None), tmp_path / "run")
    assert result.recorded == (2, 4, 6)
    assert [failure.label for failure in result.failed] == [str(bad)]


def test_when_nothing_can_be_measured_the_first_error_is_raised(tmp_path: Path) -> None:
    train(tmp_path / "residual", "residual", checkpoints=2)
    with pytest.raises(NoHyperConnectionsError):
        swept(tmp_path / "residual", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_model_or_probe_is_not_gone_on_with(three: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sweep_checkpoints(plan_sweep([str(three / "ckpt4.pt")], run), run)
    before = (run / "stats.jsonl").read_bytes()
    with pytest.raises(RunError, match="measured on another probe"):
        swept(three, run, wishes=Wishes(probe="isotropic", tokens=8))
    train(tmp_path / "mhc", "mhc", checkpoints=1)
    with pytest.raises(RunError, match="it holds another run"):
        swept(tmp_path / "mhc", run)
    assert (run / "stats.jsonl").read_bytes() == before


def test_a_task_and_its_result_are_small_and_travel(three: Path) -> None:
    (planned, *_) = plan_sweep([str(three)], None)
    task = pickle.loads(pickle.dumps((planned, Wishes(settings={"a": 1}), False)))
    result = measured(task[0], Wishes(), task[2])
    assert isinstance(result, Measured)
    assert len(pickle.dumps(result)) < 16_000
    error = measured(replace(planned, path="absent.pt"), Wishes(), False)
    assert isinstance(error, CheckpointError)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_several_jobs_need_joblib_and_one_does_not(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mhc-diag\[sweep\]'"):
        swept(three, tmp_path / "run", jobs=2)
    with pytest.raises(OptionError, match="0 jobs"):
        swept(three, tmp_path / "run", jobs=0)
    assert swept(three, tmp_path / "run", jobs=1).recorded == (2, 4, 6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hc", "mhc"])
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_every_engine_records_the_same(
    kind: str, backend: str, twenty: dict[str, Path], tmp_path: Path
) -> None:
    joblib = pytest.importorskip("joblib")
    serial = swept(twenty[kind], tmp_path / "serial")
    assert serial.recorded == tuple(range(2, 41, 2))
    with joblib.parallel_config(backend=backend, n_jobs=2):
        parallel = swept(twenty[kind], tmp_path / "parallel", jobs=None)
    assert parallel == serial
    assert lines(tmp_path / "parallel") == lines(tmp_path / "serial")


@pytest.mark.slow
def test_dask_records_the_same(twenty: dict[str, Path], tmp_path: Path) -> None:
    joblib, distributed = pytest.importorskip("joblib"), pytest.importorskip("distributed")
    serial = swept(twenty["hc"], tmp_path / "serial")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        parallel = swept(twenty["hc"], tmp_path / "parallel", jobs=None)
    assert parallel == serial
    assert lines(tmp_path / "parallel") == lines(tmp_path / "serial")
