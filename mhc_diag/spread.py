"""Tensors that torch.distributed spreads over ranks (DTensor): what this rank holds of them.

No function here talks to another rank, so all of them are safe inside a hook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mhc_diag.errors import CaptureError


def is_spread(value: Any) -> bool:
    """Whether there is such a tensor in what a module was given or returned."""
    if isinstance(value, Mapping):
        return any(is_spread(one) for one in value.values())
    if isinstance(value, tuple | list):
        return any(is_spread(one) for one in value)
    return hasattr(value, "to_local")


def part_here(value: Any) -> Any:
    """This rank's tokens, in whatever a module was given or returned.

    Tensors [B, S, ..] that are whole, or cut along batch or sequence, become plain ones; others
    stay as they are, since their part on one rank means nothing by itself.

    Args:
        value: a tensor, or tuples, lists and mappings of them; anything else is returned as it is.
    """
    if hasattr(value, "to_local"):
        return value.detach().to_local() if _is_cut_along_tokens(value) else value
    if type(value) in {tuple, list}:
        return type(value)(part_here(one) for one in value)
    if type(value) is dict:
        return {key: part_here(one) for key, one in value.items()}
    return value


def whole_here(parameter: Any) -> Any:
    """A parameter that is whole on this rank, as a plain tensor.

    Raises:
        CaptureError: this rank has a part of it only.
    """
    if not hasattr(parameter, "to_local"):
        return parameter
    if not all(placement.is_replicate() for placement in parameter.placements):
        raise CaptureError(
            "compute H_res from a module's parameters",
            f"each rank has a part of them ({parameter.placements})",
            "Keep the parameters of hyper-connections whole on every tensor-parallel rank.",
        )
    return parameter.to_local()


def _is_cut_along_tokens(tensor: Any) -> bool:
    """Streams and matrices have two axes behind the tokens, weights of streams one."""
    last = tensor.ndim - (2 if tensor.ndim > 3 else 1)
    return all(
        placement.is_replicate() or (placement.is_shard() and placement.dim < last)
        for placement in tensor.placements
    )
