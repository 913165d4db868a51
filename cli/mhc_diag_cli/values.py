"""What the words of options mean: text to values, with an error that says how to write it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mhc_diag.errors import OptionError


def pairs(option: str, texts: Sequence[str] | None, *, form: str) -> dict[str, str]:
    """Split the values of a repeatable ``NAME=VALUE`` option at their first ``=``.

    Raises:
        OptionError: no ``=``, nothing before it, nothing after it, or the same name twice.
    """
    result: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise OptionError(f"{option} {text!r}", "that is not a pair", f"Write {option} {form}.")
        if name in result:
            raise OptionError(f"{option} {text!r}", f"{name} was given twice", "Give it once.")
        result[name] = value
    return result


def bounds(option: str, texts: Sequence[str] | None) -> dict[str, float]:
    """Metric id or pattern -> finite number, from the values of ``--max`` or ``--min``.

    Raises:
        OptionError: not a pair, or not a finite number (a limit of NaN could never break).
    """
    result: dict[str, float] = {}
    for name, text in pairs(option, texts, form="ID=NUMBER").items():
        result[name] = finite(option, text)
    return result


def finite(option: str, text: str) -> float:
    """Read a finite number.

    Raises:
        OptionError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise OptionError(
            f"{option} with {text!r}", "that is not a finite number", "Give a number."
        )
    return value


def gain_limit(value: float | None) -> float | None:
    """Return the value of ``--max-gain``.

    Raises:
        OptionError: no gain could be within it; one that is not finite is told by the limits.
    """
    if value is not None and value <= 0:
        came = "a gain is never below 0, so that nothing could pass"
        raise OptionError(f"--max-gain {value:g}", came, "Give a number above 0, such as 2.")
    return value


def settings(texts: Sequence[str] | None) -> Mapping[str, Any]:
    """Key -> value of ``--set``: numbers and true/false as such, anything else as text.

    Raises:
        OptionError: not a pair, or the same key twice.
    """
    return {key: _value(text) for key, text in pairs("--set", texts, form="KEY=VALUE").items()}


def _value(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=lambda _: text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def check_device(text: str) -> str:
    """Return the device's name.

    Raises:
        OptionError: it is neither cpu, cuda nor cuda:N.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise OptionError(f"--device {text!r}", "no such device", "Write cpu, cuda or cuda:N.")
    return text


def labelled(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Split each ``[LABEL=]SOURCE`` into label and source; the label is "" where none is given.

    A word that names an existing file or folder is a source as it stands, ``=`` and all.

    Raises:
        OptionError: an empty source, or the same label twice.
    """
    result: list[tuple[str, str]] = []
    for text in texts:
        label, equals, source = text.partition("=")
        if not equals or Path(text).exists() or "/" in label:
            label, source = "", text
        if not source or (equals and not text.partition("=")[0]):
            raise OptionError(f"compare {text!r}", "that is no source", "Write LABEL=SOURCE.")
        if label and label in (known for known, _ in result):
            raise OptionError(
                f"compare {text!r}", f"the label {label!r} was given twice", "Choose two."
            )
        result.append((label, source))
    return result
