"""Limits on metric ids: patterns to ids, and which value breaks which bound."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np

from mhc_diag.errors import OptionError
from mhc_diag.rules.records import Limit

GAIN_PATTERN = "composite.*.amax.mean"
"""The ids that ``max_gain`` bounds."""
DEFAULT_LIMITS: Mapping[str, Limit] = {GAIN_PATTERN: Limit(max=2.0)}
"""Taken where nothing else is said: the paper's mHC peaks near 1.6, its HC near 3000."""
_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A value that breaks a bound."""

    value: float
    site: int
    side: Literal["max", "min", "nan", "inf"]


def resolve(limits: Mapping[str, Limit], known: Iterable[str]) -> dict[str, Limit]:
    """Metric id -> its bounds, from ids and patterns.

    Patterns apply in their order and plain ids after them; a later bound replaces an earlier one
    of the same side, so ``composite.forward.amax.mean`` overrides ``composite.*.amax.mean``.

    Raises:
        OptionError: a pattern that matches no id, or a bound that is not a number.
    """
    ids = list(known)
    found: dict[str, Limit] = {}
    for pattern in sorted(limits, key=lambda text: not _WILD & set(text)):
        limit = limits[pattern]
        _require_numbers(pattern, limit)
        hits = [name for name in ids if name == pattern or fnmatchcase(name, pattern)]
        if not hits:
            near = difflib.get_close_matches(pattern, ids, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise OptionError(
                f"limit {pattern!r}",
                "no metric id matches it",
                f"{hint}'mhc-diag metrics' lists all ids.",
            )
        for name in hits:
            before = found.get(name, Limit())
            found[name] = Limit(
                min=before.min if limit.min is None else limit.min,
                max=before.max if limit.max is None else limit.max,
            )
    return {name: found[name] for name in ids if name in found}


def breach(values: np.ma.MaskedArray[Any, Any], limit: Limit) -> Breach | None:
    """The worst value outside the bounds, if any; NaN and infinity are outside every bound.

    Args:
        values: [L], masked where there is no value.
        limit: the bounds, both ends inside.
    """
    data, there = values.data, ~np.ma.getmaskarray(values)
    for side, hit in (("nan", np.isnan(data)), ("inf", np.isinf(data))):
        where = np.flatnonzero(hit & there)
        if where.size:
            site = int(where[0])
            return Breach(
                value=float(data[site]), site=site, side="nan" if side == "nan" else "inf"
            )
    if not there.any():
        return None
    high = int(np.argmax(np.where(there, data, -math.inf)))
    if limit.max is not None and data[high] > limit.max:
        return Breach(value=float(data[high]), site=high, side="max")
    low = int(np.argmin(np.where(there, data, math.inf)))
    if limit.min is not None and data[low] < limit.min:
        return Breach(value=float(data[low]), site=low, side="min")
    return None


def _require_numbers(pattern: str, limit: Limit) -> None:
    for bound in (limit.min, limit.max):
        if bound is not None and not math.isfinite(bound):
            raise OptionError(
                f"limit {pattern!r}",
                f"its bound is {bound}",
                "A bound is a finite number; leave the limit out for none.",
            )
