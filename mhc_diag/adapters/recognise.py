"""From tensor names and shapes to sites: which code base wrote a file, and in what order it runs.

Recognition reports its evidence and refuses to guess between two adapters that fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mhc_diag.adapters.adapter import Adapter
from mhc_diag.adapters.registry import adapter_named, adapters
from mhc_diag.adapters.settings import lookup, resolve_settings, with_orientation
from mhc_diag.adapters.sites import SiteParameters, sites_of
from mhc_diag.errors import AdapterError, NoHyperConnectionsError
from mhc_diag.trace import Setting, Skipped

LOOKS_LIKE = re.compile(
    r"hyper_?conn|(?:^|[._])m?hc(?:[._]|$)|_m?hc(?:[._]|$)|(?:static|dynamic)_alpha|h_res|sinkhorn",
    re.IGNORECASE,
)
"""Names that look like hyper-connections; those that no adapter takes are reported."""


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
    found = [(one, sites_of(one, tensors, config)) for one in candidates]
    found = [(one, sites) for one, sites in found if any(not site.missing for site in sites)]
    if not found:
        raise _nothing_found(tensors, adapter, config)
    chosen, evidence = _choose([entry[0] for entry in found], tensors, config, named=adapter)
    sites = next(sites for one, sites in found if one is chosen)
    measurable = sum(not site.missing for site in sites)
    chosen, given, turned = with_orientation(chosen, settings or {})
    return Recognition(
        adapter=chosen,
        sites=tuple(sites),
        evidence=(f"{measurable} sites with the parameters of {chosen.name}", *evidence),
        unclaimed=_unclaimed(chosen, tensors, sites),
        settings=resolve_settings(chosen, config=config, given=given) | turned,
    )


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


def _unclaimed(
    adapter: Adapter, tensors: Mapping[str, tuple[int, ...]], sites: list[SiteParameters]
) -> tuple[str, ...]:
    """Names that look like hyper-connections and that no site stands for."""
    taken = {name for site in sites for name in site.tensors.values()}
    return tuple(
        name
        for name in tensors
        if LOOKS_LIKE.search(name)
        and name not in taken
        and not any(re.fullmatch(pattern, name) for pattern in adapter.siblings)
    )


def _nothing_found(
    tensors: Mapping[str, tuple[int, ...]], named: str | None, config: Mapping[str, Any]
) -> NoHyperConnectionsError:
    """Why there is nothing; an adapter that was named in vain may hide another that fits."""
    others = [
        one.name
        for one in (adapters().values() if named else ())
        if any(not site.missing for site in sites_of(one, tensors, config))
    ]
    if others:
        return NoHyperConnectionsError(
            f"find hyper-connections with the adapter {named}",
            f"the parameters are those of {' or '.join(others)}",
            f"Leave the adapter out, or take {' or '.join(others)}.",
        )
    came = f"none of the {len(tensors)} tensors has the names and shapes of "
    came += f"the adapter {named}" if named else f"one of the {len(adapters())} known adapters"
    if close := [name for name in tensors if LOOKS_LIKE.search(name)]:
        came += (
            f"; these look like hyper-connections and no adapter took them: {', '.join(close[:5])}"
        )
    error = NoHyperConnectionsError(
        "find hyper-connections",
        came,
        "If the model has them, pass --model and --tap, or register an adapter "
        "('mhc-diag adapters' lists those that are known).",
    )
    if not named:
        error.add_note(f"Looked for: {', '.join(adapters())}")
    return error
