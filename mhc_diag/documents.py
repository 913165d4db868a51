"""JSON documents: strict text with a stable key order, and the published schemas.

Numbers keep their full ``repr`` precision; what is not finite becomes "inf", "-inf" or "nan", and
a masked value becomes null.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np

from mhc_diag import __version__

_OPEN_LEVELS = 2
"""Levels of a document that have one line per key; deeper ones stand on one line."""


def plain(value: Any) -> Any:
    """A value as JSON can hold it, keys as text, order kept; what JSON has no word for, as text."""
    if isinstance(value, np.ma.MaskedArray):
        pairs = zip(value.data.tolist(), np.ma.getmaskarray(value).tolist(), strict=True)
        return [None if masked else plain(number) for number, masked in pairs]
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value if value is None or isinstance(value, int | float | str) else str(value)


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a frozen record by name, one level deep."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def to_text(document: Mapping[str, Any]) -> str:
    """One JSON object, strict, ending in a newline; top keys and their entries on own lines."""
    return _layout(plain(document), _OPEN_LEVELS, "") + "\n"


def tool() -> dict[str, Any]:
    """What wrote a document: name, version, and the version of the metric definitions."""
    from mhc_diag.metrics import DEFINITIONS

    return {"name": "mhc-diag", "version": __version__, "definitions": DEFINITIONS}


def schema(name: str) -> dict[str, Any]:
    """The published JSON Schema of a document, by the last parts of its name: ``analysis/1``."""
    stem = name.removeprefix("mhc-diag/").split("/")[0]
    file = resources.files("mhc_diag") / "schemas" / f"{stem}.schema.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _layout(value: Any, levels: int, indent: str) -> str:
    if levels == 0 or not isinstance(value, dict) or not value:
        return json.dumps(value, allow_nan=False)
    inner = indent + " "
    lines = (
        f"{inner}{json.dumps(key)}: {_layout(entry, levels - 1, inner)}"
        for key, entry in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
