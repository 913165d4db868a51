"""What the ranks of a job tell one another: at attach, and once per recorded step.

Nothing is exchanged inside a hook. At attach every rank says which sites it holds; a recorded step
costs one gather of the sampled matrices to rank 0, where every number is computed once; the first
recorded step also brings back whether that went well, so that a refusal ends all ranks alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mhc_diag.adapters.modules import LiveSite, find_sites
from mhc_diag.adapters.taps import Tap
from mhc_diag.arrays import to_numpy
from mhc_diag.errors import MhcDiagError, NoHyperConnectionsError, OptionError
from mhc_diag.runs.merging import stacked_names
from mhc_diag.runs.parts import GIVE_A_MESH, Layout, Part
from mhc_diag.trace import Trace

_REPLICAS = (
    *("dp", "ddp", "fsdp", "replicate", "shard", "data"),
    *("cp", "context", "sp", "sequence", "ep", "expert"),
)
_COPIES = ("tp", "tensor")
_STAGES = ("pp", "pipe", "pipeline")
_ASKED = "monitor a parallel job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one rank says at attach."""

    layout: Layout
    names: tuple[str, ...] = ()
    """Of its sites."""
    errors: tuple[MhcDiagError, ...] = ()
    """Why it has none, or not those of a tap; or why its model could not be read."""


def layout_of(mesh: Any) -> Layout:
    """This rank's place, from torch.distributed and a DeviceMesh with named dimensions, or None.

    Raises:
        OptionError: a mesh that does not hold all ranks, or one of whose dimensions has a name that
            does not say what it does.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return Layout()
    here = Layout(rank=dist.get_rank(), world=dist.get_world_size())
    if mesh is None:
        return here
    if mesh.size() != here.world:
        raise OptionError(
            _ASKED,
            f"the mesh holds {mesh.size()} of {here.world} ranks",
            "Pass the mesh of the whole job, not one that was sliced from it.",
        )
    at = {"replicas": (0, 1), "copies": (0, 1), "stages": (0, 1)}
    for place, name in enumerate(mesh.mesh_dim_names or [""] * mesh.ndim):
        kind = _kind_of(name)
        index, total = at[kind]
        size = mesh.size(place)
        at[kind] = index * size + mesh.get_local_rank(place), total * size
    (replica, n_replicas), (copy, n_copies), (stage, _) = at.values()
    return replace(
        here,
        replica=replica,
        n_replicas=n_replicas,
        stage=stage,
        copy=copy,
        n_copies=n_copies,
        declared=True,
    )


def sites_here(
    model: Any, *, adapter: str | None, taps: Mapping[str, Tap] | None
) -> tuple[tuple[LiveSite, ...], tuple[MhcDiagError, ...]]:
    """The sites of this rank's model; a tap may be for another pipeline stage."""
    sites: list[LiveSite] = []
    errors: list[MhcDiagError] = []
    for one in [{pattern: tap} for pattern, tap in taps.items()] if taps else [None]:
        try:
            sites += find_sites(model, adapter=adapter, taps=one)
        except MhcDiagError as error:
            errors.append(error)
    return tuple(sites), tuple(errors)


def settle(
    layout: Layout, model: Any, names: Sequence[str], errors: tuple[MhcDiagError, ...]
) -> tuple[Layout, tuple[str, ...]]:
    """The layout once all ranks have said what they hold; every rank must call it.

    Args:
        layout: as :func:`layout_of` gave it.
        model: this rank's model.
        names: of its sites.
        errors: why it has none, or not all.

    Returns:
        The layout, and the names of the sites of the whole depth.

    Raises:
        MhcDiagError: the one that came, when some rank's model could not be read or no rank has
            sites; an OptionError when ranks hold overlapping sets of sites and no mesh says why.
    """
    layout = replace(layout, holds=bool(names))
    if layout.world > 1 and not layout.declared:
        layout = replace(layout, parameters=_digest_of(model))
    everyone = _all_gather(Held(layout=layout, names=tuple(names), errors=errors))
    _check_errors(everyone)
    if layout.declared:
        _check_declared(everyone)
    else:
        everyone = _told(everyone)
    stages = {one.layout.stage: one.names for one in everyone if one.names}
    whole = tuple(name for held in stacked_names(stages).values() for name in held)
    return everyone[layout.rank].layout, whole


def gather(part: Part) -> list[Part] | None:
    """All ranks' parts on the rank that writes; None on the others. All ranks must call it."""
    layout = part.layout
    if layout.world == 1:
        return [part]
    import torch.distributed as dist

    if part.trace is not None:
        part = replace(part, trace=_on_host(part.trace))
    parts: list[Any] | None = [None] * layout.world if layout.writes else None
    dist.gather_object(part, parts, dst=0)
    return parts


def agree(layout: Layout, answer: Any, error: MhcDiagError | None = None) -> Any:
    """What the writing rank says; its error ends all ranks. All ranks must call it.

    Raises:
        MhcDiagError: the writing rank's.
    """
    box: list[Any] = [(answer, error)]
    if layout.world > 1:
        import torch.distributed as dist

        dist.broadcast_object_list(box, src=0)
    said, refusal = box[0]
    if refusal is not None:
        raise refusal
    return said


def digest_of_tokens(trace: Trace) -> str:
    """Differs between ranks that saw different tokens, even while M is the same for all of them."""
    digest = hashlib.sha256()
    for chain in trace.chains:
        for array in (chain.M, chain.gram, chain.H_pre):
            if array is not None:
                digest.update(to_numpy(array).tobytes())
    return digest.hexdigest()


def _kind_of(name: str) -> str:
    """What the ranks along a mesh dimension of this name are to one another."""
    words = name.lower().split("_")
    for kind, known in (("stages", _STAGES), ("replicas", _REPLICAS), ("copies", _COPIES)):
        if any(word in known for word in words):
            return kind
    raise OptionError(
        f"mesh dimension {name!r}",
        "its name does not say whether its ranks see other tokens, other layers or copies",
        f"Name it as one of {', '.join((*_STAGES, *_REPLICAS, *_COPIES))}.",
    )


def _check_errors(everyone: Sequence[Held]) -> None:
    """No sites, or none for a tap, is an error only where it is so on all ranks."""
    found = [error for one in everyone for error in one.errors]
    fatal = [one for one in found if not isinstance(one, NoHyperConnectionsError)]
    asked = [{error.asked for error in one.errors} for one in everyone]
    everywhere = set.intersection(*asked)
    nowhere = [one for one in found if one.asked in everywhere]
    if not any(one.names for one in everyone):
        nowhere = nowhere or found
    for error in (*fatal, *nowhere):
        raise error


def _check_declared(everyone: Sequence[Held]) -> None:
    """Ranks of one stage must hold the same sites."""
    first: dict[int, Held] = {}
    for one in everyone:
        other = first.setdefault(one.layout.stage, one)
        if other.names != one.names:
            raise OptionError(
                _ASKED,
                f"ranks {other.layout.rank} and {one.layout.rank} hold different sites although "
                "the mesh puts them on one pipeline stage",
                "Name the dimension that runs over the layers 'pp'.",
            )


def _told(everyone: Sequence[Held]) -> list[Held]:
    """Without a mesh: equal sets of sites are replicas, disjoint ones are stages."""
    holders = [one for one in everyone if one.names]
    kinds = {one.names for one in holders}
    if len(kinds) == 1 and len(holders) in (1, len(everyone)):
        place = {one.layout.rank: index for index, one in enumerate(holders)}
        return [
            replace(
                one,
                layout=replace(
                    one.layout,
                    replica=place.get(one.layout.rank, 0),
                    n_replicas=len(holders),
                ),
            )
            for one in everyone
        ]
    if len(kinds) == 1:
        raise OptionError(
            _ASKED,
            f"{len(holders)} of {len(everyone)} ranks have sites, with equal names: pipeline "
            "stages that number their layers from 0, or pipeline and data parallel",
            GIVE_A_MESH,
        )
    names = [name for one in holders for name in one.names]
    if len(set(names)) < len(names):
        raise OptionError(
            _ASKED,
            "ranks hold different sites, and some hold the same: pipeline and data parallel",
            GIVE_A_MESH,
        )
    return [replace(one, layout=replace(one.layout, stage=one.layout.rank)) for one in everyone]


def _digest_of(model: Any) -> str:
    """Of a few numbers of each parameter: equal on replicas, different on pipeline stages."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None:  # each rank has a part of its own; those that share it are replicas
            digest.update(f"{mesh.mesh.flatten().tolist()}".encode())
        elif parameter.device.type != "meta":
            digest.update(to_numpy(parameter.detach().flatten()[:4].cpu()).tobytes())
    return digest.hexdigest()


def _on_host(trace: Trace) -> Trace:
    """The same trace with its matrices in host memory, and nothing but matrices."""
    chains = tuple(
        replace(chain, M=to_numpy(chain.M), H_pre=None, H_post=None, gram=None, logits=None)
        for chain in trace.chains
    )
    return replace(trace, chains=chains)


def _all_gather(held: Held) -> list[Held]:
    if held.layout.world == 1:
        return [held]
    import torch.distributed as dist

    everyone: list[Any] = [None] * held.layout.world
    dist.all_gather_object(everyone, held)
    return everyone
