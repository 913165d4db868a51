"""A checkpoint as plain Python values and torch tensors, for a user's own ``--model`` callable.

Nothing of the file is executed. Tensors are mapped from the file, copy-on-write: what the callable
does not use (an optimizer's moments) is never read, and what it changes never reaches the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mhc_diag.checkpoints.detect import detect
from mhc_diag.checkpoints.dtypes import BITS, readable
from mhc_diag.checkpoints.inert import Global, Opaque, TensorRef
from mhc_diag.checkpoints.location import Location, read_raw
from mhc_diag.checkpoints.opening import read_contents
from mhc_diag.checkpoints.source import ByteSource
from mhc_diag.checkpoints.torch_zip import TorchArchive
from mhc_diag.checkpoints.tree import MAX_DEPTH, MAX_NODES, Budget, TreeError, flatten, is_module

if TYPE_CHECKING:
    import torch

ALIGNMENT = 64
"""Bytes to which torch aligns its storages; others are copied."""


def load_plain(path: str | Path) -> dict[str, Any]:
    """Load a whole checkpoint without running any code from it.

    Returns:
        For a torch file its top-level dict: dicts, lists, scalars and torch tensors (types kept,
        shared storages shared); a pickled module is its state dict, another object the dict of its
        attributes. For a folder with config.json {"model": tensors, "config": settings}, for other
        formats tensors by name. Names are as stored.

    Raises:
        CheckpointError: as for open_checkpoint, or the top level of the file is no mapping.
    """
    if detect(path) == "torch-zip":
        return _load_torch_zip(path)
    contents = read_contents(path)
    maps = {source.path: _mapped(source) for source in contents.sources}
    try:
        tensors = {
            name: _tensor(place, maps[place.source.path])
            for name, place in contents.tensors.items()
        }
    finally:
        for source in contents.sources:
            source.close()
    if contents.config:
        return {"model": tensors, "config": dict(contents.config)}
    return tensors


def _load_torch_zip(path: str | Path) -> dict[str, Any]:
    """The tree of a torch file with its tensors in place."""
    with ByteSource(path) as source:
        archive = TorchArchive(source)
        data = _mapped(source)
        storages: dict[str, npt.NDArray[np.uint8]] = {}

        def tensor(reference: TensorRef) -> torch.Tensor:
            place = archive.locate("in the pickle", reference)
            start, size = archive.place(reference.storage)
            key = reference.storage.key
            if key not in storages:
                storages[key] = _aligned(data[start : start + size])
            return _view(storages[key], place, place.start - start)

        try:
            loaded = _Plain(tensor).value(archive.root, 0)
        except TreeError as error:
            raise source.fault(str(error)) from error
        if not isinstance(loaded, dict):
            raise source.fault(
                "its top level is no mapping", "Save a dict: torch.save({'model': ...}, path)."
            )
        return loaded


class _Plain:
    """Turns the records of a pickle into plain values; parts that are shared stay shared."""

    def __init__(self, tensor: Callable[[TensorRef], Any]) -> None:
        self._tensor = tensor
        self._budget = Budget(MAX_NODES)
        self._done: dict[int, Any] = {}

    def value(self, node: Any, depth: int) -> Any:
        """One value; a part that is being converted already (a cycle) appears as itself."""
        if node is None or isinstance(node, (bool, int, float, str, bytes)):
            return node
        if depth > MAX_DEPTH:
            raise TreeError(f"its values are nested deeper than {MAX_DEPTH} levels")
        if not self._budget.spend():
            raise TreeError(f"its pickle describes more than {MAX_NODES} values")
        if id(node) not in self._done:
            self._done[id(node)] = self._convert(node, depth + 1)
        return self._done[id(node)]

    def _convert(self, node: Any, depth: int) -> Any:
        if isinstance(node, TensorRef):
            return self._tensor(node)
        if isinstance(node, tuple):
            return tuple(self.value(item, depth) for item in node)
        if isinstance(node, list):
            values: list[Any] = []
            self._done[id(node)] = values
            values.extend(self.value(item, depth) for item in node)
            return values
        if isinstance(node, Opaque) and is_module(node):
            return {name: self.value(t, depth) for name, t in flatten(node, self._budget)}
        if isinstance(node, dict) or (isinstance(node, Opaque) and (node.state or node.items)):
            entries: dict[Any, Any] = {}
            self._done[id(node)] = entries
            for part in [node] if isinstance(node, dict) else [node.state, node.items]:
                for key, item in part.items():
                    entries[self._key(key)] = self.value(item, depth)
            return entries
        return self._leaf(node, depth)

    def _leaf(self, node: Any, depth: int) -> Any:
        """A type, a list-like object, or what little is known about any other object."""
        if isinstance(node, Global):
            return _named(node.name)
        if isinstance(node, Opaque) and node.elements:
            return self.value(node.elements, depth)
        if isinstance(node, Opaque) and len(node.args) == 1:
            only = node.args[0]  # an Enum, a numpy number: the value is its one argument
            if isinstance(only, (bool, int, float, str)):
                return only
        return f"<{getattr(node, 'name', type(node).__name__)}, not executed>"

    def _key(self, key: Any) -> Any:
        """A dict's key; a record that served as one becomes its name."""
        plain = key is None or isinstance(key, (bool, int, float, str, bytes, tuple))
        return key if plain else f"<{getattr(key, 'name', 'object')} {id(key):x}>"


def _named(name: str) -> Any:
    """torch.float32 and its like as themselves, any other class as its name."""
    import torch

    short = name.removeprefix("torch.")
    return getattr(torch, short, name) if short in BITS else name


def _mapped(source: ByteSource) -> npt.NDArray[np.uint8]:
    """The file's bytes, mapped copy-on-write."""
    try:
        return np.memmap(source.path, dtype=np.uint8, mode="c")
    except (OSError, ValueError) as error:
        raise source.fault(f"it cannot be mapped into memory ({error})") from error


def _aligned(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``data``, copied when its first byte lies where torch cannot read elements."""
    return data.copy() if data.ctypes.data % ALIGNMENT else data


def _tensor(place: Location, data: npt.NDArray[np.uint8]) -> torch.Tensor:
    """A tensor that lies alone."""
    if place.deflated is not None:
        return _view(read_raw(place), place, 0)
    return _view(_aligned(data[place.start : place.start + place.length]), place, 0)


def _view(data: npt.NDArray[np.uint8], place: Location, offset: int) -> torch.Tensor:
    """Elements of ``place`` from byte ``offset`` of a storage, as a torch tensor.

    Raises:
        CheckpointError: torch has no such type, or refuses the shape.
    """
    import torch

    if not readable(place.dtype) or not hasattr(torch, place.dtype):
        raise place.source.fault(
            f"elements of type {place.dtype} cannot be read", "Save these tensors as float32."
        )
    kind = getattr(torch, place.dtype)
    try:
        if 0 in place.shape:
            return torch.empty(place.shape, dtype=kind)
        whole = torch.from_numpy(data[: len(data) - len(data) % place.itemsize]).view(kind)
        stride = place.stride if place.stride is not None else _row_major(place.shape)
        return torch.as_strided(whole, place.shape, stride, offset // place.itemsize)
    except (RuntimeError, ValueError, TypeError) as error:
        raise place.source.fault(
            f"a tensor of shape {list(place.shape)} cannot be made ({error})"
        ) from error


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Steps in elements of a contiguous array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
