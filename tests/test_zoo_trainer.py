"""Training: the same seed gives the same model, whoever looks on."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import torch

import mhc_diag as md
from mhc_diag.errors import ModelError
from mhc_diag.zoo.data import draw_batch, standard_library_bytes
from mhc_diag.zoo.models import CONNECTIONS, ConnectionKind, ZooConfig, ZooModel
from mhc_diag.zoo.trainer import Trainer, TrainStep, train


def config(connection: ConnectionKind) -> ZooConfig:
    return ZooConfig(connection=connection, n_blocks=2, width=16, context=32)


def same(a: ZooModel, b: ZooModel) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_the_same_seed_gives_the_same_model_to_the_bit(connection: ConnectionKind) -> None:
    first, history = train(config(connection), steps=3, seed=5)
    torch.rand(7)
    second, again = train(config(connection), steps=3, seed=5)
    assert same(first, second)
    assert history == again
    assert not same(first, train(config(connection), steps=3, seed=6)[0])


def test_training_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    train(config("mhc"), steps=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_under_capture_is_the_same_to_the_bit() -> None:
    plain, watched = Trainer(config("hc"), seed=1), Trainer(config("hc"), seed=1)
    for _ in range(3):
        plain.step()
        with md.capture(watched.model, tokens=16):
            watched.step()
    assert same(plain.model, watched.model)


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_few_steps_lower_the_loss(connection: ConnectionKind) -> None:
    seen: list[TrainStep] = []
    _, history = train(config(connection), steps=25, on_step=seen.append)
    assert [step.step for step in seen] == list(range(1, 26))
    assert tuple(seen) == history
    assert history[0].loss == pytest.approx(5.55, abs=0.2)  # ln 256
    assert history[-1].loss < history[0].loss - 0.5
    assert all(step.grad_norm > 0 for step in history)


def test_the_text_is_the_standard_library_in_order_and_no_more_than_asked() -> None:
    text = bytes(standard_library_bytes(300_000).tolist())
    first = min(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    assert len(text) == 300_000
    assert text.startswith(first.read_bytes()[:1000])
    assert len(standard_library_bytes()) == 2_000_000


def test_a_python_without_source_text_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(ModelError, match="holds 0 bytes"):
        standard_library_bytes()


def test_a_batch_holds_stretches_of_the_text() -> None:
    text = torch.arange(200, dtype=torch.uint8)
    batch = draw_batch(text, torch.Generator().manual_seed(0), batch=50, context=9)
    assert batch.shape == (50, 10)
    assert torch.equal(batch - batch[:, :1], torch.arange(10).expand(50, 10))
    assert len(set(batch[:, 0].tolist())) > 20
