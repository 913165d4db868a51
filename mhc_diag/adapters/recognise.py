"""From tensor names and shapes to sites: which code base wrote a file, and in what order it runs.

Recognition reports its evidence and refuses to guess between two adapters that fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mhc_diag.adapters.adapter import Adapter
from mhc_diag.adapters.registry import adapter_named, adapters
from mhc_diag.adapters.settings import resolve_settings, with_orientation
from mhc_diag.errors import AdapterError, NoHyperConnectionsError
from mhc_diag.trace import Setting, Skipped, Sublayer

LOOKS_LIKE = re.compile(
    r"hyper_?conn|(?:^|[._])m?hc(?:[._]|$)|_m?hc(?:[._]|$)|(?:static|dynamic)_alpha|h_res|sinkhorn",
    re.IGNORECASE,
)
"""Names that look like hyper-connections; those that no adapter takes are reported."""

_SUBLAYERS: dict[str, Sublayer] = {
    "attn": "attn",
    "attention": "attn",
    "mlp": "mlp",
    "ffn": "mlp",
    "ff": "mlp",
}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """What a file's names and shapes say."""

    adapter: Adapter
    sites: tuple[SiteParameters, ...]
    """In execution order, those that cannot be measured included."""
    evidence: tuple[str, ...]
    unclaimed: tuple[str, ...]
    settings: Mapping[str, Setting]

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Sites whose parameters are incomplete or of the wrong shape."""
        return tuple(Skipped(site=one.name, why=one.missing) for one in self.sites if one.missing)

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of the sites in execution order."""
        return tuple(site.name for site in self.sites)

    @property
    def claimed(self) -> tuple[str, ...]:
        """Names of the tensors that an analysis may read."""
        return tuple(
            name for site in self.sites if not site.missing for name in site.tensors.values()
        )


def recognise(
    tensors: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any],
    *,
    adapter: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Recognition:
    """Find the adapter and the sites of a file.

    Args:
        tensors: name -> shape.
        config: plain values of config.json or of the checkpoint itself.
        adapter: take this one, do not choose.
        settings: values given by the user, which win over everything.

    Raises:
        NoHyperConnectionsError: nothing that any adapter knows; says what was looked for.
        AdapterError: two adapters fit, or the named one does not.
    """
    candidates = [adapter_named(adapter)] if adapter else list(adapters().values())
    found = [(one, _sites_of(one, tensors, config)) for one in candidates]
    found = [(one, sites) for one, sites in found if any(not site.missing for site in sites)]
    if not found:
        raise _nothing_found(tensors, adapter)
    chosen, evidence = _choose([entry[0] for entry in found], tensors, config, named=adapter)
    sites = next(sites for one, sites in found if one is chosen)
    measurable = sum(not site.missing for site in sites)
    chosen, given, turned = with_orientation(chosen, settings or {})
    return Recognition(
        adapter=chosen,
        sites=tuple(sites),
        evidence=(f"{measurable} sites with the parameters of {chosen.name}", *evidence),
        unclaimed=_unclaimed(chosen, tensors),
        settings=resolve_settings(chosen, config=config, given=given) | turned,
    )


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key in which 2 stands before 10.

    Example:
        >>> sorted(["h.10", "h.2"], key=natural_key)
        ['h.2', 'h.10']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


def lookup(config: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The first of ``keys`` in the config or in its ``text_config``; None where there is none."""
    for key in keys:
        for place in (config, config.get("text_config")):
            if isinstance(place, Mapping) and place.get(key) is not None:
                return place[key]
    return None


def sublayer_of(word: str | None) -> Sublayer:
    """attn, mlp or other, from the word that a name uses."""
    return _SUBLAYERS.get(word or "", "other")


def _sites_of(
    adapter: Adapter, tensors: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> list[SiteParameters]:
    """All sites of which the file has at least one parameter, in execution order."""
    groups: dict[str, dict[str, str]] = {}
    matches: dict[str, re.Match[str]] = {}
    for name in tensors:
        match = adapter.match(name)
        if match:
            groups.setdefault(match["site"], {})[adapter.roles[match["role"]]] = name
            matches.setdefault(match["site"], match)
    sites = []
    for name, roles in groups.items():
        absent = sorted(set(adapter.roles.values()) - set(roles))
        fit = (
            None if absent else adapter.fits({role: tensors[full] for role, full in roles.items()})
        )
        missing = f"parameters missing: {', '.join(absent)}" if absent else ""
        if fit is None and not absent:
            missing = "shapes do not fit together"
        site = _site(adapter, matches[name], roles, fit or (0, 0), config)
        sites.append(replace(site, missing=missing))
    order = sorted(sites, key=lambda site: _execution_key(site, matches[site.name]))
    return _with_neighbours_streams(order)


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


def _site(
    adapter: Adapter,
    match: re.Match[str],
    roles: Mapping[str, str],
    fit: tuple[int, int],
    config: Mapping[str, Any],
) -> SiteParameters:
    groups = match.groupdict()
    layer = int(groups["layer"]) if groups.get("layer") else None
    chain = groups.get("aux") or "main"
    count = lookup(config, [adapter.layer_count_key]) if adapter.layer_count_key else None
    if chain == "main" and isinstance(count, int) and layer is not None and layer >= count:
        chain = f"mtp.{layer - count}"
    return SiteParameters(
        name=match["site"],
        chain=chain,
        auxiliary=chain != "main",
        layer=layer,
        sublayer=sublayer_of(groups.get("sub")),
        tensors=dict(roles),
        n=fit[0],
        width=fit[1],
    )


def _execution_key(site: SiteParameters, match: re.Match[str]) -> tuple[Any, ...]:
    """Main chain first, blocks in numeric order, attention before MLP."""
    name = site.name
    if match.groupdict().get("sub"):
        rank = {"attn": 0, "mlp": 1}.get(site.sublayer, 2)
        name = f"{name[: match.start('sub')]}{rank}{name[match.end('sub') :]}"
    return (site.auxiliary, natural_key(site.chain), natural_key(name))


def _choose(
    fitting: list[Adapter],
    tensors: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any],
    *,
    named: str | None,
) -> tuple[Adapter, tuple[str, ...]]:
    if named:
        return fitting[0], (f"--adapter {named}",)
    model_type = lookup(config, ["model_type"])
    by_type = [one for one in fitting if model_type in one.model_types]
    if len(by_type) == 1:
        return by_type[0], (f"model_type {model_type!r} in the configuration",)
    if len(fitting) == 1:
        return fitting[0], ("no other adapter fits",)
    marked = {one.name: _marks(one, tensors) for one in fitting}
    best = [one for one in fitting if marked[one.name]]
    if len(best) == 1:
        return best[0], tuple(f"{name} is its own" for name in marked[best[0].name][:1])
    raise AdapterError(
        "recognise the hyper-connections of this file",
        f"the parameters fit {' and '.join(one.name for one in fitting)} alike",
        "Say which with --adapter NAME (adapter=...), or put its config.json beside the weights.",
    )


def _marks(adapter: Adapter, tensors: Mapping[str, tuple[int, ...]]) -> list[str]:
    if any(re.fullmatch(pattern, name) for pattern in adapter.counter_marks for name in tensors):
        return []
    return [name for pattern in adapter.marks for name in tensors if re.fullmatch(pattern, name)]


def _unclaimed(adapter: Adapter, tensors: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(
        name
        for name in tensors
        if LOOKS_LIKE.search(name)
        and not adapter.match(name)
        and not any(re.fullmatch(pattern, name) for pattern in adapter.siblings)
    )


def _nothing_found(tensors: Mapping[str, Any], named: str | None) -> NoHyperConnectionsError:
    close = [name for name in tensors if LOOKS_LIKE.search(name)]
    came = f"none of the {len(tensors)} tensors has the names and shapes of a known implementation"
    if close:
        came += (
            f"; these look like hyper-connections and no adapter took them: {', '.join(close[:5])}"
        )
    looked_for = named or ", ".join(adapters())
    return NoHyperConnectionsError(
        "find hyper-connections",
        f"{came}. Looked for: {looked_for}",
        "If the model has them, pass --model and --tap, or register an adapter.",
    )
