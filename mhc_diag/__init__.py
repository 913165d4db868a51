"""mhc-diag: the stability microscope for models with hyper-connections.

Everything public is here; nothing heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Analysis": "mhc_diag.analysis",
    "Chain": "mhc_diag.trace",
    "Comparison": "mhc_diag.comparison",
    "Finding": "mhc_diag.rules.records",
    "Monitor": "mhc_diag.runs.monitor",
    "MhcDiagError": "mhc_diag.errors",
    "Site": "mhc_diag.trace",
    "Trace": "mhc_diag.trace",
    "analyze": "mhc_diag.pipeline",
    "capture": "mhc_diag.live",
    "compare": "mhc_diag.comparison",
    "gate": "mhc_diag.limits",
    "load_trace": "mhc_diag.tracefile",
    "read_run": "mhc_diag.runs.read",
    "register_adapter": "mhc_diag.adapters.registry",
    "report": "mhc_diag.render",
    "tap": "mhc_diag.adapters.taps",
}
"""Public name -> the module that defines it."""

__all__ = sorted([*_HOME, "__version__"])  # noqa: PLE0605  generated, so that it cannot drift


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import mhc_diag`` costs nothing."""
    if name not in _HOME:
        raise AttributeError(
            f"module 'mhc_diag' has no attribute {name!r}; it has {', '.join(_HOME)}"
        )
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
