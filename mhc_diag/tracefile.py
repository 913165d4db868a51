"""Traces on disk: ``*.trace.safetensors``, readable with safetensors alone.

Tensors are named ``<chain>/M`` [L, T, n, n], ``<chain>/H_pre``, ``<chain>/H_post`` [L, T, n],
``<chain>/G`` [L, T, n+1, n+1] and ``<chain>/logits``; everything else stands as JSON under the key
``mhc_diag`` of the file's metadata. Readers ignore tensors that they do not know.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mhc_diag.arrays import FORMATS, to_numpy
from mhc_diag.errors import CheckpointError, ShapeError
from mhc_diag.files import write_atomically
from mhc_diag.trace import (
    Chain,
    Coverage,
    Model,
    Orientation,
    Probe,
    Site,
    Source,
    Trace,
)

SCHEMA = "mhc-diag/trace/1"
_TENSORS = {"M": "M", "H_pre": "H_pre", "H_post": "H_post", "G": "gram", "logits": "logits"}
"""Name in the file -> field of Chain."""
_HUGE = 2**63
"""No count of ours is as large, and doubles may not hold one that is."""
_LONGEST = 100
"""Characters of damage that an error shows."""


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
            header = _parsed(text, path)
            known = {f"{one['name']}/{key}" for one in header["chains"] for key in _TENSORS}
            tensors = {name: _numbers(file, name) for name in file.keys() if name in known}  # noqa: SIM118  no mapping
        return _trace(header, tensors, str(path))
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, str(error)) from error
    except ShapeError as error:
        raise _unreadable(path, f"its header is damaged ({error.asked}: {error.came})") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise _unreadable(path, f"its header is damaged ({_short(what)})") from error


def _parsed(text: str, path: str | Path) -> dict[str, Any]:
    """The header as JSON, of the schema that is read here.

    Raises:
        CheckpointError: another schema.
        ValueError: no JSON, or no object.
    """
    header = json.loads(text)
    if not isinstance(header, dict):
        raise TypeError("it is no object")
    if header["schema"] != SCHEMA:
        came = f"its schema is {_short(repr(header['schema']))}, this version reads {SCHEMA!r}"
        raise _unreadable(path, came)
    return header


def _numbers(file: Any, name: str) -> Any:
    """One tensor.

    Raises:
        TypeError: it does not hold real numbers of a type that numpy has.
    """
    array = file.get_tensor(name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} is of type {array.dtype}")
    return array


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
    trace = Trace(
        source=_read(Source, header["source"] | {"path": path, "format": "trace"}, "source"),
        model=_read(Model, header["model"], "model"),
        orientation=_read(Orientation, header["orientation"], "orientation"),
        probe=_read(Probe, header["probe"], "probe"),
        coverage=_read(Coverage, header["coverage"], "coverage"),
        chains=tuple(_chain(one, tensors) for one in _read(list[Any], header["chains"], "chains")),
    )
    _require_sense(trace)
    return trace


def _chain(header: Mapping[str, Any], tensors: Mapping[str, Any]) -> Chain:
    name = _read(str, header["name"], "chain name")
    return Chain(
        name=name,
        auxiliary=_read(bool, header["auxiliary"], "auxiliary"),
        measured=_read(tuple[bool, ...], header["measured"], "measured"),
        sites=_read(tuple[Site, ...], header["sites"], "sites"),
        **{field: tensors.get(f"{name}/{key}") for key, field in _TENSORS.items() if key != "M"},
        M=tensors[f"{name}/M"],
    )


def _require_sense(trace: Trace) -> None:
    """What must hold between the parts of a trace.

    Raises:
        ValueError: it does not.
    """
    names = [chain.name for chain in trace.chains]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"chains {names}")
    for index, site in enumerate(trace.sites):
        if site.index != index:
            raise ValueError(f"site {index} has the index {site.index}")
    for chain in trace.chains:
        if any(site.chain != chain.name for site in chain.sites):
            raise ValueError(f"a site of chain {chain.name!r} names another chain")
    if not 0 <= trace.coverage.measured <= trace.coverage.expected:
        raise ValueError(f"{trace.coverage.measured} of {trace.coverage.expected} sites")
    if trace.probe.tokens < 0 or trace.source.bytes_read < 0:
        raise ValueError("a count below 0")
    precision = trace.model.precision
    if precision.applied not in {*FORMATS, "float64", precision.computed}:
        raise ValueError(f"nobody can round to the applied precision {precision.applied!r}")


_Kind = TypeVar("_Kind")


def _read(kind: type[_Kind], value: Any, what: str) -> _Kind:
    """``value`` as JSON holds it -> what the fields of our records are declared to hold.

    Args:
        kind: a record, a word list (Literal), a plain type, or tuple, list, Mapping, Union of them.
        value: from json.loads.
        what: how an error calls it.

    Raises:
        TypeError: another type, a word that is not in the list, a field too many or too few.
        ValueError: text that is no Unicode.
    """
    read: Any = _of(kind, value, what)
    return read  # type: ignore[no-any-return]  # checked by value, against the same annotation


def _of(kind: Any, value: Any, what: str) -> Any:
    """As :func:`_read`, for any annotation."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in {Union, types.UnionType}:  # with None, everywhere in our records
        return None if value is None else _of(inner[0], value, what)
    if is_dataclass(kind) or origin in {tuple, list, Mapping}:
        return _of_parts(kind, value, what)
    if origin is Literal:
        fits = isinstance(value, str) and value in inner
    else:
        wanted = (int, float) if kind is float else kind
        fits = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
        fits = fits and not (isinstance(value, int) and abs(value) >= _HUGE)
    if not fits:
        raise TypeError(f"{what} is {_short(repr(value))}")
    if isinstance(value, str):
        value.encode()  # a lone surrogate could be neither shown nor written
    return value


def _of_parts(kind: Any, value: Any, what: str) -> Any:
    """As :func:`_read`, for what has parts: a record, a sequence, a mapping by names."""
    origin, inner = get_origin(kind), get_args(kind)
    if not isinstance(value, list if origin in {tuple, list} else dict):
        raise TypeError(f"{what} is {_short(repr(value))}")
    if isinstance(value, list):
        return origin(_of(inner[0], one, f"{what}[{index}]") for index, one in enumerate(value))
    if origin is Mapping:
        return {_of(str, k, what): _of(inner[1], one, f"{what}.{k}") for k, one in value.items()}
    hints = get_type_hints(kind)
    if not set(value) <= set(hints):
        raise TypeError(f"{what} has the fields {_short(repr(sorted(set(value) - set(hints))))}")
    return kind(**{name: _of(hints[name], one, f"{what}.{name}") for name, one in value.items()})


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _unreadable(path: str | Path, came: str) -> CheckpointError:
    return CheckpointError(
        f"read {str(path)!r} as a trace",
        came,
        "Give a file that trace.save() or 'analyze -o' wrote.",
    )
