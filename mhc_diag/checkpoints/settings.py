"""Plain settings beside the weights of a torch file: config, model_args, hyper_parameters, ..."""

from __future__ import annotations

from typing import Any

from mhc_diag.checkpoints.inert import Opaque, TensorRef
from mhc_diag.checkpoints.tree import Budget, children, is_module

MAX_VALUES = 100_000
MAX_TEXT = 100_000
_DEPTH = 8
_LINE = 64
_NAMES = ("config", "args", "hyper_parameters", "hparams", "cfg", "settings")
"""A top-level mapping whose key contains one of these is merged into the settings."""


def plain_config(root: Any) -> dict[str, Any]:
    """Plain values of the top level; mappings named config, model_args, ... are merged in.

    The first of two equal keys wins. Objects such as argparse.Namespace count as their attributes.
    """
    found: dict[str, Any] = {}
    if not isinstance(root, (dict, Opaque)) or (isinstance(root, Opaque) and is_module(root)):
        return found
    budget = Budget(MAX_VALUES)
    for key, value in children(root):
        if isinstance(value, (dict, Opaque)):
            if any(word in key.lower() for word in _NAMES) and not _is_unknown(value):
                for name, item in children(value):
                    _keep(found, name, item, budget)
        elif not isinstance(value, TensorRef):
            _keep(found, key, value, budget)
    return found


def _is_unknown(value: Any) -> bool:
    """Whether a mapping is a foreign object without attributes, of which nothing is known."""
    return isinstance(value, Opaque) and not (value.state or value.items)


def _keep(found: dict[str, Any], key: str, value: Any, budget: Budget) -> None:
    """Add a value that is plain all through and not there yet."""
    if key not in found and is_plain(value, budget):
        found[key] = as_plain(value)


def is_plain(value: Any, budget: Budget, depth: int = _DEPTH) -> bool:
    """Whether a value is made of scalars, lists and dicts, and small enough for a setting."""
    if value is None or isinstance(value, (int, float, str)):
        return _is_short(value, budget)
    if depth == 0 or not budget.spend(_length(value)):
        return False
    if isinstance(value, (list, tuple)):
        return all(is_plain(item, budget, depth - 1) for item in value)
    if isinstance(value, dict) or (isinstance(value, Opaque) and (value.state or value.items)):
        parts = [value] if isinstance(value, dict) else [value.state, value.items]
        return all(
            isinstance(key, (str, int)) and is_plain(item, budget, depth - 1)
            for part in parts
            for key, item in part.items()
        )
    return False


def _is_short(value: float | str | None, budget: Budget) -> bool:
    """Whether a scalar is of a size that a setting can have."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT and budget.spend(len(value) // _LINE)
    return not isinstance(value, int) or abs(value) < 2**63


def _length(value: Any) -> int:
    """Parts of a container, at least 1."""
    if isinstance(value, Opaque):
        return 1 + len(value.state) + len(value.items)
    return 1 + (len(value) if isinstance(value, (dict, list, tuple)) else 0)


def as_plain(value: Any) -> Any:
    """A value that :func:`is_plain`, with lists for tuples and dicts for objects."""
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, Opaque):
        value = {**value.state, **value.items}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    return value
