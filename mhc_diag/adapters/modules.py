"""From a live model to its sites: modules by class name and by the shapes of their parameters.

Nothing here imports a framework; a module is anything with ``named_modules`` and
``named_parameters``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mhc_diag.adapters.adapter import Adapter
from mhc_diag.adapters.registry import adapter_named, adapters
from mhc_diag.adapters.sites import sublayer_of
from mhc_diag.adapters.taps import Tap
from mhc_diag.errors import AdapterError, NoHyperConnectionsError
from mhc_diag.trace import Sublayer

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_REPLICATING = {"DistributedDataParallel", "DataParallel"}
"""Classes that keep the model under the name ``module``."""
_CLASS_LOOKS_LIKE = re.compile(r"hyper_?conn|mhc|sinkhorn", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveSite:
    """A module that mixes streams."""

    name: str
    """Module path without wrapper segments."""
    module: Any
    hooked: Any
    """The module whose forward shows the streams: itself or a submodule."""
    adapter: Adapter | None
    tap: Tap | None
    n: int | None
    """Streams; None for a tap until it fires."""
    layer: int | None
    sublayer: Sublayer
    missing: str = ""
    """Why it cannot be measured; empty when it can."""


def find_sites(
    model: Any, *, adapter: str | None = None, taps: Mapping[str, Tap] | None = None
) -> tuple[LiveSite, ...]:
    """All sites of ``model`` in module order.

    Args:
        model: an nn.Module.
        adapter: take this one, do not choose.
        taps: pattern over module names -> tap; with taps no adapter is looked for.

    Raises:
        NoHyperConnectionsError: nothing was found; says what was looked for and what the model has.
        AdapterError: modules of two code bases in one model.
    """
    named = dict(_cleanly_named(model))
    if taps:
        return _tapped(named, taps)
    candidates = [adapter_named(adapter)] if adapter else list(adapters().values())
    if adapter and candidates[0].observe is None:
        raise AdapterError(
            f"capture {type(model).__name__} with the adapter {adapter}",
            "it reads parameters alone: no hook on these modules sees streams or H_res",
            "Measure the checkpoint, or give a tap on a module that hands H_res out.",
        )
    sites = [site for name, module in named.items() if (site := _adapted(name, module, candidates))]
    used = sorted({site.adapter.name for site in sites if site.adapter and not site.missing})
    if len(used) > 1:
        raise AdapterError(
            f"find the sites of {type(model).__name__}",
            f"modules of {' and '.join(used)} stand in one model",
            "Choose one with adapter=..., and capture the other part by itself.",
        )
    if not used:
        raise _none_in(model, named, candidates)
    return tuple(sites)


def clean_name(name: str) -> str:
    """Module path without the segments that torch.compile, FSDP and checkpointing insert."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _cleanly_named(model: Any) -> Iterator[tuple[str, Any]]:
    """All modules, by their path without what wraps them."""
    replicating = [
        f"{name}.module".lstrip(".")
        for name, module in model.named_modules()
        if type(module).__name__ in _REPLICATING
    ]
    for name, module in model.named_modules():
        kept = name
        for wrapped in reversed(replicating):  # inner ones first: outer paths stay true
            if f"{kept}.".startswith(f"{wrapped}."):
                kept = wrapped.removesuffix("module") + kept[len(wrapped) + 1 :]
        yield clean_name(kept).strip("."), module


def parameters_by_role(adapter: Adapter, module: Any) -> dict[str, Any]:
    """Role -> parameter, for the parameters that the adapter knows."""
    return {
        adapter.roles[clean_name(name)]: parameter
        for name, parameter in module.named_parameters()
        if clean_name(name) in adapter.roles
    }


def unclaimed_modules(model: Any, sites: tuple[LiveSite, ...]) -> tuple[str, ...]:
    """Names of modules whose class looks like a hyper-connection and that no site stands for."""
    taken = [site.name for site in sites]
    merges = {merge for site in sites if site.adapter for merge in site.adapter.merges}
    return tuple(
        clean
        for clean, module in _cleanly_named(model)
        if clean
        and _CLASS_LOOKS_LIKE.search(type(module).__name__)
        and type(module).__name__ not in merges
        and not any(clean == one or clean.startswith(f"{one}.") for one in taken)
        and not any(one.startswith(f"{clean}.") for one in taken)
    )


def _adapted(name: str, module: Any, candidates: list[Adapter]) -> LiveSite | None:
    """The site that a module is; one of a known class in a form that nobody reads is missing."""
    classes = {cls.__name__ for cls in type(module).__mro__}
    unreadable, alike = None, []
    for adapter in candidates:
        if adapter.observe is None or not classes & set(adapter.classes):
            continue
        if _is_vetoed(adapter, module):
            continue
        found = parameters_by_role(adapter, module)
        fit = adapter.fit({role: tuple(p.shape) for role, p in found.items()})
        if not fit and _is_merge(adapter, classes, found):
            continue
        if fit and len(candidates) > 1 and adapter.is_own and not adapter.is_own(module):
            alike.append(adapter.name)
        elif fit:
            hooked = module.get_submodule(adapter.hook_on) if adapter.hook_on else module
            return _site(name, module, hooked=hooked, adapter=adapter, n=fit[0])
        elif found:
            why = f"its parameters do not fit {adapter.name}: a form that needs a tap"
            unreadable = replace(_site(name, module, hooked=module, adapter=adapter), missing=why)
    if alike:
        raise AdapterError(
            f"recognise {name or 'the model'}, a {type(module).__name__}",
            f"class and parameters are those of {' and '.join(alike)}, its attributes of neither",
            f"Say which with adapter={alike[0]!r}, or give a tap that says how H_res is stored.",
        )
    return unreadable


def _is_vetoed(adapter: Adapter, module: Any) -> bool:
    """Whether the module has a parameter that says that the adapter's are there and not used."""
    return bool(adapter.vetoes) and any(
        re.fullmatch(veto, clean_name(name))
        for veto in adapter.vetoes
        for name, _ in module.named_parameters()
    )


def _is_merge(adapter: Adapter, classes: set[str], found: Mapping[str, Any]) -> bool:
    """Whether it is the end of the chain, of a site's class with some of a site's parameters."""
    return bool(classes & set(adapter.merges)) and set(found) < set(adapter.roles.values())


def width_of(site: LiveSite) -> int | None:
    """C, from the shapes of the module's own parameters; None for a tap."""
    if site.adapter is None:
        return None
    found = parameters_by_role(site.adapter, site.module)
    fit = site.adapter.fit({role: tuple(p.shape) for role, p in found.items()})
    return fit[1] if fit else None


def _tapped(named: Mapping[str, Any], taps: Mapping[str, Tap]) -> tuple[LiveSite, ...]:
    chosen: dict[str, Tap] = {}
    for pattern, tap in taps.items():
        names = [name for name in named if name and _matches(name, pattern)]
        if not names:
            raise NoHyperConnectionsError(
                f"tap {pattern!r}",
                f"no module has such a name; the model has {', '.join(list(named)[1:6])}, ...",
                "Give a pattern over model.named_modules(); each * stands within one segment.",
            )
        chosen |= dict.fromkeys(names, tap)  # of two patterns that fit, the later one counts
    return tuple(
        _site(name, module, hooked=module, tap=chosen[name])
        for name, module in named.items()
        if name in chosen
    )


def _matches(name: str, pattern: str) -> bool:
    """Segment by segment, so that ``*`` stays within one segment of a module path."""
    segments, wanted = name.split("."), pattern.split(".")
    return len(segments) == len(wanted) and all(map(fnmatch.fnmatchcase, segments, wanted))


def _site(
    name: str,
    module: Any,
    *,
    hooked: Any,
    adapter: Adapter | None = None,
    tap: Tap | None = None,
    n: int | None = None,
) -> LiveSite:
    layer = re.search(r"(?:^|\.)(?:layers|blocks|h)\.(\d+)(?:\.|$)", name)
    words = re.findall(r"attention|attn|mlp|ffn|ff", name.rsplit(".", 1)[-1])
    return LiveSite(
        name=name,
        module=module,
        hooked=hooked,
        adapter=adapter,
        tap=tap,
        n=n,
        layer=int(layer[1]) if layer else None,
        sublayer=sublayer_of(words[0] if words else None),
    )


def _none_in(
    model: Any, named: Mapping[str, Any], candidates: list[Adapter]
) -> NoHyperConnectionsError:
    looked_for = ", ".join(sorted({cls for adapter in candidates for cls in adapter.classes}))
    close = [
        name for name, module in named.items() if _CLASS_LOOKS_LIKE.search(type(module).__name__)
    ]
    came = (
        f"none of its {len(named)} modules is one that an adapter knows (looked for {looked_for})"
    )
    if close:
        came += f"; these look like one, in a form no adapter reads: {', '.join(close[:5])}"
    return NoHyperConnectionsError(
        f"find hyper-connections in {type(model).__name__}",
        came,
        "Give taps={pattern: md.tap(...)} for your own module, or register an adapter.",
    )
