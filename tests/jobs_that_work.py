"""Jobs whose numbers must be those of a single process."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from distributed_models import Pipeline, batches, loss_of, part_of, sequence_parallel
from job_registry import ALL, SPLITS, job, mine, pipe, train
from monitored import IDS, zoo
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import mhc_diag as md


@job("ddp")
def _(run: Path) -> None:
    train(DistributedDataParallel(zoo()), run, mine(), every=2)


@job("ddp attached before it is wrapped")
def _(run: Path) -> None:
    model = zoo()
    with md.Monitor(model, run, every=1, tokens=ALL) as watch:
        wrapped = DistributedDataParallel(model)
        watch.step(0, loss=loss_of(wrapped(mine(1)[0])))


@job("ddp few tokens")
def _(run: Path) -> None:
    train(DistributedDataParallel(zoo()), run, mine(), tokens=11)


@job("ddp fewer tokens than ranks")
def _(run: Path) -> None:
    train(DistributedDataParallel(zoo()), run, mine(1), tokens=1)


@job("ddp accumulating")
def _(run: Path) -> None:
    model = DistributedDataParallel(zoo())
    with md.Monitor(model, run, every=1, tokens=ALL) as watch:
        losses = []
        for number, ids in enumerate(mine(1)[0].split(1)):
            with model.no_sync() if number == 0 else nullcontext():
                losses.append(loss_of(model(ids)))
                losses[-1].backward()
        watch.step(0, loss=torch.stack(losses).mean())


@job("ddp with floats")
def _(run: Path) -> None:
    class OnStreams(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = zoo().blocks

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    x = torch.randn(4, 16, 4, 16, generator=torch.Generator().manual_seed(1))
    train(
        DistributedDataParallel(OnStreams()),
        run,
        [part_of(x, dist.get_rank(), dist.get_world_size())],
    )


def _sharded(*, sites: bool = False, mesh: Any = None) -> nn.Module:
    model = zoo()
    for block in model.blocks:
        for site in (block.hc_attn, block.hc_mlp):
            for name in ("alpha_pre", "alpha_post", "alpha_res"):  # FSDP2 takes no scalars
                setattr(site, name, nn.Parameter(getattr(site, name).detach().reshape(1)))
            if sites:
                fully_shard(site, mesh=mesh)
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@job("fsdp2")
def _(run: Path) -> None:
    model = _sharded()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with md.Monitor(model, run, every=1, tokens=ALL) as watch:
        for step, ids in enumerate(mine()):
            optimizer.zero_grad()
            loss = loss_of(model(ids))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)  # a DTensor, partial sums
            optimizer.step()
            watch.step(step, loss=loss, grad_norm=norm)


@job("fsdp2 around sites")
def _(run: Path) -> None:
    train(_sharded(sites=True), run, mine())


@job("fsdp2 with a mesh")
def _(run: Path) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("dp_shard",))
    train(_sharded(mesh=mesh), run, mine(), mesh=mesh)


@job("tp copies")
def _(run: Path) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    train(zoo(), run, batches(3), mesh=mesh)


@job("tp copies few tokens")
def _(run: Path) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    train(zoo(), run, batches(3), mesh=mesh, tokens=11)


@job("tp copies without a mesh")
def _(run: Path) -> None:
    train(zoo(), run, batches(3))


def _in_sequence(run: Path, dim: str, *, dtensors: bool = False, tokens: int = ALL) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=(dim,))
    model = sequence_parallel(mesh if dtensors else None)
    with md.Monitor(model, run, every=1, tokens=tokens, mesh=mesh) as watch:
        for step in range(3):
            with torch.no_grad():
                model(IDS)
            watch.step(step)


@job("sequence parallel")
def _(run: Path) -> None:
    _in_sequence(run, "sp")


@job("sequence parallel on tp")
def _(run: Path) -> None:
    _in_sequence(run, "tp")


@job("sequence parallel on tp few tokens")
def _(run: Path) -> None:
    _in_sequence(run, "tp", tokens=11)


@job("sequence parallel on tp in dtensors")
def _(run: Path) -> None:
    _in_sequence(run, "tp", dtensors=True)


@job("gpipe")
def _(run: Path) -> None:
    pipe(run, Pipeline(SPLITS[dist.get_world_size()], "gpipe"))


@job("1f1b")
def _(run: Path) -> None:
    pipe(run, Pipeline(SPLITS[dist.get_world_size()], "1f1b"))


@job("1f1b few tokens")
def _(run: Path) -> None:
    pipe(run, Pipeline(SPLITS[dist.get_world_size()], "1f1b"), tokens=11)


@job("1f1b with a mesh")
def _(run: Path) -> None:
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("pp",))
    pipe(run, Pipeline(SPLITS[world], "1f1b"), mesh=mesh)


@job("1f1b checkpointed")
def _(run: Path) -> None:
    pipeline = Pipeline(SPLITS[dist.get_world_size()], "1f1b")
    pipeline.model.checkpointed = True
    pipe(run, pipeline)


@job("gpipe with a stage that only embeds")
def _(run: Path) -> None:
    pipe(run, Pipeline([[], [0, 1, 2]], "gpipe"))


@job("1f1b with equal names and a mesh")
def _(run: Path) -> None:
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("pp",))
    pipe(run, Pipeline([[0, 1], [2]], "1f1b", from_zero=True), mesh=mesh)
    pipe(run / "again", Pipeline([[0, 1], [2]], "1f1b", from_zero=True), mesh=mesh)


@job("gpipe with taps")
def _(run: Path) -> None:
    tap = md.tap(lambda module, args, output: output[1], stored="M")
    taps = {f"blocks.{block}.hc_*": tap for block in range(3)}
    pipe(run, Pipeline(SPLITS[2], "gpipe"), taps=taps)


@job("1f1b in two data-parallel replicas")
def _(run: Path) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("pp", "dp"))
    group = mesh["pp"].get_group()
    pipeline = Pipeline(SPLITS[2], "1f1b", n_microbatches=2, group=group)
    pipe(run, pipeline, parts=(mesh.get_local_rank("dp"), 2), mesh=mesh)


@job("1f1b in two data-parallel replicas few tokens")
def _(run: Path) -> None:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "pp"))
    group = mesh["pp"].get_group()
    pipeline = Pipeline(SPLITS[2], "1f1b", n_microbatches=2, group=group)
    pipe(run, pipeline, parts=(mesh.get_local_rank("dp"), 2), mesh=mesh, tokens=11)
