"""The little language of ``--tap``: where a module shows its H_res.

::

    PATTERN=PLACE:STORED        blocks.*.mix=output[1]:M^T

PATTERN  module names, with ``*`` and ``?`` as in file names; ``*`` stays within one segment;
PLACE    begins with ``output`` (what the module returns), ``args`` (its positional arguments) or
         ``module`` (the module itself), then ``[0]``, ``[-1]``, ``["name"]`` or ``.name`` steps;
STORED   ``M`` if the module computes x' = H_res x (row = destination), ``M^T`` if x' = H_res^T x.
         There is no default: a wrong word swaps forward and backward.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from mhc_diag.errors import CaptureError, OptionError
from mhc_diag_cli.values import pairs

if TYPE_CHECKING:
    from mhc_diag.adapters.taps import Tap

_FORM = "PATTERN=PLACE:M or PATTERN=PLACE:M^T, such as 'blocks.*.mix=output[1]:M^T'"
_STEP = re.compile(r"""\[(?P<index>-?\d+)\]|\[(["'])(?P<key>[^"']+)\2\]|\.(?P<name>[A-Za-z_]\w*)""")
_PLACE = re.compile(r"(?P<start>output|args|module)(?P<steps>(?:[.\[].*)?)", re.DOTALL)


def taps(texts: Sequence[str] | None) -> dict[str, Tap] | None:
    """Read the values of ``--tap``; None where there are none.

    Raises:
        OptionError: a value that is not of the form above.
    """
    if not texts:
        return None
    return {
        pattern: _tap(pattern, text) for pattern, text in pairs("--tap", texts, form=_FORM).items()
    }


def _tap(pattern: str, text: str) -> Tap:
    from mhc_diag.adapters.taps import tap

    asked = f"--tap '{pattern}={text}'"
    place, colon, stored = text.rpartition(":")
    if not colon or stored not in ("M", "M^T"):
        came = "it does not end in ':M' or ':M^T', the orientation in which H_res is stored"
        raise OptionError(asked, came, f"Write {_FORM}.")
    return tap(reader(asked, place), stored=cast(Literal["M", "M^T"], stored))


def reader(asked: str, place: str) -> Callable[[Any, tuple[Any, ...], Any], Any]:
    """Return the function that fetches ``place`` from a firing of a module.

    Raises:
        OptionError: the place is not of the form above.
    """
    found = _PLACE.fullmatch(place)
    steps = list(_STEP.finditer(found["steps"])) if found else []
    if found is None or "".join(step[0] for step in steps) != found["steps"]:
        came = f"{place!r} is no place"
        raise OptionError(asked, came, f"Begin with output, args or module. Write {_FORM}.")
    start = found["start"]

    def read(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        value = {"output": output, "args": args, "module": module}[start]
        for step in steps:
            value = _follow(asked, value, step)
        return value

    return read


def _follow(asked: str, value: Any, step: re.Match[str]) -> Any:
    """One step further into ``value``."""
    try:
        if step["name"] is not None:
            return getattr(value, step["name"])
        return value[step["key"] if step["index"] is None else int(step["index"])]
    except (AttributeError, LookupError, TypeError) as error:
        came = f"the module has no {step[0]} there, only {_kind(value)}"
        raise CaptureError(asked, came, "Look at what it returns, and name its H_res.") from error


def _kind(value: Any) -> str:
    """The type of a value, with the length or the keys that a place could name."""
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value))}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"
