"""Trackers as sinks: the real packages, read back from what they wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from trackers import take_wandb_offline, tensorboard_scalars, wandb_history

import mhc_diag as md
from mhc_diag.errors import OptionError
from mhc_diag.zoo.models import ZooConfig, ZooModel

ID = "composite.forward.amax.mean"
IDS = torch.arange(64).reshape(4, 16) % 32


def zoo() -> ZooModel:
    torch.manual_seed(0)
    model = ZooModel(ZooConfig(connection="hc", n_blocks=2, width=16, n_heads=2, context=16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "hc_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def recorded(run: Path, sink: Any, **options: Any) -> dict[int, Mapping[str, float]]:
    """Step -> what a monitor returned and, so it is claimed, told its sink."""
    model = zoo()
    with md.Monitor(model, run, every=2, sink=sink, **options) as monitor:
        seen = {}
        for step in range(5):
            model(IDS * step)
            seen[step] = monitor.step(step, loss=2.0 + step)
    return {step: numbers for step, numbers in seen.items() if numbers is not None}


def test_tensorboard_shows_the_worst_of_each_id(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "tb")) as writer:

        def sink(numbers: Mapping[str, float], step: int) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)

        told = recorded(tmp_path / "run", sink)
    shown = tensorboard_scalars(tmp_path / "tb")
    assert shown["loss"] == {0: 2.0, 2: 4.0, 4: 6.0}
    assert shown[ID] == pytest.approx({step: numbers[ID] for step, numbers in told.items()})
    assert len(shown) == 13


def test_wandb_log_is_a_sink_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_wandb_offline(tmp_path, monkeypatch)
    import wandb

    run = wandb.init(project="mhc")
    told = recorded(tmp_path / "run", wandb.log)
    run.finish()
    rows = wandb_history(tmp_path)
    assert [row["_step"] for row in rows] == [0, 2, 4]
    for row in rows:
        assert row[ID] == told[int(row["_step"])][ID]
        assert row["loss"] == 2.0 + row["_step"]


def test_an_accelerator_is_a_sink_for_its_trackers(tmp_path: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(log_with="tensorboard", project_dir=tmp_path, cpu=True)
    accelerator.init_trackers("mhc")
    told = recorded(tmp_path / "run", accelerator.log)
    accelerator.end_training()
    shown = tensorboard_scalars(tmp_path)
    assert shown[ID] == pytest.approx({step: numbers[ID] for step, numbers in told.items()})


@pytest.mark.slow
def test_loggers_of_lightning_and_fabric_are_sinks(tmp_path: Path) -> None:
    import csv

    from lightning.fabric import Fabric
    from lightning.fabric.loggers import CSVLogger

    logger = CSVLogger(tmp_path, name="a", flush_logs_every_n_steps=1)
    fabric = Fabric(accelerator="cpu", loggers=CSVLogger(tmp_path, name="b"))
    for place, sink in enumerate((logger.log_metrics, fabric.log_dict)):
        told = recorded(tmp_path / f"run{place}", sink)
    logger.finalize("success")
    fabric.logger.finalize("success")
    for name in ("a", "b"):
        text = (tmp_path / name / "version_0" / "metrics.csv").read_text()
        rows = {int(row["step"]): row for row in csv.DictReader(text.splitlines())}
        assert {step: float(row[ID]) for step, row in rows.items()} == {
            step: numbers[ID] for step, numbers in told.items()
        }


def test_sites_reach_the_sink_only_for_the_ids_asked_for(tmp_path: Path) -> None:
    seen: dict[int, dict[str, float]] = {}

    def sink(numbers: Mapping[str, float], step: int) -> None:
        seen[step] = dict(numbers)

    told = recorded(tmp_path / "run", sink, sink_sites=[ID])
    frame = md.read_run(tmp_path / "run", ids=[ID], steps=[2])
    names = [f"{ID}/blocks.{block}.hc_{part}" for block in (0, 1) for part in ("attn", "mlp")]
    sites = dict(zip(names, frame[frame["id"] == ID]["value"], strict=True))
    assert seen[2] == pytest.approx(dict(told[2]) | sites)
    assert not any("/" in name for name in told[2])


def test_a_site_that_was_not_measured_is_no_key(tmp_path: Path) -> None:
    model = zoo()
    model.blocks[1].forward = lambda x: x
    seen: list[Mapping[str, float]] = []
    with (
        md.Monitor(
            model,
            tmp_path / "run",
            every=1,
            sink=lambda numbers, step: seen.append(numbers),
            sink_sites=["single.forward.amax.mean"],
        ) as monitor,
    ):
        model(IDS)
        with pytest.warns(UserWarning, match="were not measured"):
            monitor.step(0)
    assert [name for name in seen[0] if "/" in name] == [
        "single.forward.amax.mean/blocks.0.hc_attn",
        "single.forward.amax.mean/blocks.0.hc_mlp",
    ]


def test_sites_of_an_id_that_is_not_recorded_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not recorded"):
        md.Monitor(zoo(), tmp_path / "run", sink_sites=["single.forward.norm.mean"])
