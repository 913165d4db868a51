"""The callback in the real Trainer of transformers, on a tiny DeepSeek-V4."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import tiny_deepseek_v4
from trackers import take_wandb_offline, tensorboard_scalars, wandb_history
from transformers import Trainer, TrainerCallback, TrainingArguments

import mhc_diag as md
from mhc_diag.errors import MissingExtraError, OptionError
from mhc_diag.metrics import measure
from mhc_diag.runs.callbacks.huggingface import MhcDiagCallback
from mhc_diag.runs.callbacks.logs import LOGGED

ID = "composite.forward.amax.mean"
ROW = torch.arange(1, 17)
OTHER = ROW.flip(0) + 20


def trainer(folder: Path, model: Any = None, callbacks: Any = None, **changes: Any) -> Trainer:
    """Two microbatches of two rows in each of six steps; nothing is learned, all rows are one."""
    values: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "no",
        "learning_rate": 0.0,
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
    }
    return Trainer(
        model if model is not None else tiny_deepseek_v4(),
        TrainingArguments(str(folder / "out"), **{**values, **changes}),
        train_dataset=[{"input_ids": ROW, "labels": ROW}] * 12,
        eval_dataset=[{"input_ids": OTHER, "labels": OTHER}] * 4,
        callbacks=callbacks,
    )


def truth() -> np.ndarray:
    """What a capture of the one row reads."""
    model = tiny_deepseek_v4().train()
    with torch.no_grad(), md.capture(model) as capture:
        model(ROW[None])
    return measure(capture.trace(), [ID])[ID].filled(np.nan)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def hooks_on(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("placed", ["add_to", "callbacks"])
@pytest.mark.parametrize("logging", [{"logging_steps": 2}, {"logging_strategy": "no"}])
def test_a_record_is_all_microbatches_of_one_step_and_no_evaluation(
    tmp_path: Path, placed: str, logging: dict[str, Any]
) -> None:
    callback = MhcDiagCallback(tmp_path / "run", every=2, tokens=1000)
    if placed == "add_to":
        training = trainer(tmp_path, **logging)
        callback.add_to(training)
    else:
        training = trainer(tmp_path, callbacks=[callback], **logging)
    training.train()
    found = records(tmp_path / "run")
    assert [record["step"] for record in found] == [2, 4, 6]
    assert [record["probe"]["tokens"] for record in found] == [2 * 2 * 16] * 3
    for record in found:
        np.testing.assert_allclose(record["values"][ID], truth(), rtol=1e-5)
    assert hooks_on(training.model) == 0
    assert callback.monitor is None


def test_loss_and_gradient_norm_are_the_trainers(tmp_path: Path) -> None:
    training = trainer(tmp_path, logging_steps=3)
    MhcDiagCallback(tmp_path / "run", every=1).add_to(training)
    training.train()
    logged = {row["step"]: row for row in training.state.log_history if "loss" in row}
    assert sorted(logged) == [3, 6]
    for record in records(tmp_path / "run"):
        row = logged.get(record["step"])
        wanted = {} if row is None else {name: row[name] for name in ("loss", "grad_norm")}
        assert record["scalars"] == pytest.approx(wanted)


@pytest.mark.slow
def test_the_gains_reach_every_reporter_and_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    take_wandb_offline(tmp_path, monkeypatch)
    training = trainer(tmp_path, report_to=["tensorboard", "wandb"])
    MhcDiagCallback(tmp_path / "run", every=2).add_to(training)
    training.train()
    import wandb

    wandb.finish()
    wanted = {record["step"]: max(record["values"][ID]) for record in records(tmp_path / "run")}
    shown = tensorboard_scalars(tmp_path)
    assert shown[f"train/mhc/{ID}"] == pytest.approx(wanted)
    assert sum(tag.startswith("train/mhc/") for tag in shown) == len(LOGGED) == 4
    key = f"train/mhc/{ID}"
    rows = {row["train/global_step"]: row for row in wandb_history(tmp_path) if key in row}
    assert {step: row[key] for step, row in rows.items()} == pytest.approx(wanted)
    assert all("train/loss" in row for row in rows.values())
    history = {row["step"]: row for row in training.state.log_history if f"mhc/{ID}" in row}
    assert {step: row[f"mhc/{ID}"] for step, row in history.items()} == pytest.approx(wanted)


def test_given_as_callbacks_the_history_has_the_gains_and_the_reporters_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    callback = MhcDiagCallback(tmp_path / "run", every=2)
    training = trainer(tmp_path, callbacks=[callback], report_to="tensorboard")
    training.train()
    shown = tensorboard_scalars(tmp_path)
    assert "train/loss" in shown
    assert not [tag for tag in shown if "mhc/" in tag]
    steps = [row["step"] for row in training.state.log_history if f"mhc/{ID}" in row]
    assert steps == [2, 4, 6]


@pytest.mark.slow
def test_ids_for_the_logs_are_chosen_and_none_is_possible(tmp_path: Path) -> None:
    for logs in ([], ["manifold.row_error.max"]):
        training = trainer(tmp_path)
        MhcDiagCallback(tmp_path / f"run{len(logs)}", every=2, logs=logs).add_to(training)
        training.train()
        keys = {key for row in training.state.log_history for key in row if "mhc/" in key}
        assert keys == {f"mhc/{name}" for name in logs}


def test_an_epochs_log_gets_the_gains_of_its_last_step(tmp_path: Path) -> None:
    training = trainer(tmp_path, max_steps=-1, num_train_epochs=2, logging_strategy="epoch")
    MhcDiagCallback(tmp_path / "run", every=1).add_to(training)
    training.train()
    rows = [row["step"] for row in training.state.log_history if f"mhc/{ID}" in row]
    assert rows == [3, 6]
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("logging", [{"logging_steps": 1}, {"logging_strategy": "no"}])
def test_nothing_is_on_the_model_while_it_is_evaluated(
    tmp_path: Path, logging: dict[str, Any]
) -> None:
    counts: list[int] = []

    class Spy(TrainerCallback):
        def on_prediction_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            counts.append(hooks_on(given["model"]))

    training = trainer(tmp_path, callbacks=[Spy()], **logging)
    MhcDiagCallback(tmp_path / "run", every=2).add_to(training)
    training.train()
    # The monitor listens to the next step only where that is recorded: steps 2, 4 and 6.
    assert len(counts) == 6
    assert [count > 0 for count in counts] == [True, False] * 3


def test_a_training_that_was_broken_off_can_be_started_again(tmp_path: Path) -> None:
    class Breaks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    training = trainer(tmp_path)
    MhcDiagCallback(tmp_path / "run", every=2).add_to(training)
    training.add_callback(Breaks())
    with pytest.raises(KeyboardInterrupt):
        training.train()
    training.remove_callback(Breaks)
    training.train()
    assert [record["step"] for record in records(tmp_path / "run")] == [2, 2, 4, 6]
    assert hooks_on(training.model) == 0


def test_options_of_the_monitor_are_passed_on_and_checked(tmp_path: Path) -> None:
    seen: list[int] = []
    training = trainer(tmp_path)
    MhcDiagCallback(
        tmp_path / "run", every=3, ids=[ID], sink=lambda numbers, step: seen.append(step)
    ).add_to(training)
    training.train()
    assert seen == [3, 6]
    assert set(records(tmp_path / "run")[0]["values"]) == {ID}
    training = trainer(tmp_path)
    MhcDiagCallback(tmp_path / "other", every=0).add_to(training)
    with pytest.raises(OptionError, match="every=0"):
        training.train()


def test_an_id_for_the_logs_that_is_not_recorded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'composite.forward.norm.max' is not recorded"):
        MhcDiagCallback(tmp_path / "run", ids=[ID], logs=["composite.forward.norm.max"])


@pytest.mark.slow
def test_a_trainer_that_compiles_keeps_its_graphs(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    def graphs(run: Path | None) -> tuple[int, int]:
        torch._dynamo.reset()
        counters.clear()
        training = trainer(
            tmp_path,
            tiny_deepseek_v4(1),
            eval_strategy="no",
            torch_compile=True,
            torch_compile_backend="eager",
        )
        if run is not None:
            MhcDiagCallback(run, every=2, tokens=1000).add_to(training)
        training.train()
        return counters["stats"]["unique_graphs"], len(counters["graph_break"])

    assert graphs(tmp_path / "run") == graphs(None)
    found = records(tmp_path / "run")
    assert [record["step"] for record in found] == [2, 4, 6]
    assert [record["probe"]["tokens"] for record in found] == [2 * 2 * 16] * 3


def test_without_transformers_the_import_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "mhc_diag.runs.callbacks.huggingface"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="pip install transformers accelerate"):
        importlib.import_module(name)
