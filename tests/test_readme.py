"""The README does what it says: every command and every snippet runs."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import GPT

import mhc_diag as md
from mhc_diag.zoo.models import ZooConfig, save_checkpoint
from mhc_diag.zoo.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ").split("#")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ mhc-diag ")
]
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples, a checkpoint.pt, a run and checkpoints, as the README assumes."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "examples" / "mhc.pt", tmp_path / "checkpoint.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(desk: Path) -> None:
    """runs/hc and checkpoints/, of one small model."""
    config = ZooConfig(connection="mhc", n_blocks=2, width=16, n_heads=2, context=16)
    trainer = Trainer(config)
    (desk / "checkpoints").mkdir()
    with md.Monitor(trainer.model, desk / "runs" / "hc", every=1) as monitor:
        for step in range(2):
            loss = trainer.step().loss
            monitor.step(step, loss=loss)
            save_checkpoint(desk / "checkpoints" / f"{step}.pt", trainer.model, step=step)


def test_there_is_something_to_run() -> None:
    assert len(COMMANDS) >= 6
    assert len(SNIPPETS) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(command: str, desk: Path, run: Callable[..., Any]) -> None:
    if "runs/hc" in command or "checkpoints/" in command:
        trained(desk)
    ended = run(*shlex.split(command)[1:])
    assert ended.code == 0, ended.err
    for name in re.findall(r"-o (\S+)", command):
        assert (desk / name).stat().st_size > 1000


@pytest.mark.slow
def test_every_snippet_runs_in_order(desk: Path) -> None:
    class Net(torch.nn.Module):
        """Blocks that hand out a matrix, as the tap in the README expects."""

        def __init__(self) -> None:
            super().__init__()
            self.gpt = GPT("mhc")
            mix = [torch.nn.ModuleDict({"mix": Mix()}) for _ in range(2)]
            self.blocks = torch.nn.ModuleList(mix)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.gpt(ids).flatten(0, 1)[:, :3]
            for block in self.blocks:
                x, _ = block["mix"](x)
            return x

    class Mix(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            R = torch.eye(3) + 0.1
            return x @ R, R.expand(len(x), 3, 3)

    def train_step(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().mean()

    ids = torch.arange(32).reshape(2, 16)
    names: dict[str, Any] = {
        "model": Net(),
        "input_ids": ids,
        "loader": [ids] * 2,
        "train_step": train_step,
    }
    for snippet in SNIPPETS:
        exec(snippet, names)
    assert (desk / "report.html").stat().st_size > 10_000
    assert (desk / "runs" / "hc" / "stats.jsonl").stat().st_size > 100
    assert len(names["capture"].trace().sites) == 2


def test_the_picture_and_every_linked_file_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target
