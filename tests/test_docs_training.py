"""Every snippet of docs/training.md, run with the real package where there is one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_deepseek_v4
from torch.nn import functional
from trackers import take_wandb_offline, tensorboard_scalars, wandb_history

import mhc_diag as md
from mhc_diag.zoo.models import ZooConfig, ZooModel

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
ID = "composite.forward.amax.mean"
IDS = torch.arange(34).reshape(2, 17)


def snippets() -> dict[str, str]:
    """Heading -> the code below it."""
    parts = re.split(r"^#+ (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    found = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        codes = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        assert len(codes) <= 1, heading
        found |= dict.fromkeys([heading] if codes else [], "".join(codes))
    return found


def run(heading: str, **names: Any) -> dict[str, Any]:
    """What the code below a heading leaves, in the folder that is the current one."""
    exec(compile(snippets()[heading], f"{PAGE.name}: {heading}", "exec"), names)
    return names


def zoo() -> ZooModel:
    torch.manual_seed(0)
    return ZooModel(ZooConfig(connection="mhc", n_blocks=1, width=16, n_heads=2, context=16))


def loss_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def one_step(given: dict[str, Any]) -> None:
    """What a reader's loop does after the snippet that made the monitor."""
    given["model"](IDS[:, :-1])
    given["monitor"].step(0, loss=2.5)
    given["monitor"].close()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_snippet_is_run_by_a_test_of_this_file() -> None:
    text = Path(__file__).read_text()
    assert sorted(snippets()) == sorted(re.findall(r'(?<!\w)run\(\s*"([^"]+)"', text))


def test_snippets_are_ten_lines_of_code_at_most() -> None:
    for heading, code in snippets().items():
        assert len([line for line in code.splitlines() if line.strip()]) <= 10, heading


def test_your_own_loop() -> None:
    model = zoo()
    run("Your own loop", model=model, loader=[IDS] * 51, train_step=lambda b: loss_of(model, b))
    assert sorted(md.read_run("runs/hc")["step"].unique()) == [0, 50]


def test_a_sink_that_gets_sites() -> None:
    seen: list[dict[str, float]] = []
    names = {"md": md, "model": zoo(), "show": lambda numbers, step: seen.append(numbers)}
    one_step(run("Trackers: a sink is anything that takes (numbers, step)", **names))
    assert f"{ID}/blocks.0.hc_attn" in seen[0]


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_wandb_offline(tmp_path, monkeypatch)
    given = run("Weights & Biases", md=md, model=zoo())
    one_step(given)
    given["wandb"].finish()
    assert [row["loss"] for row in wandb_history(tmp_path)] == [2.5]


def test_tensorboard() -> None:
    given = run("TensorBoard", md=md, model=zoo())
    one_step(given)
    given["writer"].close()
    assert tensorboard_scalars(Path("runs/tensorboard"))["loss"] == {0: 2.5}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_trainer_of_transformers() -> None:
    ids = torch.arange(1, 17)
    dataset = [{"input_ids": ids, "labels": ids}] * 8
    run("Trainer of transformers", model=tiny_deepseek_v4(1), dataset=dataset)
    assert sorted(md.read_run("runs/hc")["step"].unique()) == [50, 100]
    assert set(tensorboard_scalars(Path())[f"train/mhc/{ID}"]) == {50, 100}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec")
def test_lightning() -> None:
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = zoo()

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return loss_of(self.net, batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    loader = torch.utils.data.DataLoader(IDS.repeat(50, 1), batch_size=2)
    run("Lightning", module=Module(), loader=loader)
    assert sorted(md.read_run("runs/hc")["step"].unique()) == [50, 100]
    assert Path("lightning_logs").is_dir()


class MetricsProcessor:
    """The two methods of torchtitan's that its training loop calls, and what they are told."""

    def __init__(self) -> None:
        self.logged: dict[int, dict[str, float]] = {}

    def should_log(self, step: int) -> bool:
        return step == 1 or step % 5 == 0

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        ntokens_seen: int,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        self.logged[step] = {"loss": global_avg_loss, **(extra_metrics or {})}


def test_torchtitan() -> None:
    model = zoo()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train_step(batches: Any) -> tuple[float, float]:
        optimizer.zero_grad()
        loss = sum(loss_of(model, next(batches)) for _ in range(2)) / 2
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item(), norm.item()

    processor = MetricsProcessor()
    run(
        "torchtitan",
        md=md,
        model_parts=[model],
        dump_folder=os.curdir,
        metrics_processor=processor,
        world_mesh=None,
        step=0,
        training_steps=12,
        n_tokens=32,
        train_step=train_step,
        data_iterator=iter([IDS] * 24),
    )
    assert sorted(processor.logged) == [1, 5, 10]
    assert sorted(md.read_run("mhc")["step"].unique()) == [1, 5, 10]
    assert all(numbers[ID] > 0 for numbers in processor.logged.values())
