"""Training a model of the zoo: AdamW, a short warmup, clipped gradients.

The same seed gives the same model, to the bit on the same machine: whole trainings run on one
thread, which is also faster for tensors as small as these.

Letters: B sequences, S positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mhc_diag.zoo.data import draw_batch, standard_library_bytes
from mhc_diag.zoo.models import ZooConfig, ZooModel

LEARNING_RATE = 3e-3
BATCH = 8
"""Sequences per step."""
WARMUP = 10
"""Steps in which the learning rate rises to its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """What one optimiser step showed."""

    step: int
    """From 1; the number of updates made."""
    loss: float
    """Cross entropy of the next byte before the update, in nats."""
    grad_norm: float
    """Global 2-norm of the gradient before clipping."""


class Trainer:
    """One model, its optimiser and its stream of batches.

    Args:
        config: the model.
        seed: decides initial weights and batches; the global random state is not touched.
        lr: peak learning rate.
        batch: sequences per step.
    """

    def __init__(
        self,
        config: ZooConfig,
        *,
        seed: int = 0,
        lr: float = LEARNING_RATE,
        batch: int = BATCH,
    ) -> None:
        self.config, self.lr, self.batch = config, lr, batch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = ZooModel(config)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.text = standard_library_bytes()
        self.generator = torch.Generator().manual_seed(seed)
        self.n_steps = 0

    def step(self) -> TrainStep:
        """One update."""
        ids = draw_batch(
            self.text, self.generator, batch=self.batch, context=self.config.context
        )  # [B, S + 1]
        logits = self.model(ids[:, :-1])  # [B, S, V]
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.n_steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(1.0, self.n_steps / WARMUP)
        self.optimizer.step()
        return TrainStep(step=self.n_steps, loss=loss.item(), grad_norm=grad_norm.item())


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside; sums then never depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(
    config: ZooConfig,
    *,
    steps: int,
    seed: int = 0,
    lr: float = LEARNING_RATE,
    batch: int = BATCH,
    on_step: Callable[[TrainStep], None] | None = None,
) -> tuple[ZooModel, tuple[TrainStep, ...]]:
    """Train ``steps`` updates; return the model and one record per step."""
    trainer = Trainer(config, seed=seed, lr=lr, batch=batch)
    history = []
    with one_thread():
        for _ in range(steps):
            history.append(trainer.step())
            if on_step is not None:
                on_step(history[-1])
    return trainer.model, tuple(history)
