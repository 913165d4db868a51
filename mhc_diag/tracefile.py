"""Traces on disk: ``*.trace.safetensors``, readable with safetensors alone.

Tensors are named ``<chain>/M`` [L, T, n, n], ``<chain>/H_pre``, ``<chain>/H_post`` [L, T, n],
``<chain>/G`` [L, T, n+1, n+1] and ``<chain>/logits``; everything else stands as JSON under the key
``mhc_diag`` of the file's metadata. Readers ignore tensors that they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mhc_diag.arrays import to_numpy
from mhc_diag.errors import CheckpointError, MhcDiagError
from mhc_diag.files import write_atomically
from mhc_diag.trace import (
    Chain,
    Coverage,
    Model,
    Orientation,
    Precision,
    Probe,
    Setting,
    Site,
    Skipped,
    Source,
    Trace,
)

SCHEMA = "mhc-diag/trace/1"
_TENSORS = {"M": "M", "H_pre": "H_pre", "H_post": "H_post", "G": "gram", "logits": "logits"}
"""Name in the file -> field of Chain."""


def save_trace(trace: Trace, path: str | Path, *, force: bool = False) -> Path:
    """Write ``trace`` in one step.

    Args:
        trace: what to write.
        path: by convention ``*.trace.safetensors``.
        force: replace a file of that name.

    Raises:
        OutputError: the file exists and ``force`` is False, or the folder is not writable.
    """
    from safetensors.numpy import save

    tensors = {
        f"{chain.name}/{name}": to_numpy(array).copy(order="C")
        for chain in trace.chains
        for name, field in _TENSORS.items()
        if (array := getattr(chain, field)) is not None
    }
    content = save(tensors, metadata={"mhc_diag": json.dumps(_header(trace))})
    return write_atomically(path, content, replace=force)


def load_trace(path: str | Path) -> Trace:
    """Read a trace.

    Raises:
        CheckpointError: the file is missing, damaged, no trace, or of a newer schema.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            text = (file.metadata() or {}).get("mhc_diag")
            if text is None:
                raise _unreadable(path, "its metadata has no key 'mhc_diag'")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        header = json.loads(text)
        if header["schema"] != SCHEMA:
            raise _unreadable(
                path, f"its schema is {header['schema']!r}, this version reads {SCHEMA!r}"
            )
        return _trace(header, tensors, str(path))
    except MhcDiagError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(
            path, f"its header is damaged ({type(error).__name__}: {error})"
        ) from error


def _header(trace: Trace) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "source": asdict(trace.source),
        "model": asdict(trace.model)
        | {"settings": {k: asdict(v) for k, v in trace.model.settings.items()}},
        "orientation": asdict(trace.orientation),
        "probe": asdict(trace.probe),
        "coverage": asdict(trace.coverage),
        "chains": [
            {
                "name": chain.name,
                "auxiliary": chain.auxiliary,
                "measured": list(chain.measured),
                "sites": [asdict(site) for site in chain.sites],
            }
            for chain in trace.chains
        ],
    }


def _trace(header: Mapping[str, Any], tensors: Mapping[str, Any], path: str) -> Trace:
    model, coverage = header["model"], header["coverage"]
    return Trace(
        source=Source(**header["source"] | {"path": path, "format": "trace"}),
        model=Model(
            **model
            | {
                "precision": Precision(**model["precision"]),
                "settings": {name: Setting(**value) for name, value in model["settings"].items()},
            }
        ),
        orientation=Orientation(**header["orientation"]),
        probe=Probe(**header["probe"]),
        coverage=Coverage(
            **coverage
            | {
                "skipped": tuple(Skipped(**one) for one in coverage["skipped"]),
                "unclaimed": tuple(coverage["unclaimed"]),
            }
        ),
        chains=tuple(_chain(one, tensors) for one in header["chains"]),
    )


def _chain(header: Mapping[str, Any], tensors: Mapping[str, Any]) -> Chain:
    name = header["name"]
    return Chain(
        name=name,
        auxiliary=header["auxiliary"],
        measured=tuple(header["measured"]),
        sites=tuple(Site(**site) for site in header["sites"]),
        **{field: tensors.get(f"{name}/{key}") for key, field in _TENSORS.items() if key != "M"},
        M=tensors[f"{name}/M"],
    )


def _unreadable(path: str | Path, came: str) -> CheckpointError:
    return CheckpointError(
        f"read {str(path)!r} as a trace",
        came,
        "Give a file that trace.save() or 'analyze -o' wrote.",
    )
