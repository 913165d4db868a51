"""The callback in the real Trainer of Lightning, on a model of the zoo."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

import mhc_diag as md
from mhc_diag.errors import MissingExtraError
from mhc_diag.metrics import measure
from mhc_diag.runs.callbacks.lightning import MhcDiagCallback
from mhc_diag.runs.callbacks.logs import LOGGED
from mhc_diag.zoo.models import ZooConfig, ZooModel

ID = "composite.forward.amax.mean"
ROW = torch.arange(17)
BATCHES, ACCUMULATED = 10, 4
"""Three steps an epoch, of four, four and two batches."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


def zoo() -> ZooModel:
    torch.manual_seed(0)
    model = ZooModel(ZooConfig(connection="hc", n_blocks=2, width=16, n_heads=2, context=16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "hc_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def module_of(framework: Any, *, logs: bool = True, manual: bool = False) -> Any:
    """A LightningModule that learns nothing, so that every step is the same."""

    class Module(framework.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = zoo()
            self.automatic_optimization = not manual
            self.breaks_at: int | None = None

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            if batch_idx == self.breaks_at:
                raise RuntimeError("out of memory")
            logits = self.net(batch[:, :-1])
            loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss = loss + batch_idx
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.net(batch[:, :-1].flip(1) + 30)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            if logs:
                self.log("grad_norm", 0.5)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    return Module()


def loader() -> Any:
    return DataLoader(ROW.expand(2 * BATCHES, -1).contiguous(), batch_size=2)


def fit(framework: Any, folder: Path, callback: Any, module: Any, **changes: Any) -> Any:
    loggers = importlib.import_module(f"{framework.__name__}.loggers")
    values: dict[str, Any] = {
        "max_epochs": 2,
        "accumulate_grad_batches": ACCUMULATED,
        "log_every_n_steps": 1,
        "logger": loggers.CSVLogger(folder, name="csv", version=""),
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = framework.Trainer(callbacks=[callback], **{**values, **changes})
    trainer.fit(module, loader(), loader())
    return trainer


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def framework(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


def truth() -> np.ndarray:
    model = zoo()
    with torch.no_grad(), md.capture(model) as capture:
        model(ROW[None, :-1])
    return measure(capture.trace(), [ID])[ID].filled(np.nan)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def hooks_on(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_record_is_one_accumulated_step_and_no_validation(tmp_path: Path, framework: Any) -> None:
    module = module_of(framework)
    callback = MhcDiagCallback(tmp_path / "run", every=1, tokens=1000)
    trainer = fit(framework, tmp_path, callback, module)
    found = records(tmp_path / "run")
    assert [record["step"] for record in found] == [1, 2, 3, 4, 5, 6]
    assert trainer.global_step == 6
    batches = [4, 4, 2] * 2
    assert [record["probe"]["tokens"] for record in found] == [2 * 16 * n for n in batches]
    for record in found:
        np.testing.assert_allclose(record["values"][ID], truth(), rtol=1e-5)
    assert hooks_on(module) == 0
    assert callback.monitor is None


def test_loss_is_the_mean_over_the_batches_of_the_step(tmp_path: Path, framework: Any) -> None:
    fit(framework, tmp_path, MhcDiagCallback(tmp_path / "run", every=2), module_of(framework))
    first, second, third = (record["scalars"] for record in records(tmp_path / "run"))
    with torch.no_grad():
        plain = functional.cross_entropy(zoo()(ROW[None, :-1])[0], ROW[1:]).item()
    assert first == pytest.approx({"loss": plain + 5.5, "grad_norm": 0.5})  # batches 4 to 7
    assert second == pytest.approx({"loss": plain + 1.5, "grad_norm": 0.5})  # batches 0 to 3
    assert third == pytest.approx({"loss": plain + 8.5, "grad_norm": 0.5})  # batches 8 and 9


def test_the_loggers_get_the_gains_in_the_row_of_their_step(tmp_path: Path, framework: Any) -> None:
    fit(framework, tmp_path, MhcDiagCallback(tmp_path / "run", every=2), module_of(framework))
    wanted = {record["step"] - 1: max(record["values"][ID]) for record in records(tmp_path / "run")}
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").read_text().splitlines()))
    shown = {int(row["step"]): float(row[f"mhc/{ID}"]) for row in rows if row[f"mhc/{ID}"]}
    assert shown == pytest.approx(wanted)
    assert sum(key.startswith("mhc/") for key in rows[0]) == len(LOGGED)
    assert set(shown) < {int(row["step"]) for row in rows if row["grad_norm"]}


def test_manual_optimisation_without_a_gradient_norm(tmp_path: Path, framework: Any) -> None:
    module = module_of(framework, logs=False, manual=True)
    callback = MhcDiagCallback(tmp_path / "run", every=4, logs=())
    fit(framework, tmp_path, callback, module, accumulate_grad_batches=1, max_epochs=1)
    found = records(tmp_path / "run")
    assert [record["step"] for record in found] == [4, 8]
    assert [set(record["scalars"]) for record in found] == [{"loss"}] * 2
    assert not (tmp_path / "csv" / "metrics.csv").exists()


def test_a_fit_that_was_broken_off_leaves_the_model_and_can_go_on(
    tmp_path: Path, framework: Any
) -> None:
    module = module_of(framework)
    module.breaks_at = 5
    callback = MhcDiagCallback(tmp_path / "run", every=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(framework, tmp_path, callback, module, logger=False)
    assert hooks_on(module) == 0
    module.breaks_at = None
    fit(framework, tmp_path, callback, module, max_epochs=1, logger=False)
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 1, 2, 3]


@pytest.mark.slow
def test_a_compiled_module_keeps_its_graphs(tmp_path: Path) -> None:
    import lightning.pytorch as framework
    from torch._dynamo.testing import CompileCounter

    def graphs(callback: Any) -> int:
        torch._dynamo.reset()
        counter = CompileCounter()
        compiled = torch.compile(module_of(framework, logs=False), backend=counter)
        changes = {"limit_val_batches": 0, "max_epochs": 1, "logger": False}
        fit(framework, tmp_path, callback, compiled, **changes)
        return counter.frame_count

    watched = graphs(MhcDiagCallback(tmp_path / "run", every=2))
    assert watched == graphs(framework.Callback())
    assert [record["step"] for record in records(tmp_path / "run")] == [2]


def test_without_lightning_the_import_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "mhc_diag.runs.callbacks.lightning"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    with pytest.raises(MissingExtraError, match="pip install lightning"):
        importlib.import_module(name)
