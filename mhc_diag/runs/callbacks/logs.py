"""What a callback adds to its trainer's own logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mhc_diag.errors import OptionError

LOGGED: tuple[str, ...] = (
    "composite.forward.amax.mean",
    "composite.backward.amax.mean",
    "composite.forward.norm.max",
    "composite.backward.norm.max",
)
"""The gate's numbers and what cancellation cannot hold down: 4 keys beside the trainer's loss."""


def wanted(logs: Sequence[str] | None, ids: Sequence[str]) -> tuple[str, ...]:
    """The ids that go to the logs: those asked for, or those of ``LOGGED`` that are recorded.

    Raises:
        OptionError: one was asked for that is not recorded.
    """
    if logs is None:
        return tuple(name for name in LOGGED if name in ids)
    for name in logs:
        if name not in ids:
            do = f"Choose of these, or record it with ids=: {', '.join(ids)}."
            raise OptionError("logs of a callback", f"{name!r} is not recorded", do)
    return tuple(logs)


def chosen(numbers: Mapping[str, float] | None, ids: Sequence[str]) -> dict[str, float]:
    """``mhc/<id>`` -> its worst value over the sites; empty where nothing was recorded."""
    return {f"mhc/{name}": numbers[name] for name in ids if numbers and name in numbers}
