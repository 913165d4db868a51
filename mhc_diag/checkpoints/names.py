"""Tensor names without the prefixes that wrappers of the model put in."""

from __future__ import annotations

from collections.abc import Iterable

WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts that DataParallel, torch.compile, FSDP and activation checkpointing insert in names."""


def strip_wrappers(name: str) -> str:
    """A name without wrappers' parts; the last part, the parameter itself, stays.

    >>> strip_wrappers("module._orig_mod.transformer.h.0.hc_attn.static_alpha")
    'transformer.h.0.hc_attn.static_alpha'
    """
    *parents, last = name.split(".")
    return ".".join([*(part for part in parents if part not in WRAPPERS), last])


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Clean name -> raw name, in order; a name that is taken already keeps its wrappers."""
    found: dict[str, str] = {}
    for raw in names:
        clean = strip_wrappers(raw)
        found[raw if clean in found else clean] = raw
    return found
