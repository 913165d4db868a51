"""What a pickle builds when nothing of it is executed: names and plain records.

torch writes a tensor as "call torch._utils._rebuild_tensor_v2 with this storage, offset, size,
stride". Here such a call becomes a :class:`TensorRef`, by our own code; every other class or
function of the pickle stays a name (:class:`Global`) and its instances stay records of what the
pickle says about them (:class:`Opaque`). No name is ever imported and nothing is ever called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mhc_diag.checkpoints.dtypes import BITS
from mhc_diag.checkpoints.location import MAX_DIMENSIONS


class InertPickleError(ValueError):
    """A pickle that cannot be followed, or that contradicts itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A class or function by name, never imported."""

    name: str


@dataclass(slots=True, eq=False)
class Opaque:
    """An instance of a foreign class, or the result of a foreign call: what the pickle says."""

    name: str
    args: tuple[Any, ...] = ()
    state: dict[Any, Any] = field(default_factory=dict)
    """Attributes."""
    items: dict[Any, Any] = field(default_factory=dict)
    """Entries of a subclass of dict."""
    elements: list[Any] = field(default_factory=list)
    """Elements of a subclass of list or set."""


@dataclass(frozen=True, slots=True, eq=False)
class StorageRef:
    """One storage of a torch file: record name, element type (None: bytes), number of elements."""

    key: str
    dtype: str | None
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class TensorRef:
    """A view on a storage; shape and stride in elements."""

    storage: StorageRef
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


MAX_NAME = 1000
"""Most characters of a class's, path's or tensor's name."""

STORAGES: Mapping[str, str | None] = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.storage.UntypedStorage": None,
    "torch.UntypedStorage": None,
}
"""Storage classes -> element type."""


def storage(pid: Any) -> StorageRef:
    """The persistent id ("storage", class, key, location, count) of a torch file.

    Raises:
        InertPickleError: anything else.
    """
    match pid:
        case ("storage", Global(name), str(key), _, int(count)) if name in STORAGES and count >= 0:
            return StorageRef(key, STORAGES[name], count)
    raise InertPickleError("a storage is described in an unknown way")


def _sizes(value: Any) -> tuple[int, ...]:
    """A tuple of sizes, checked."""
    if not isinstance(value, (tuple, list)) or len(value) > MAX_DIMENSIONS:
        raise InertPickleError("a tensor has no valid shape or stride")
    if not all(type(item) is int and 0 <= item < 2**63 for item in value):
        raise InertPickleError("a tensor has no valid shape or stride")
    return tuple(value)


def _tensor(args: tuple[Any, ...], dtype: str | None = None) -> TensorRef:
    """_rebuild_tensor(storage, offset, size, stride, ...)."""
    if len(args) < 4 or not isinstance(args[0], StorageRef) or type(args[1]) is not int:
        raise InertPickleError("a tensor is described in an unknown way")
    kind = dtype or args[0].dtype
    shape, stride = _sizes(args[2]), _sizes(args[3])
    if kind is None or args[1] < 0 or len(shape) != len(stride):
        raise InertPickleError("a tensor is described in an unknown way")
    return TensorRef(args[0], kind, args[1], shape, stride)


def _tensor_v3(args: tuple[Any, ...]) -> TensorRef:
    """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, ...)."""
    if len(args) < 7 or not isinstance(args[6], Global):
        raise InertPickleError("a tensor is described in an unknown way")
    dtype = args[6].name.removeprefix("torch.")
    if dtype not in BITS:
        raise InertPickleError(f"a tensor has the unknown type {dtype[:40]!r}")
    return _tensor(args, dtype)


def _first(args: tuple[Any, ...]) -> Any:
    """_rebuild_parameter(data, requires_grad, hooks): the data."""
    return args[0] if args else None


def _mapping(args: tuple[Any, ...]) -> Any:
    """OrderedDict(), defaultdict(factory), Counter(dict): a dict, not copied."""
    if any(isinstance(arg, (list, tuple)) for arg in args):
        return Opaque("collections.OrderedDict", args)  # pairs, as Python 2 wrote them
    return next((arg for arg in args if isinstance(arg, dict)), {})


def _sequence(args: tuple[Any, ...]) -> Any:
    """set, frozenset, list, tuple, torch.Size: the elements as they stand."""
    return args[0] if args and isinstance(args[0], (list, tuple)) else []


def _encode(args: tuple[Any, ...]) -> Any:
    """_codecs.encode(text, "latin1"): how protocol 2 writes bytes."""
    if len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1"):
        try:
            return args[0].encode("latin-1")
        except UnicodeEncodeError as error:
            raise InertPickleError("bytes are written in an unknown way") from error
    return None


def _device(args: tuple[Any, ...]) -> Any:
    """torch.device("cuda", 0): its text."""
    return _joined("torch.device", ":", args)


def _path(args: tuple[Any, ...]) -> Any:
    """pathlib.PosixPath("a", "b"): its text."""
    return _joined("pathlib.PosixPath", "/", args)


def _joined(name: str, mark: str, args: tuple[Any, ...]) -> Any:
    """Short arguments as one text; the same long text named many times would fill the memory."""
    texts = [str(arg) if isinstance(arg, int) else arg for arg in args[:_PARTS]]
    if len(args) > _PARTS or not all(isinstance(t, str) and len(t) <= MAX_NAME for t in texts):
        return Opaque(name, args)
    return mark.join(texts)


def _numpy_scalar(args: tuple[Any, ...]) -> Any:
    """numpy.core.multiarray.scalar(dtype, bytes): a plain number, None for other types."""
    match args:
        case (Opaque(args=(str(code), *_)), bytes(data)) if code in _NUMPY_CODES:
            kind = np.dtype(f"<{code}")
            if kind.itemsize == len(data):
                return np.frombuffer(data, dtype=kind)[0].item()
    return None


_PARTS = 64
_NUMPY_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

_REBUILD: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
}


def _from_type(args: tuple[Any, ...]) -> Any:
    """_rebuild_from_type_v2(function, class, args, state): a tensor with attributes."""
    match args:
        case (Global(name), _, tuple(inner), *_) if name in _REBUILD:
            return _REBUILD[name](inner)
    return Opaque("torch._tensor._rebuild_from_type_v2", args)


STAND_INS: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
    **_REBUILD,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": _sequence,
    "torch.device": _device,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": _sequence,
    "builtins.tuple": _sequence,
    "builtins.set": _sequence,
    "builtins.frozenset": _sequence,
    "_codecs.encode": _encode,
    "pathlib.PosixPath": _path,
    "pathlib.PurePosixPath": _path,
    "pathlib.WindowsPath": _path,
    "pathlib._local.PosixPath": _path,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
"""Names whose call we know how to write down ourselves."""

KNOWN = (
    set(STAND_INS)
    | set(STORAGES)
    | {f"torch.{name}" for name in BITS}
    | {"numpy.dtype", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
    | {"numpy.ndarray", "builtins.complex", "builtins.bytearray", "builtins.slice"}
    | {"builtins.int", "builtins.float", "builtins.bool", "builtins.str", "builtins.object"}
)
"""Names that are no news to a reader: data types, not somebody's code."""


def call(function: Any, args: tuple[Any, ...]) -> Any:
    """What a call would make, without calling: a stand-in's record or an :class:`Opaque`.

    Raises:
        InertPickleError: a tensor that contradicts itself.
    """
    if isinstance(function, Global):
        stand_in = STAND_INS.get(function.name)
        return stand_in(args) if stand_in else Opaque(function.name, args)
    return Opaque("a call of something that is no name", args)


def hashable(key: Any) -> Any:
    """``key`` if it may be a dict's key: a scalar, an inert record, or a flat tuple of scalars.

    Raises:
        InertPickleError: anything else; hashing a deeply nested tuple could exhaust the C stack.
    """
    if isinstance(key, (int, float)):
        if abs(key) < 2**61 - 1:  # beyond, many numbers share one hash
            return key
    elif isinstance(key, tuple):
        if all(isinstance(item, (str, bytes, int, float, type(None))) for item in key):
            return key
    elif not isinstance(key, (dict, list)):
        return key
    raise InertPickleError("a dict has a key that is no plain value")
