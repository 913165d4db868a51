"""The sites of a file: which tensors belong together, in which chain, in which order they run.

A chain is told by what stands before the block number in a name: ``encoder.layers.3`` and
``decoder.layers.3`` are two chains, and matrices of different chains are never multiplied. A site
that ought to be there and is not stays in its place as missing, so that no product leaps over it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mhc_diag.adapters.adapter import Adapter
from mhc_diag.adapters.settings import lookup
from mhc_diag.trace import Sublayer

_SUBLAYERS: dict[str, Sublayer] = {
    "attn": "attn",
    "attention": "attn",
    "self_attention": "attn",
    "mlp": "mlp",
    "ffn": "mlp",
    "ff": "mlp",
}
_CONTAINERS = re.compile(r"(?:^|\.)(?:layers?|blocks?|h|stages?)$")
_COPY = re.compile(r"(?:^|[._])(?:ema|shadow|teacher|target|swa|averaged?|momentum)(?:[._]|$)")
"""Words for a second copy of a model's weights, kept beside the one that is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteParameters:
    """The tensors of one site."""

    name: str
    chain: str
    auxiliary: bool
    layer: int | None
    sublayer: Sublayer
    tensors: Mapping[str, str]
    """Role -> full tensor name."""
    n: int
    """Streams; a site that cannot be measured takes its neighbour's."""
    width: int
    missing: str = ""
    """Why the site cannot be measured; empty when it can."""
    template: str = ""
    """The name with ``{}`` for the block's number; empty where there is none."""
    order: tuple[Any, ...] = ()
    """Sort key of execution order within its chain."""


def sites_of(
    adapter: Adapter, tensors: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> list[SiteParameters]:
    """All sites that a file has or ought to have, chain after chain, in execution order.

    Args:
        adapter: whose names and shapes to look for.
        tensors: name -> shape.
        config: says how many ordinary layers there are, where the adapter knows the key.
    """
    if any(re.fullmatch(veto, name) for veto in adapter.vetoes for name in tensors):
        return []
    groups: dict[str, dict[str, str]] = {}
    matches: dict[str, re.Match[str]] = {}
    for name in tensors:
        match = adapter.match(name)
        if match:
            groups.setdefault(match["site"], {})[adapter.roles[match["role"]]] = name
            matches.setdefault(match["site"], match)
    count = lookup(config, [adapter.layer_count_key]) if adapter.layer_count_key else None
    n_layers = count if isinstance(count, int) else None
    sites = [
        _site(adapter, matches[name], roles, {r: tensors[t] for r, t in roles.items()}, n_layers)
        for name, roles in groups.items()
    ]
    sites = _without_copies(_chained(sites))
    sites += _holes(sites, n_layers)
    sites.sort(key=lambda site: (site.auxiliary, _rank(site.chain), site.order))
    return _with_neighbours_streams(sites)


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key in which 2 stands before 10.

    Example:
        >>> sorted(["h.10", "h.2"], key=natural_key)
        ['h.2', 'h.10']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


def sublayer_of(word: str | None) -> Sublayer:
    """attn, mlp or other, from the word that a name uses."""
    return _SUBLAYERS.get(word or "", "other")


def _site(
    adapter: Adapter,
    match: re.Match[str],
    roles: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    n_layers: int | None,
) -> SiteParameters:
    name, groups = match["site"], match.groupdict()
    absent = sorted(set(adapter.roles.values()) - set(roles))
    fit = adapter.fit(shapes)
    missing = f"parameters missing: {', '.join(absent)}" if absent else ""
    layer = int(groups["layer"]) if groups.get("layer") else None
    chain = groups.get("aux") or stem_of(name)
    auxiliary = bool(groups.get("aux"))
    if not auxiliary and n_layers is not None and layer is not None and layer >= n_layers:
        chain, auxiliary = f"mtp.{layer - n_layers}", True
    template = ""
    if layer is not None:
        template = f"{name[: match.start('layer')]}{{}}{name[match.end('layer') :]}"
    return SiteParameters(
        name=name,
        chain=chain,
        auxiliary=auxiliary,
        layer=layer,
        sublayer=sublayer_of(groups.get("sub")),
        tensors=dict(roles),
        n=fit[0] if fit else 0,
        width=fit[1] if fit else 0,
        missing=missing or ("" if fit else "shapes do not fit together"),
        template=template,
        order=_order(match),
    )


def stem_of(name: str) -> str:
    """What stands before the first number of a name, without the word for a list of blocks."""
    number = re.search(r"(?:^|\.)\d+(?:\.|$)", name)
    return _CONTAINERS.sub("", name[: number.start()]) if number else ""


def _order(match: re.Match[str]) -> tuple[Any, ...]:
    """Blocks in numeric order, attention before MLP, whatever the two are called."""
    name = match["site"]
    if match.groupdict().get("sub"):
        rank = {"attn": 0, "mlp": 1}[sublayer_of(match["sub"])]
        name = f"{name[: match.start('sub')]}{rank}{name[match.end('sub') :]}"
    return natural_key(name)


def _chained(sites: list[SiteParameters]) -> list[SiteParameters]:
    """Where there is only one chain beside the auxiliary ones, it is ``main``."""
    stems = {site.chain for site in sites if not site.auxiliary}
    if len(stems) > 1:
        return [replace(site, chain=site.chain or "main") for site in sites]
    return [site if site.auxiliary else replace(site, chain="main") for site in sites]


def _without_copies(sites: list[SiteParameters]) -> list[SiteParameters]:
    """Leave out an EMA or teacher copy where the weights that it is a copy of are there too."""
    tails: dict[str, set[str]] = {}
    for site in sites:
        tails.setdefault(site.chain, set()).add(_tail(site))
    copies = {
        chain
        for chain, tail in tails.items()
        if _COPY.search(chain)
        and any(other == tail for name, other in tails.items() if not _COPY.search(name))
    }
    return _chained([site for site in sites if site.chain not in copies])


def _tail(site: SiteParameters) -> str:
    """The site's name behind its chain's."""
    return site.name.removeprefix(stem_of(site.name))


def _rank(chain: str) -> tuple[Any, ...]:
    """Encoders run before decoders; other chains stand in natural order."""
    words = re.split(r"[._]", chain)
    return (("encoder" not in words) + ("decoder" in words), natural_key(chain))


def _holes(sites: Sequence[SiteParameters], n_layers: int | None) -> list[SiteParameters]:
    """Sites that most blocks have and some do not have at all: a shard that was left out, say."""
    missing = []
    for template in {site.template for site in sites if site.template and not site.auxiliary}:
        same = {site.layer: site for site in sites if site.template == template}
        kin = [site for site in sites if site.chain == next(iter(same.values())).chain]
        numbers = [site.layer for site in kin if site.layer is not None]
        low, high = (0, n_layers) if n_layers else (min(numbers), max(numbers) + 1)
        holes = [layer for layer in range(low, high) if layer not in same]
        if len(same) <= len(holes):
            continue  # most blocks lack it: that is how the model is built
        model = next(iter(same.values()))
        for layer in holes:
            name = template.format(layer)
            missing.append(
                replace(
                    model,
                    name=name,
                    layer=layer,
                    tensors={},
                    n=0,
                    width=0,
                    missing="the file has no parameters of this site",
                    order=_moved(model, layer),
                )
            )
    return missing


def _moved(site: SiteParameters, layer: int) -> tuple[Any, ...]:
    """The order key of the same site in another block."""
    place = len(natural_key(site.template.split("{}")[0]))
    return (*site.order[:place], (0, layer), *site.order[place + 1 :])


def _with_neighbours_streams(sites: list[SiteParameters]) -> list[SiteParameters]:
    """A site that cannot be measured stays in its place, with the streams of its chain."""
    filled: list[SiteParameters] = []
    for index, site in enumerate(sites):
        if site.missing:
            around = [*reversed(filled), *(one for one in sites[index:] if not one.missing)]
            near = next((one for one in around if one.chain == site.chain and one.n), None)
            site = replace(site, n=near.n if near else 1)  # noqa: PLW2901  the same site, completed
        filled.append(site)
    return filled
