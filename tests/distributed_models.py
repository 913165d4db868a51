"""The tiny model of monitored.py, cut up as parallel training cuts models up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from monitored import zoo
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor import DTensor, Shard, distribute_module
from torch.utils.checkpoint import checkpoint

from mhc_diag.zoo.models import StreamBlock, propagate

CPU = torch.device("cpu")


def loss_of(logits: Tensor, target: Tensor | None = None) -> Tensor:
    return logits.square().mean()


class Stage(nn.Module):
    """Some of the blocks; with the embedding on the first stage, with the head on the last."""

    def __init__(
        self, blocks: Sequence[int], *, first: bool, last: bool, from_zero: bool = False
    ) -> None:
        super().__init__()
        whole = zoo()
        names = range(len(blocks)) if from_zero else blocks
        self.blocks = nn.ModuleDict(
            {str(name): whole.blocks[block] for name, block in zip(names, blocks, strict=True)}
        )
        self.first, self.last, self.checkpointed = first, last, False
        if first:
            self.token, self.position = whole.token, whole.position
        if last:
            self.merge, self.norm, self.head = whole.merge, whole.norm, whole.head

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = self.token(x) + self.position.weight[: x.shape[1]]
            x = x.unsqueeze(-2).expand(-1, -1, 4, -1).contiguous()
        for block in self.blocks.values():
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.head(self.norm(self.merge(x))) if self.last else x


class Pipeline:
    """One rank's stage and its schedule, driven by ``loss = pipeline.step(ids)``.

    Args:
        split: blocks of each stage.
        schedule: "gpipe" or "1f1b".
        group: of the stages; all ranks when None.
    """

    def __init__(
        self,
        split: Sequence[Sequence[int]],
        schedule: str,
        *,
        n_microbatches: int = 4,
        group: Any = None,
        from_zero: bool = False,
    ) -> None:
        index, count = dist.get_rank(group), len(split)
        self.first, self.last = index == 0, index == count - 1
        self.model = Stage(split[index], first=self.first, last=self.last, from_zero=from_zero)
        stage = PipelineStage(self.model, index, count, CPU, group=group)
        kind = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}[schedule]
        self.schedule = kind(stage, n_microbatches=n_microbatches, loss_fn=loss_of)

    def step(self, ids: Tensor) -> Tensor | None:
        losses: list[Tensor] = []
        given = {"target": ids, "losses": losses} if self.last else {}
        self.schedule.step(*([ids] if self.first else []), **given)
        return torch.stack(losses).mean().detach() if losses else None


class _GatheredAttention(nn.Module):
    """Attention over the whole sequence, of which each rank holds a part: [B, S / ranks, C]."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.inner = attention

    def forward(self, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.detach().contiguous())
        whole = self.inner(torch.cat(parts, dim=1))
        return whole.chunk(dist.get_world_size(), dim=1)[dist.get_rank()]


def sequence_parallel(mesh: Any = None) -> nn.Module:
    """Given whole sequences, each rank's sites see a part of each; forward only.

    With a mesh the connections work on DTensors that are cut along the sequence.
    """
    model = zoo()
    for block in model.blocks:
        block.attn = _GatheredAttention(block.attn)
        if mesh is not None:
            for site in (block.hc_attn, block.hc_mlp):
                distribute_module(site, mesh)
            block.forward = _on_dtensors(block, mesh)

    def forward(ids: Tensor) -> Tensor:
        x = model.token(ids) + model.position.weight[: ids.shape[1]]
        x = x.unsqueeze(-2).expand(-1, -1, 4, -1)
        x = x.chunk(dist.get_world_size(), dim=1)[dist.get_rank()].contiguous()
        for block in model.blocks:
            x = block(x)
        return model.head(model.norm(model.merge(x)))

    model.forward = forward
    return model


def _on_dtensors(block: StreamBlock, mesh: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        for site, branch in ((block.hc_attn, block.attn), (block.hc_mlp, block.mlp)):
            maps = site(DTensor.from_local(x, mesh, [Shard(1)]))
            branch_input, H_res, H_post = (one.to_local() for one in maps)
            x = propagate(x, H_res, H_post, branch(branch_input))
        return x

    return forward


def part_of(ids: Tensor, index: int, count: int) -> Tensor:
    """A data-parallel rank's sequences."""
    return ids.chunk(count)[index]


def batches(steps: int) -> list[Tensor]:
    return [torch.arange(64).mul(7 + step).add(step).reshape(4, 16) % 61 for step in range(steps)]
