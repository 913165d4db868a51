"""One measurement from many ranks: the trace that a single process would have made.

Letters: L sites, T tokens, n streams. Data-parallel, context-parallel and sequence-parallel ranks
bring more tokens of the same sites; pipeline stages bring more sites of the same tokens; tensor-
parallel ranks bring copies. Nothing is exchanged inside a hook: a recorded step costs one gather of
the sampled matrices to rank 0, and every number is computed there, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mhc_diag.arrays import to_numpy
from mhc_diag.errors import CaptureError, OptionError
from mhc_diag.trace import Chain, Coverage, Orientation, Site, Trace

_REPLICAS = ("dp", "ddp", "fsdp", "replicate", "shard", "cp", "sp", "data", "context", "sequence")
_COPIES = ("tp", "tensor", "ep", "expert")
_STAGES = ("pp", "pipe", "pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a rank stands in the job."""

    rank: int = 0
    world: int = 1
    replica: int = 0
    """Which part of the tokens it sees."""
    n_replicas: int = 1
    stage: int = 0
    """Which part of the depth it holds."""
    is_copy: bool = False
    """Whether another rank holds the same sites and sees the same tokens."""
    declared: bool = False
    """Whether a mesh said so; otherwise it is told by the names of the sites."""
    any_sites: bool = True
    """Whether any rank has sites."""

    @property
    def writes(self) -> bool:
        """Whether this rank computes and writes."""
        return self.rank == 0

    def share(self, tokens: int) -> int:
        """Tokens that this rank draws, so that all replicas together draw ``tokens``."""
        even, rest = divmod(tokens, self.n_replicas)
        return max(1, even + (self.replica < rest))

    def told(self, names: Sequence[str]) -> Layout:
        """The layout once all ranks have said which sites they hold; every rank must call it.

        Args:
            names: names of this rank's sites.

        Raises:
            OptionError: ranks hold overlapping sets of sites and no mesh says what they are.
        """
        if self.world == 1:
            return replace(self, any_sites=bool(names))
        everyone = _all_gather(tuple(names))
        any_sites = any(everyone)
        if self.declared:
            return replace(self, any_sites=any_sites)
        kinds = [kind for kind in dict.fromkeys(everyone) if kind]
        if len(kinds) <= 1:
            return replace(self, any_sites=any_sites, replica=self.rank, n_replicas=self.world)
        seen = [name for kind in kinds for name in kind]
        holders = [kind for kind in everyone if kind]
        if len(set(seen)) < len(seen) or len(holders) > len(kinds):
            raise OptionError(
                "monitor a parallel job",
                "ranks hold different sites, and some hold the same: pipeline and data parallel",
                "Pass the job's DeviceMesh with named dimensions: md.Monitor(..., mesh=mesh).",
            )
        return replace(self, any_sites=any_sites, stage=self.rank, n_replicas=1)


def layout_of(mesh: Any) -> Layout:
    """This rank's place, from torch.distributed and a DeviceMesh with named dimensions, or None.

    Raises:
        OptionError: a mesh dimension whose name does not say what it does.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return Layout()
    here = Layout(rank=dist.get_rank(), world=dist.get_world_size())
    if mesh is None:
        return here
    replica, n_replicas, stage, is_copy = 0, 1, 0, False
    for place, name in enumerate(mesh.mesh_dim_names or ()):
        size, index = mesh.size(place), mesh.get_local_rank(name)
        words = name.lower().split("_")
        if any(word in _STAGES for word in words):
            stage = index
        elif any(word in _COPIES for word in words):
            is_copy = is_copy or index > 0
        elif any(word in _REPLICAS for word in words):
            replica, n_replicas = replica * size + index, n_replicas * size
        else:
            raise OptionError(
                f"mesh dimension {name!r}",
                "its name does not say whether its ranks see other tokens, other layers or copies",
                f"Name it as one of {', '.join((*_STAGES, *_REPLICAS, *_COPIES))}.",
            )
    return replace(
        here, replica=replica, n_replicas=n_replicas, stage=stage, is_copy=is_copy, declared=True
    )


def gather_trace(trace: Trace | None, layout: Layout) -> Trace | None:
    """The whole job's trace on the rank that writes; None on the others. All ranks must call it.

    Args:
        trace: what this rank measured; None when it has no sites, or heard nothing.
        layout: this rank's place.

    Raises:
        CaptureError: on the writing rank, when the parts do not fit together.
    """
    if layout.world == 1:
        return trace
    import torch.distributed as dist

    parts: list[Any] | None = [None] * layout.world if layout.writes else None
    dist.gather_object((layout, None if trace is None else _on_host(trace)), parts, dst=0)
    return merge_traces(parts) if parts is not None else None


def merge_traces(parts: Sequence[tuple[Layout, Trace | None]]) -> Trace | None:
    """Put stages after one another and replicas side by side.

    Raises:
        CaptureError: stages of one replica saw different numbers of tokens, or replicas hold
            different sites.
    """
    have = [(where, trace) for where, trace in parts if trace is not None and not where.is_copy]
    if not have:
        return None
    replicas: dict[int, list[tuple[int, Trace]]] = {}
    for where, trace in _distinct(have):
        replicas.setdefault(where.replica, []).append((where.stage, trace))
    whole = [
        _stacked([trace for _, trace in sorted(stages, key=lambda one: one[0])])
        for _, stages in sorted(replicas.items())
    ]
    return _beside(whole)


def _distinct(have: list[tuple[Layout, Trace]]) -> list[tuple[Layout, Trace]]:
    """Without a mesh, ranks that were given the same token ids are copies of one another."""
    if have[0][0].declared or have[0][0].n_replicas == 1:
        return have
    hashed = [trace.probe.inputs.startswith("sha256:") for _, trace in have]
    if any(hashed) and not all(hashed):
        raise CaptureError(
            "put together what the ranks measured",
            "only some ranks were given token ids: these are pipeline stages with equal names",
            "Pass the job's DeviceMesh with named dimensions: md.Monitor(..., mesh=mesh).",
        )
    if not any(hashed):
        return have
    return list({trace.probe.inputs: (where, trace) for where, trace in reversed(have)}.values())[
        ::-1
    ]


def _stacked(stages: list[Trace]) -> Trace:
    """One replica: sites of later stages behind those of earlier ones, chain by chain."""
    if len(stages) == 1:
        return stages[0]
    names = [site.name for stage in stages for site in stage.sites]
    doubled = len(set(names)) < len(names)
    chains: dict[str, list[Chain]] = {}
    for number, stage in enumerate(stages):
        for chain in stage.chains:
            label = f"stage{number}." if doubled else ""
            sites = tuple(replace(site, name=label + site.name) for site in chain.sites)
            chains.setdefault(chain.name, []).append(replace(chain, sites=sites))
    joined = [_joined(parts, axis=0) for parts in chains.values()]
    return replace(
        stages[0],
        chains=_numbered(joined),
        coverage=_covered(stages),
        orientation=_oriented([stage.orientation for stage in stages]),
    )


def _beside(replicas: list[Trace]) -> Trace:
    """The whole job: tokens of all replicas, replica after replica."""
    if len(replicas) == 1:
        return replicas[0]
    first = replicas[0]
    names = [[site.name for site in one.sites] for one in replicas]
    if any(one != names[0] for one in names):
        raise CaptureError(
            "put together what the ranks measured",
            "data-parallel replicas measured different sites",
            "Check that the same layers run on every replica, or pass the job's DeviceMesh.",
        )
    chains = tuple(
        _joined(list(parts), axis=1)
        for parts in zip(*(one.chains for one in replicas), strict=True)
    )
    inputs = sorted({one.probe.inputs for one in replicas})
    return replace(
        first,
        chains=chains,
        probe=replace(first.probe, tokens=chains[0].n_tokens, inputs="; ".join(inputs)),
        orientation=_oriented([one.orientation for one in replicas]),
    )


def _joined(parts: list[Chain], *, axis: int) -> Chain:
    """Chains along sites (axis 0) or tokens (axis 1); fields that one of them lacks are dropped."""
    shapes = {part.M.shape[:axis] + part.M.shape[axis + 1 :] for part in parts}
    if len(shapes) > 1:
        raise CaptureError(
            "put together what the ranks measured",
            f"chain {parts[0].name!r} has {' and '.join(str(list(part.M.shape)) for part in parts)}"
            " sites, tokens, n, n on different ranks",
            "Every stage must see the same microbatches.",
        )
    fields: dict[str, Any] = {}
    for field in ("M", "H_pre", "H_post", "gram", "logits"):
        arrays = [getattr(part, field) for part in parts]
        whole = all(array is not None for array in arrays)
        fields[field] = np.concatenate(arrays, axis=axis) if whole else None
    first = parts[0]
    if axis == 0:
        sites = tuple(site for part in parts for site in part.sites)
        measured = tuple(one for part in parts for one in part.measured)
    else:
        sites = first.sites
        measured = tuple(all(ones) for ones in zip(*(part.measured for part in parts), strict=True))
    return replace(first, sites=sites, measured=measured, **fields)


def _numbered(chains: list[Chain]) -> tuple[Chain, ...]:
    """Sites numbered over all chains, main chains before auxiliary ones."""
    ordered, start = [], 0
    for chain in sorted(chains, key=lambda one: one.auxiliary):
        sites: tuple[Site, ...] = tuple(
            replace(site, index=start + k) for k, site in enumerate(chain.sites)
        )
        ordered.append(replace(chain, sites=sites))
        start += len(sites)
    return tuple(ordered)


def _covered(parts: list[Trace]) -> Coverage:
    return Coverage(
        expected=sum(part.coverage.expected for part in parts),
        measured=sum(part.coverage.measured for part in parts),
        skipped=tuple(one for part in parts for one in part.coverage.skipped),
        unclaimed=tuple(one for part in parts for one in part.coverage.unclaimed),
    )


def _oriented(parts: list[Orientation]) -> Orientation:
    """The weakest proof of them all."""
    errors = [one.error for one in parts if one.error is not None]
    transposed = [one.error_transposed for one in parts if one.error_transposed is not None]
    numeric = all(one.verified == "numeric" for one in parts)
    return Orientation(
        stored=parts[0].stored,
        verified="numeric" if numeric else "declared",
        error=max(errors, default=None),
        error_transposed=max(transposed, default=None),
    )


def _on_host(trace: Trace) -> Trace:
    """The same trace with its matrices in host memory, and nothing but matrices."""
    chains = tuple(
        replace(chain, M=to_numpy(chain.M), H_pre=None, H_post=None, gram=None, logits=None)
        for chain in trace.chains
    )
    return replace(trace, chains=chains)


def _all_gather(value: tuple[str, ...]) -> list[tuple[str, ...]]:
    import torch.distributed as dist

    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone
