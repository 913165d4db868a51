"""Values that the weights do not say: given, read from a module or a config, or assumed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mhc_diag.adapters.adapter import Adapter, SettingSpec
from mhc_diag.errors import OptionError
from mhc_diag.trace import Setting


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
        return Setting(value=_typed(adapter, name, given[name], spec.default), source="option")
    if module is not None and spec.from_module is not None:
        value = spec.from_module(module)
        if value is not None:
            return Setting(value=value, source="module")
    for key in spec.config_keys:
        for place in (config, config.get("text_config")):
            if isinstance(place, Mapping) and place.get(key) is not None:
                return Setting(
                    value=_typed(adapter, name, place[key], spec.default), source="config"
                )
    return Setting(value=spec.default, source="assumed")


def _typed(adapter: str, name: str, value: Any, default: Any) -> Any:
    """``value`` as the type of ``default``; command lines and configs hold text."""
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        return kind(value)
    except (ValueError, TypeError, KeyError) as error:
        raise OptionError(
            f"setting {name!r} of adapter {adapter}",
            f"{value!r} is no {kind.__name__}",
            f"Give a {kind.__name__}, as in --set {name}={default}.",
        ) from error
