"""Jobs that are refused, lose records, or die; nobody may wait for anybody."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist
from distributed_models import Pipeline
from job_registry import ALL, SPLITS, job, mine, pipe, train
from monitored import IDS, zoo
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import mhc_diag as md
from mhc_diag.runs import monitor


@job("equal names on all stages without a mesh")
def _(run: Path) -> list[str]:
    return heard(lambda: pipe(run, Pipeline([[0], [2]], "1f1b", from_zero=True)))


@job("equal names behind a stage that only embeds")
def _(run: Path) -> None:
    pipe(run, Pipeline(([], [0], [1], [2]), "1f1b", from_zero=True))


@job("pipeline and data parallel without a mesh")
def _(run: Path) -> None:
    blocks = SPLITS[2][dist.get_rank() % 2]
    md.Monitor(nn.ModuleDict({str(block): zoo().blocks[block] for block in blocks}), run)


@job("a mesh of a part of the job")
def _(run: Path) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "pp"))
    md.Monitor(zoo(), run, mesh=mesh["dp"])


@job("a mesh with a name that says nothing")
def _(run: Path) -> None:
    md.Monitor(zoo(), run, mesh=init_device_mesh("cpu", (2,), mesh_dim_names=("world",)))


@job("a mesh that hides the pipeline")
def _(run: Path) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("dp",))
    md.Monitor(Pipeline(SPLITS[2], "gpipe").model, run, mesh=mesh)


@job("no rank has sites")
def _(run: Path) -> None:
    md.Monitor(nn.Linear(2, 2), run)


@job("a tap that fits nowhere")
def _(run: Path) -> None:
    tap = md.tap(lambda module, args, output: output[1], stored="M")
    taps = {"blocks.*.hc_attn": tap, "blocks.*.mix": tap}
    md.Monitor(Pipeline(SPLITS[2], "gpipe").model, run, taps=taps)


@job("a model of one rank that cannot be read")
def _(run: Path) -> None:
    settings = {"sinkhorn_iters": 20} if dist.get_rank() else {"rounds": 20}
    md.Monitor(zoo(), run, settings=settings)


@job("the folder of another model")
def _(run: Path) -> None:
    if dist.get_rank() == 0:
        _alone(run, zoo())
    dist.barrier()
    md.Monitor(Pipeline(SPLITS[2], "gpipe").model.blocks, run)


@job("the folder of another writer")
def _(run: Path) -> None:
    holder = _alone(run, zoo(), close=False) if dist.get_rank() == 0 else None
    dist.barrier()
    try:
        train(DistributedDataParallel(zoo()), run, mine(1))
    finally:
        if holder:
            holder.close()


def _alone(run: Path, model: nn.Module, *, close: bool = True) -> md.Monitor:
    """A record that this process made by itself."""
    world, dist.is_initialized = dist.is_initialized, lambda: False
    try:
        watch = md.Monitor(model, run, every=1)
        model(IDS)
        watch.step(0)
    finally:
        dist.is_initialized = world
    if close:
        watch.close()
    return watch


@job("a stage that hears nothing")
def _(run: Path) -> list[str]:
    pipeline = Pipeline(SPLITS[2], "gpipe")
    if dist.get_rank() == 1:
        pipeline.model.eval()
    return heard(lambda: pipe(run, pipeline))


def heard(work: Callable[[], md.Monitor]) -> list[str]:
    """What the monitor warned of, and how many records were lost."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        problems = work().problems
    warned = [one.message for one in said if isinstance(one.message, monitor.MonitorWarning)]
    return [*map(str, warned), f"{problems} problems"]


@job("a rank dies")
def _(run: Path) -> None:
    _until(run, lambda step: dist.get_rank() == 1 and step == 2)


@job("the rank that writes dies")
def _(run: Path) -> None:
    _until(run, lambda step: dist.get_rank() == 0 and step == 2)


def _until(run: Path, dies: Callable[[int], bool]) -> None:
    model = zoo()
    with md.Monitor(model, run, every=1, tokens=ALL) as watch:
        for step, ids in enumerate(mine(4)):
            model(ids)
            if dies(step):
                os.kill(os.getpid(), signal.SIGKILL)
            watch.step(step)
