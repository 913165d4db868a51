"""Text that every Python installation has: the source of its own standard library, as bytes."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch
from torch import Tensor

from mhc_diag.errors import ModelError

CAP = 2_000_000
"""Bytes that are read at most."""
LEAST = 100_000
"""With fewer bytes there is nothing to train on."""


def standard_library_bytes(cap: int = CAP) -> Tensor:
    """The ``*.py`` files of the standard library, by name, one after the other: uint8 ``[N]``.

    The same installation always gives the same bytes; another Python version gives others.

    Raises:
        ModelError: the library lies in no readable folder (frozen or zipped Python).
    """
    folder = Path(sysconfig.get_path("stdlib"))
    text = bytearray()
    for path in sorted(folder.glob("*.py")):
        text += path.read_bytes()
        if len(text) >= cap:
            break
    if len(text) < LEAST:
        raise ModelError(
            "read the source text of the standard library",
            f"{str(folder)!r} holds {len(text)} bytes of it",
            "Run this with a Python whose standard library lies unpacked on disk.",
        )
    return torch.frombuffer(text[:cap], dtype=torch.uint8)


def sample_ids() -> Tensor:
    """The same 512 tokens every time, int64 ``[8, 64]``: ``--inputs mhc_diag.zoo.data:sample_ids``.

    Raises:
        ModelError: as :func:`standard_library_bytes`.
    """
    generator = torch.Generator().manual_seed(0)
    return draw_batch(standard_library_bytes(), generator, batch=8, context=63)


def draw_batch(text: Tensor, generator: torch.Generator, *, batch: int, context: int) -> Tensor:
    """``batch`` random stretches of ``context + 1`` bytes: int64 ``[batch, context + 1]``."""
    starts = torch.randint(len(text) - context, (batch, 1), generator=generator)
    return text[starts + torch.arange(context + 1)].long()
