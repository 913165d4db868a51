"""The two files of a run folder, and what stands in them.

``run.json`` is written once::

    {"schema": "mhc-diag/run/1", "tool": {...}, "versions": {...},
     "definitions": {"version": 1, "ids": {"composite.forward.amax.mean": "formula", ...}},
     "orientation": {...}, "model": {...}, "sites": [{"index": 0, "chain": "main", ...}, ...]}

``stats.jsonl`` only grows, one line per recorded step; a step that is recorded again is a later
line, and the last one counts. Values are in site order, null where not measured, the strings
"inf", "-inf", "nan" where not finite::

    {"step": 50, "time": 1700000000.0, "scalars": {"loss": 2.5},
     "probe": {"kind": "tokens", "tokens": 256, "seed": 0, "inputs": "sha256:..."},
     "values": {"<id>": [1.0, null]}}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mhc_diag import documents
from mhc_diag.errors import RunError
from mhc_diag.metrics import DEFINITIONS, find_metric
from mhc_diag.trace import Site

SCHEMA = "mhc-diag/run/1"
RUN = "run.json"
STATS = "stats.jsonl"

_PARTS = {"definitions": dict, "orientation": dict, "model": dict, "sites": list}
"""What a header cannot do without, and its JSON type."""

DEFAULT_IDS: tuple[str, ...] = (
    *(
        f"{scope}.{direction}.amax.{aggregate}"
        for scope in ("single", "composite")
        for direction in ("forward", "backward")
        for aggregate in ("mean", "max")
    ),
    "composite.forward.norm.max",
    "composite.backward.norm.max",
    "manifold.row_error.max",
    "manifold.column_error.max",
)
"""What a recorded step holds unless somebody asks for other ids: 12 of them."""


def read_header(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``.

    Raises:
        RunError: no run folder, or its ``run.json`` is damaged or of another kind.
    """
    asked = f"read the run {str(folder)!r}"
    path = folder / RUN
    try:
        header = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(
            asked,
            f"{RUN}: {error.strerror or error}",
            f"A run is a folder with {RUN} and {STATS}.",
        ) from error
    except ValueError as error:
        raise RunError(
            asked, f"{RUN} is not JSON: {error}", "Restore it, or record anew."
        ) from error
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        found = header.get("schema") if isinstance(header, dict) else type(header).__name__
        raise RunError(
            asked, f"{RUN} has schema {found!r}", f"This version reads {SCHEMA!r}; update mhc-diag."
        )
    for part, kind in _PARTS.items():
        if not isinstance(header.get(part), kind):
            raise RunError(
                asked, f"{part!r} of {RUN} is damaged", f"Restore {RUN}, or record anew."
            )
    if not isinstance(header["definitions"].get("ids"), dict):
        raise RunError(asked, f"{RUN} names no ids", f"Restore {RUN}, or record anew.")
    return header


def ids_of(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Metric ids that the run records."""
    return tuple(header["definitions"]["ids"])


def sites_of(header: Mapping[str, Any], folder: Path) -> tuple[Site, ...]:
    """The run's sites in execution order.

    Raises:
        RunError: an entry lacks a field.
    """
    try:
        return tuple(
            Site(
                index=int(entry["index"]),
                chain=str(entry["chain"]),
                name=str(entry["name"]),
                layer=entry.get("layer"),
                sublayer=entry.get("sublayer", "other"),
            )
            for entry in header["sites"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"read the run {str(folder)!r}",
            f"its list of sites is damaged: {error}",
            f"Restore {RUN}, or record anew.",
        ) from error


def make_header(
    sites: Sequence[Site],
    model: Mapping[str, Any],
    ids: Sequence[str],
    orientation: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``run.json`` says of a new run, as plain JSON values.

    Raises:
        OptionError: an id that does not exist.
    """
    loaded = [name for name in ("numpy", "torch") if name in sys.modules]
    versions = {name: str(sys.modules[name].__version__) for name in loaded}
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": documents.tool(),
        "versions": {"python": sys.version.split()[0], **versions},
        "definitions": {
            "version": DEFINITIONS,
            "ids": {name: find_metric(name).formula for name in ids},
        },
        "orientation": orientation,
        "model": model,
        "sites": [documents.fields_of(site) for site in sites],
    }
    plain: dict[str, Any] = documents.plain(header)
    return plain


def identity_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of run.json that must agree before a run goes on."""
    return {
        "sites": header["sites"],
        "model": _without_tokens(header["model"]),
        "stored orientation": header["orientation"].get("stored"),
        "definition version": header["definitions"].get("version"),
        "ids": list(header["definitions"]["ids"]),
    }


def _without_tokens(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model without the token counts of its first record, which a shorter batch may change."""
    chains = [
        {key: value for key, value in chain.items() if key != "tokens"}
        for chain in model.get("chains", ())
    ]
    return {**model, "chains": chains}


def difference(part: str, found: Any, wanted: Any) -> str:
    """One clause that names the first thing that differs."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for key in dict.fromkeys([*found, *wanted]):
            if found.get(key) != wanted.get(key):
                return difference(f"{part} {key}", found.get(key), wanted.get(key))
    if isinstance(found, list) and isinstance(wanted, list):
        if len(found) != len(wanted):
            return f"{len(found)} {part} there, {len(wanted)} here"
        pairs = enumerate(zip(found, wanted, strict=True))
        index, (old, new) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        return difference(f"{part}[{index}]", old, new)
    return f"{part} is {found!r} there, {wanted!r} here"
