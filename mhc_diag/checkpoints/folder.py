"""Folders of weights: a Hugging Face model folder, or shards with an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhc_diag.checkpoints.detect import INDEX, detect_file, weight_files
from mhc_diag.checkpoints.location import Contents, Location
from mhc_diag.checkpoints.refused import REFUSED, refusal
from mhc_diag.checkpoints.safetensors_file import open_safetensors
from mhc_diag.checkpoints.source import ByteSource, fault
from mhc_diag.checkpoints.strict_json import json_object
from mhc_diag.checkpoints.torch_zip import open_torch_zip

_COMPLETE = "Copy or download the whole folder again."


def open_folder(folder: Path) -> Contents:
    """The weights of a folder and, where there is one, its config.json.

    Raises:
        CheckpointError: no weights, a missing shard, or a damaged file.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    index = _index(names)
    if index is not None:
        return open_index(folder / index)
    files = weight_files(names)
    if not files:
        raise fault(folder, "it holds no weights", "Give a folder with model*.safetensors.")
    for name in files:
        _require_inside(folder, folder, name)
    _require_complete(folder, files)
    return _merged(folder, dict.fromkeys(files))


def open_index(path: Path) -> Contents:
    """The shards that a model.safetensors.index.json (or pytorch_model.bin.index.json) names.

    Raises:
        CheckpointError: a damaged index, a shard that is missing or lies outside the folder.
    """
    with ByteSource(path) as source:
        weight_map = json_object(source, 0, source.size, what="index").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise fault(path, "its weight_map is no table of tensors and files", _COMPLETE)
    shards: dict[str, set[str] | None] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            raise fault(path, f"it names no file for tensor {name!r}", _COMPLETE)
        wanted = shards.setdefault(shard, set())
        if wanted is not None:
            wanted.add(name)
    for shard in shards:
        _require_inside(path, path.parent, shard)
    return _merged(path.parent, shards)


def _index(names: list[str]) -> str | None:
    """The index that counts, unless the weights lie in one plain file."""
    if "model.safetensors" in names:
        return None
    found = [name for name in names if name.endswith(INDEX)]
    usual = [name for name in found if name.startswith("model.safetensors")]
    first = usual or [name for name in found if name.endswith(f".safetensors{INDEX}")] or found
    return first[0] if first else None


def _require_complete(folder: Path, files: list[str]) -> None:
    """Refuse "model-00001-of-00003" when the other two are not there."""
    totals = {int(found[1]) for name in files if (found := re.search(r"-of-(\d{1,9})\.", name))}
    if len(totals) == 1 and len(files) != (total := totals.pop()):
        raise fault(folder, f"{len(files)} of its {total} shards are there", _COMPLETE)


def _require_inside(named_by: Path, folder: Path, shard: str) -> None:
    """Refuse a shard that is not a file of the folder.

    A link may point into the folder, or into the blobs of the same Hugging Face cache entry,
    where every snapshot's files are links.
    """
    if Path(shard).name != shard or "\\" in shard or "\0" in shard or shard in ("", ".", ".."):
        raise fault(named_by, f"its file {shard!r} lies outside the folder", _COMPLETE)
    path = folder / shard
    if not path.exists():
        raise fault(named_by, f"its file {shard!r} is missing", _COMPLETE)
    home, real = folder.resolve(), path.resolve()
    if real.parent not in {home, home.parent.parent / "blobs"}:
        raise fault(
            named_by,
            f"its file {shard!r} is a link to {str(real)!r}, outside the folder",
            "Replace the link by the file.",
        )


def _merged(folder: Path, shards: Mapping[str, set[str] | None]) -> Contents:
    """Open every shard; ``None`` takes all its tensors, a set exactly these."""
    tensors: dict[str, Location] = {}
    parts: list[Contents] = []
    for shard, wanted in sorted(shards.items()):
        part = _open_shard(folder / shard)
        parts.append(part)
        missing = sorted(set() if wanted is None else wanted - set(part.tensors))
        if missing:
            raise fault(folder / shard, f"tensor {missing[0]!r} of the index is missing", _COMPLETE)
        for name, place in part.tensors.items():
            if wanted is not None and name not in wanted:
                continue
            if name in tensors:
                raise fault(folder / shard, f"tensor {name!r} stands in two shards", _COMPLETE)
            tensors[name] = place
    config, kind = read_config(folder), "hf-folder"
    if not (folder / "config.json").is_file() and parts[0].format == "safetensors":
        kind = "sharded-safetensors"
    return Contents(
        format=kind,
        tensors=tensors,
        sources=tuple(source for part in parts for source in part.sources),
        config=config,
        foreign_globals=tuple(dict.fromkeys(g for part in parts for g in part.foreign_globals)),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _open_shard(path: Path) -> Contents:
    """One shard by its content; its file is closed again until a tensor is read."""
    with ByteSource(path) as source:
        kind = detect_file(source)
        if kind == "torch-zip":
            return open_torch_zip(source)
        if kind == "safetensors":
            return open_safetensors(source)
        raise refusal(path, kind if kind in REFUSED else "unknown")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder, empty when there is none.

    Raises:
        CheckpointError: it is there and cannot be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        return {}
    _require_inside(folder, folder, path.name)
    with ByteSource(path) as source:
        return json_object(source, 0, source.size, what="config.json")
