"""All adapters: the built-in ones, those of installed packages, and those registered by hand."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from mhc_diag.adapters.adapter import Adapter
from mhc_diag.adapters.deepseek import DEEPSEEK_V4, DEEPSEEK_V41, GLM5_NEXT
from mhc_diag.adapters.identity import HY_V4, QWEN4_EXP
from mhc_diag.adapters.kromhc import KROMHC
from mhc_diag.adapters.liger import LIGER_MHC
from mhc_diag.adapters.lucidrains import HYPER_CONNECTIONS, MHC_V1, MHC_V2
from mhc_diag.adapters.megatron import MEGATRON_DEV, MEGATRON_MAIN
from mhc_diag.adapters.mhc_lite import GPT_MHC, GPT_MHC_LITE
from mhc_diag.adapters.motif import MOTIF3
from mhc_diag.adapters.openpangu import OPENPANGU_V2
from mhc_diag.adapters.tokenbender import TOKENBENDER
from mhc_diag.adapters.torchtitan import TORCHTITAN
from mhc_diag.adapters.zoo import ZOO_HC, ZOO_MHC, ZOO_MHC_LITE
from mhc_diag.errors import AdapterError

_BUILT_IN = (
    DEEPSEEK_V41,  # before V4, of whose class some code bases derive its own
    DEEPSEEK_V4,
    GLM5_NEXT,
    TORCHTITAN,
    HY_V4,
    QWEN4_EXP,
    HYPER_CONNECTIONS,
    MHC_V1,
    MHC_V2,
    GPT_MHC,
    GPT_MHC_LITE,
    KROMHC,
    TOKENBENDER,
    MEGATRON_MAIN,
    MEGATRON_DEV,
    MOTIF3,
    OPENPANGU_V2,
    LIGER_MHC,
    ZOO_HC,
    ZOO_MHC,
    ZOO_MHC_LITE,
)
_registered: dict[str, Adapter] = {}
_entry_points_read = False


def register_adapter(adapter: Adapter | Callable[[], Adapter]) -> Adapter:
    """Make an adapter known for the rest of the process; usable as a decorator on a factory.

    Args:
        adapter: an Adapter, or a function without arguments that returns one.

    Raises:
        AdapterError: the name is taken.
    """
    made = adapter if isinstance(adapter, Adapter) else adapter()
    known = adapters()
    if made.name in known:
        raise AdapterError(
            f"register adapter {made.name!r}",
            f"the name is taken by {known[made.name].title!r}",
            "Choose another name.",
        )
    _registered[made.name] = made
    return made


def adapters() -> Mapping[str, Adapter]:
    """Name -> adapter: built in, from the entry points ``mhc_diag.adapters``, and registered."""
    global _entry_points_read  # noqa: PLW0603  read once: scanning metadata takes milliseconds
    if not _entry_points_read:
        _entry_points_read = True
        for point in entry_points(group="mhc_diag.adapters"):
            register_adapter(point.load())
    return {adapter.name: adapter for adapter in _BUILT_IN} | _registered


def adapter_named(name: str) -> Adapter:
    """The adapter ``name``.

    Raises:
        AdapterError: there is none; suggests the nearest name.
    """
    known = adapters()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise AdapterError(f"adapter {name!r}", "there is none", f"{hint}Known: {', '.join(known)}.")
