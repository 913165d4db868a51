"""What an adapter says: how to recognise a code base's hyper-connections, how to read M from it.

An adapter is a declaration. Code stands in it only where data cannot say it: the formula that turns
parameters and streams into maps, and what a module's hook sees. **Orientation is settled here and
nowhere else**: ``stored`` says whether the implementation keeps M or its transpose.

Letters: T tokens, n streams, C width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mhc_diag.families.hc import Maps
from mhc_diag.trace import Array, Family

Shapes = Mapping[str, tuple[int, ...]]
"""Role -> shape of its tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingSpec:
    """One value that the weights do not say."""

    default: Any
    """What the implementation takes when nobody says otherwise."""
    config_keys: tuple[str, ...] = ()
    """Names under which a config.json or a checkpoint's own arguments carry it."""
    from_module: Callable[[Any], Any] | None = None
    """Reads it from a live module; returns None where the module does not say."""
    about: str = ""
    """One clause for people."""
    dynamic_only: bool = False
    """It changes nothing at the static point, so the static probe neither reads nor assumes it."""
    minimum: float | None = None
    """Smallest value that means something, for a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one firing of a module shows; ``...`` are batch and positions, which make the tokens."""

    x: Array | None = None
    """[..., n, C]: streams entering the site; None only where a tap does not show them."""
    H_res: Array | None = None
    """[..., n, n] as stored, where the library hands it out; else it is recomputed from ``x``."""
    H_post: Array | None = None
    """[..., n]"""

    @property
    def n_tokens(self) -> int:
        """T."""
        return math.prod(self.shown.shape[:-2])

    @property
    def is_consistent(self) -> bool:
        """Whether all that is shown has the same tokens."""
        shapes = [one.shape[:-2] for one in (self.x, self.H_res) if one is not None]
        shapes += [one.shape[:-1] for one in (self.H_post,) if one is not None]
        return len({math.prod(shape) for shape in shapes}) == 1

    @property
    def shown(self) -> Array:
        """Whichever of x and H_res there is."""
        return self.x if self.x is not None else self.H_res


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """The translator of one code base."""

    name: str
    title: str
    """One line for ``mhc-diag adapters``."""
    library: str
    """Which code, which version or commit the formulas were checked against."""
    family: Family
    stored: Literal["M", "M^T"]
    roles: Mapping[str, str]
    """Tensor name relative to the site -> role used by ``maps``."""
    patterns: tuple[str, ...]
    """Regular expressions over full tensor names with groups ``site`` and ``role``, optionally
    ``layer``, ``sub`` and ``aux`` (an auxiliary chain's name)."""
    fits: Callable[[Shapes], tuple[int, int] | None]
    """Shapes by role -> (n, C), or None when these are not this adapter's parameters."""
    maps: Callable[[Mapping[str, Array], Array | None, int, Mapping[str, Any]], Maps]
    """(parameters by role, streams [..., n, C] or None for the static point, n, settings) -> maps,
    H_res as stored."""
    dynamic_roles: frozenset[str] = frozenset()
    """Roles that the static point does not need, so that a static analysis need not read them."""
    settings: Mapping[str, SettingSpec] = field(default_factory=dict)
    model_types: tuple[str, ...] = ()
    """``model_type`` values of config.json that name this code base."""
    marks: tuple[str, ...] = ()
    """Regular expressions over other tensor names that speak for it (a learned head, say)."""
    counter_marks: tuple[str, ...] = ()
    """Regular expressions over other tensor names that speak against it."""
    siblings: tuple[str, ...] = ()
    """Patterns of names that belong to it without being a site's; never reported as unclaimed."""
    vetoes: tuple[str, ...] = ()
    """Patterns of names that rule it out: the same parameters exist there and are not used."""
    layer_count_key: str = ""
    """Config key of the number of ordinary layers; later ones are MTP heads, an auxiliary chain."""
    classes: tuple[str, ...] = ()
    """Class names of live modules; parameters' shapes must fit as well."""
    is_own: Callable[[Any], bool] | None = None
    """Tells a live module from one of another code base with the same class and parameters."""
    hook_on: str = ""
    """Submodule to hook, relative to the module; empty for the module itself."""
    observe: Callable[[Any, tuple[Any, ...], Any, int], Observation] | None = None
    """(module, hook's positional arguments, hook's output, n) -> Observation."""
    merges: tuple[str, ...] = ()
    """Class names of modules whose first argument is the streams at the end of the chain."""
    computes_in: Literal["float32", "parameters"] = "float32"
    """Precision in which the module computes H_res."""
    applies_in: Literal["computed", "streams"] = "computed"
    """Precision of the copy that mixes the streams."""
    input_dependent: bool = True

    def fit(self, shapes: Shapes) -> tuple[int, int] | None:
        """(n, C) where every role is there with shapes of this adapter; None otherwise."""
        whole = set(shapes) == set(self.roles.values())
        if not whole or any(size < 1 for shape in shapes.values() for size in shape):
            return None
        return self.fits(shapes)

    def match(self, name: str) -> re.Match[str] | None:
        """The first pattern that takes the tensor ``name`` under one of the adapter's roles."""
        for pattern in self.patterns:
            found = re.fullmatch(pattern, name)
            if found and found["role"] in self.roles:
                return found
        return None


def packed_streams(length: int) -> int | None:
    """Solve for n in a packed vector of (2 + n) n entries, or None when no n fits."""
    n = round((1 + length) ** 0.5) - 1
    return n if n > 0 and (2 + n) * n == length else None
