"""From parameters alone to a trace: the static and the isotropic probe.

Letters: L sites, T tokens, n streams, C width. Static is the matrix at zero dynamic input, one
"token". Isotropic draws x ~ N(0, I) [n, C] for each site by itself and normalises it as the
module's own norm does: how far the matrices move around static, not a measurement on data.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mhc_diag.adapters.adapter import Adapter
from mhc_diag.adapters.recognise import Recognition, recognise
from mhc_diag.adapters.settings import lookup
from mhc_diag.adapters.sites import SiteParameters
from mhc_diag.errors import OptionError
from mhc_diag.families.hc import Maps
from mhc_diag.trace import (
    Chain,
    Coverage,
    Model,
    Orientation,
    Precision,
    Probe,
    Site,
    Source,
    Trace,
)

if TYPE_CHECKING:
    from mhc_diag.checkpoints.checkpoint import Checkpoint


def static_trace(
    checkpoint: Checkpoint,
    *,
    probe: Literal["static", "isotropic"] = "static",
    adapter: str | None = None,
    tokens: int = 256,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Trace:
    """Measure a checkpoint without running its model.

    Args:
        checkpoint: an open checkpoint; only hyper-connection tensors are read, site by site.
        probe: "static", or "isotropic" with ``tokens`` draws per site.
        adapter: take this adapter, do not choose.
        tokens: draws of the isotropic probe.
        seed: of the isotropic probe.
        settings: values that the weights do not say.

    Raises:
        NoHyperConnectionsError: no adapter knows the tensors.
        AdapterError: two adapters fit.
        OptionError: a setting that the adapter does not have, or fewer than one draw.
    """
    if tokens < 1:
        raise OptionError(
            "the isotropic probe", f"{tokens} draws", "Ask for at least one: --tokens 256."
        )
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    found = recognise(shapes, checkpoint.config, adapter=adapter, settings=settings)
    draws = tokens if probe == "isotropic" and found.adapter.input_dependent else None
    chains = _chains(checkpoint, found, draws=draws, seed=seed)
    return Trace(
        source=Source(
            path=checkpoint.path,
            format=checkpoint.format,
            bytes_read=checkpoint.bytes_read,
            step=checkpoint.step,
        ),
        model=_model(checkpoint, found, computed=str(chains[0].M.dtype), static=draws is None),
        orientation=Orientation(stored=found.adapter.stored),
        probe=Probe(
            kind=probe,
            tokens=draws or 1,
            seed=seed if draws else None,
            inputs="x ~ N(0, I), drawn at every site" if draws else "zero dynamic input",
        ),
        coverage=Coverage(
            expected=len(found.sites),
            measured=len(found.sites) - len(found.skipped),
            skipped=found.skipped,
            unclaimed=found.unclaimed,
        ),
        chains=chains,
    )


def _model(checkpoint: Checkpoint, found: Recognition, *, computed: str, static: bool) -> Model:
    specs = found.adapter.settings
    return Model(
        adapter=found.adapter.name,
        family=found.adapter.family,
        width=next(site.width for site in found.sites if not site.missing),
        precision=_precision(found.adapter, checkpoint, computed),
        settings={
            name: setting
            for name, setting in found.settings.items()
            if setting.source != "assumed" or not (static and specs[name].dynamic_only)
        },
        input_dependent=found.adapter.input_dependent,
    )


def _chains(
    checkpoint: Checkpoint, found: Recognition, *, draws: int | None, seed: int
) -> tuple[Chain, ...]:
    """Sites of one chain and one number of streams follow one another; others are never joined."""
    chains: list[Chain] = []
    start = 0
    for (name, n), group in groupby(found.sites, key=lambda site: (site.chain, site.n)):
        chain = _chain(checkpoint, found, list(group), start=start, draws=draws, seed=seed)
        taken = {one.name for one in chains}
        chains.append(chain if name not in taken else _renamed(chain, f"{name}.n{n}.site{start}"))
        start += chain.n_sites
    return tuple(chains)


def _chain(
    checkpoint: Checkpoint,
    found: Recognition,
    sites: list[SiteParameters],
    *,
    start: int,
    draws: int | None,
    seed: int,
) -> Chain:
    """Measure the sites one after the other; those that cannot be measured hold NaN."""
    settings = {name: setting.value for name, setting in found.settings.items()}
    maps: list[Maps | None] = []
    for index, site in enumerate(sites, start):
        if site.missing:
            maps.append(None)
            continue
        P = _parameters(checkpoint, found.adapter, site, static=draws is None)
        x = None if draws is None else _isotropic(site, draws, seed=seed, index=index)
        maps.append(found.adapter.maps(P, x, site.n, settings))
    T, n = draws or 1, sites[0].n
    return Chain(
        name=sites[0].chain,
        auxiliary=sites[0].auxiliary,
        sites=tuple(
            Site(
                index=index,
                chain=site.chain,
                name=site.name,
                layer=site.layer,
                sublayer=site.sublayer,
            )
            for index, site in enumerate(sites, start)
        ),
        M=_turned(found.adapter, _stack(maps, "H_res", (T, n, n))),
        measured=tuple(one is not None for one in maps),
        H_pre=_stack(maps, "H_pre", (T, n)),
        H_post=_stack(maps, "H_post", (T, n)),
        logits=_turned(found.adapter, _stack(maps, "logits", (T, n, n))),
    )


def _turned(adapter: Adapter, stored: np.ndarray[Any, Any] | None) -> Any:
    """As stored -> as applied; the one place where static matrices are transposed."""
    return np.swapaxes(stored, -1, -2) if stored is not None and adapter.stored == "M^T" else stored


def _renamed(chain: Chain, name: str) -> Chain:
    """The chain under another name: sites with another number of streams are never multiplied."""
    from dataclasses import replace

    return replace(chain, name=name, sites=tuple(replace(site, chain=name) for site in chain.sites))


def _stack(
    maps: list[Maps | None], field: str, shape: tuple[int, ...]
) -> np.ndarray[Any, Any] | None:
    """[L, *shape] of one field; NaN where a site has no maps, None where maps have no such field.

    A map that does not depend on the token is the same for every token.
    """
    have = [getattr(one, field) for one in maps if one is not None]
    if not have or any(array is None for array in have):
        return None
    empty = np.full(shape, np.nan, dtype=have[0].dtype)
    rows = [empty if one is None else np.broadcast_to(getattr(one, field), shape) for one in maps]
    return np.stack(rows)


def _parameters(
    checkpoint: Checkpoint, adapter: Adapter, site: SiteParameters, *, static: bool
) -> dict[str, Any]:
    """The site's tensors; the dynamic ones are not even read for the static probe."""
    return {
        role: _computed(checkpoint.read(name))
        for role, name in site.tensors.items()
        if not (static and role in adapter.dynamic_roles)
    }


def _computed(parameter: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32, in which implementations compute H_res, unless the file holds more."""
    return parameter if parameter.dtype == np.float64 else parameter.astype(np.float32, copy=False)


def _isotropic(site: SiteParameters, draws: int, *, seed: int, index: int) -> np.ndarray[Any, Any]:
    """x [draws, n, C] of the site, independent of every other site's."""
    generator = np.random.default_rng([seed, index])
    return generator.standard_normal((draws, site.n, site.width), dtype=np.float32)


def _precision(adapter: Adapter, checkpoint: Checkpoint, computed: str) -> Precision:
    """What is computed here, and the dtype of the streams where a configuration names it."""
    streams = lookup(checkpoint.config, ("torch_dtype", "dtype"))
    known = {"float64", "float32", "bfloat16", "float16"}
    name = str(streams).removeprefix("torch.")
    applied = name if adapter.applies_in == "streams" and name in known else computed
    return Precision(computed=computed, applied=applied)
