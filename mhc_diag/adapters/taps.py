"""Reading M from a module that nobody wrote an adapter for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from mhc_diag.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """How to read the maps from one firing of a module; made by :func:`tap`."""

    H_res: Callable[[Any, tuple[Any, ...], Any], Any]
    stored: Literal["M", "M^T"]
    streams: Callable[[Any, tuple[Any, ...], Any], Any] | None = None
    H_post: Callable[[Any, tuple[Any, ...], Any], Any] | None = None


def tap(
    H_res: Callable[[Any, tuple[Any, ...], Any], Any],
    *,
    stored: Literal["M", "M^T"] = "M",
    streams: Callable[[Any, tuple[Any, ...], Any], Any] | None = None,
    H_post: Callable[[Any, tuple[Any, ...], Any], Any] | None = None,
) -> Tap:
    """Say where a module shows its H_res.

    Args:
        H_res: ``(module, args, output) -> [..., n, n]``, called after each forward of the module.
        stored: "M" if the module computes x' = H_res x (row = destination), "M^T" if it computes
            x' = H_res^T x. A wrong word swaps forward and backward; give ``streams`` and ``H_post``
            and the closure proof checks it.
        streams: ``-> [..., n, C]``, the streams entering the site; optional.
        H_post: ``-> [..., n]``; optional.

    Raises:
        OptionError: ``stored`` is neither word.

    Example:
        >>> tap(lambda module, args, output: output[1], stored="M^T").stored
        'M^T'
    """
    if stored not in ("M", "M^T"):
        raise OptionError("a tap", f"stored={stored!r}", "Give stored='M' or stored='M^T'.")
    return Tap(H_res=H_res, stored=stored, streams=streams, H_post=H_post)
