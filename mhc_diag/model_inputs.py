"""What a model was called with: which tokens count, and a hash that tells inputs apart."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def mask_of(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """[T] bool of the tokens that count, where ``attention_mask`` [B, S] was given; else None.

    Args:
        module: whose forward is called; tells which positional argument is the mask.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    mask = kwargs.get("attention_mask")
    if mask is None and args:
        names = list(inspect.signature(module.forward).parameters)[: len(args)]
        mask = dict(zip(names, args, strict=False)).get("attention_mask")
    if mask is None or getattr(mask, "ndim", 0) != 2 or mask.is_floating_point():
        return None
    return mask.detach().bool().flatten()


def digest_of(values: Iterable[Any]) -> bytes:
    """sha256 of all tensors in ``values``, after ``i`` for whole numbers or ``f`` for others.

    Token ids are told apart from anything else, since equal ids mean equal inputs; where there are
    none, the other tensors are hashed. Empty where there is no tensor.
    """
    tensors = list(_tensors(values))
    ids = [one for one in tensors if not one.is_floating_point()]
    if not tensors:
        return b""
    whole = hashlib.sha256()
    for tensor in ids or tensors:
        here = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        here = here.detach().cpu().contiguous()
        whole.update(f"{tuple(here.shape)} {here.dtype}".encode())
        whole.update(here.reshape(-1).view(_bytes()).numpy().tobytes())
    return (b"i" if ids else b"f") + whole.digest()


def _bytes() -> Any:
    import torch

    return torch.uint8


def _tensors(values: Iterable[Any]) -> Iterator[Any]:
    """Tensors in ``values``, and in lists, tuples and mappings among them."""
    for value in values:
        if hasattr(value, "is_floating_point") and hasattr(value, "detach"):
            yield value
        elif isinstance(value, Mapping):
            yield from _tensors(value.values())
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
