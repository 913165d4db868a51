"""Where jobs are kept by name, and the loops that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from distributed_models import Pipeline, batches, loss_of, part_of
from torch import nn

import mhc_diag as md

ALL = 1000
"""Tokens: more than there are."""
SPLITS = {2: [[0, 1], [2]], 4: [[], [0], [1], [2]]}
"""Blocks of each stage, by the number of stages."""
Job = Callable[[Path], Any]
JOBS: dict[str, Job] = {}


def job(name: str) -> Callable[[Job], Job]:
    def add(work: Job) -> Job:
        JOBS[name] = work
        return work

    return add


def train(
    model: nn.Module, run: Path, batches: Iterable[torch.Tensor], *, every: int = 1, **options: Any
) -> md.Monitor:
    """Data parallel in whatever form, whole batches each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with md.Monitor(model, run, every=every, **{"tokens": ALL} | options) as watch:
        for step, ids in enumerate(batches):
            loss = loss_of(model(ids))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(step, loss=loss)
    return watch


def mine(steps: int = 3) -> list[torch.Tensor]:
    return [part_of(ids, dist.get_rank(), dist.get_world_size()) for ids in batches(steps)]


def pipe(
    run: Path, pipeline: Pipeline, *, parts: tuple[int, int] = (0, 1), **options: Any
) -> md.Monitor:
    """Three steps of a pipeline; ``parts`` is this rank's data-parallel place."""
    optimizer = torch.optim.SGD(pipeline.model.parameters(), lr=0.01)
    with md.Monitor(pipeline.model, run, **{"tokens": ALL, "every": 1} | options) as watch:
        for step, ids in enumerate(batches(3)):
            optimizer.zero_grad()
            loss = pipeline.step(part_of(ids, *parts))
            if parts[1] > 1:
                group = options["mesh"]["dp"].get_group()
                for parameter in pipeline.model.parameters():
                    dist.all_reduce(parameter.grad, group=group)
                    parameter.grad /= parts[1]
            optimizer.step()
            watch.step(step, loss=loss)
    return watch
