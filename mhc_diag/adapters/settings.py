"""Values that the weights do not say: given, read from a module or a config, or assumed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mhc_diag.adapters.adapter import Adapter, SettingSpec
from mhc_diag.errors import OptionError
from mhc_diag.trace import Setting

_KINDS = {int: "whole number", float: "finite number", bool: "truth (true or false)"}
_LONGEST = 60
"""Characters of a wrong value that an error shows."""


def with_orientation(
    adapter: Adapter, given: Mapping[str, Any]
) -> tuple[Adapter, dict[str, Any], dict[str, Setting]]:
    """Take ``orientation`` out of what the user gave: it belongs to every adapter.

    Args:
        adapter: the recognised adapter.
        given: the user's settings; ``orientation`` is M or M^T, how this model stores H_res.

    Returns:
        The adapter with that orientation, the other settings, and the setting to be reported.

    Raises:
        OptionError: the orientation is neither word.
    """
    rest = {name: value for name, value in given.items() if name != "orientation"}
    if "orientation" not in given:
        return adapter, rest, {}
    stored = str(given["orientation"])
    if stored == "M":
        turned = replace(adapter, stored="M")
    elif stored == "M^T":
        turned = replace(adapter, stored="M^T")
    else:
        raise OptionError(
            f"setting 'orientation' of adapter {adapter.name}",
            f"{stored!r} is neither M nor M^T",
            "Give --set orientation=M where x' = H_res x, or --set orientation=M^T.",
        )
    return turned, rest, {"orientation": Setting(value=stored, source="option")}


def resolve_settings(
    adapter: Adapter,
    *,
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    module: Any = None,
) -> dict[str, Setting]:
    """Every setting of ``adapter`` with its source: option, module, config, default, in this order.

    Raises:
        OptionError: ``given`` names a setting that the adapter does not have, or of another type.
    """
    for name in given:
        if name not in adapter.settings:
            near = difflib.get_close_matches(name, adapter.settings, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            known = ", ".join(adapter.settings) or "none"
            raise OptionError(
                f"setting {name!r} of adapter {adapter.name}",
                "it has no such setting",
                f"{hint}It has: {known}.",
            )
    return {
        name: _resolve(adapter.name, name, spec, config=config, given=given, module=module)
        for name, spec in adapter.settings.items()
    }


def lookup(config: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The first of ``keys`` in the config or in its ``text_config``; None where there is none."""
    for key in keys:
        for place in (config, config.get("text_config")):
            if isinstance(place, Mapping) and place.get(key) is not None:
                return place[key]
    return None


def _resolve(
    adapter: str,
    name: str,
    spec: SettingSpec,
    *,
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    module: Any,
) -> Setting:
    if name in given:
        return Setting(value=_checked(adapter, name, given[name], spec), source="option")
    if module is not None and spec.from_module is not None:
        value = spec.from_module(module)
        if value is not None:
            return Setting(value=value, source="module")
    found = lookup(config, spec.config_keys)
    if found is not None:
        return Setting(value=_checked(adapter, name, found, spec), source="config")
    return Setting(value=spec.default, source="assumed")


def _checked(adapter: str, name: str, value: Any, spec: SettingSpec) -> Any:
    """``value`` as the type of the default and in range; command lines and configs hold text."""
    kind = type(spec.default)
    try:
        typed = _truth(value) if kind is bool else _number(value, kind)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        # an integer beyond the doubles may even be too long for Python to write
        told = "that number" if isinstance(error, OverflowError) else repr(str(value)[:_LONGEST])
        raise OptionError(
            f"setting {name!r} of adapter {adapter}",
            f"{told} is no {_KINDS.get(kind, kind.__name__)}",
            f"Give one, as in --set {name}={spec.default}.",
        ) from error
    if spec.minimum is not None and typed < spec.minimum:
        raise OptionError(
            f"setting {name!r} of adapter {adapter}",
            f"{typed} is below {spec.minimum:g}",
            f"Give {spec.minimum:g} or more, as in --set {name}={spec.default}.",
        )
    return typed


def _truth(value: Any) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]


def _number(value: Any, kind: Any) -> Any:
    """A finite number, a whole one where ``kind`` is int; any other kind as that takes it.

    Raises:
        ValueError: it is none.
    """
    if kind not in {int, float}:
        return kind(value)
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError
    if kind is float:
        return number
    if not number.is_integer():
        raise ValueError
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else int(number)
