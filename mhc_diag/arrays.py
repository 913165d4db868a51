"""What the array API standard lacks, once; and the door through which matrices come in.

Families, products and readings are written against the array API standard, so that one definition
serves numpy (static analysis, no torch import), torch tensors and any other array library. Nothing
here imports torch: a torch tensor can only exist where torch is imported already.
"""

from __future__ import annotations

import sys
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mhc_diag.errors import OptionError

Array = Any
"""An array of any library that follows the array API standard."""


def is_torch(array: Array) -> bool:
    """Whether ``array`` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, getattr(torch, "Tensor", ()))


def namespace(*arrays: Array) -> Any:
    """The array API namespace of ``arrays``: numpy itself, or the wrapper of another library.

    Args:
        arrays: arrays of one library; plain Python numbers are ignored.

    Raises:
        TypeError: arrays of two libraries at once.
    """
    if all(isinstance(array, np.ndarray | np.generic | float | int) for array in arrays):
        return np  # numpy >= 2 follows the standard, and its wrapper takes 0.1 s to import
    import array_api_compat

    return array_api_compat.array_namespace(*arrays)


def to_numpy(array: Array) -> npt.NDArray[Any]:
    """``array`` in host memory, detached from any graph; bfloat16 and float8 become float32."""
    if not is_torch(array):
        return np.asarray(array)
    array = array.detach().cpu()
    torch = sys.modules["torch"]
    numpy_floats = (torch.float16, torch.float32, torch.float64)
    if array.dtype.is_floating_point and array.dtype not in numpy_floats:
        array = array.to(torch.float32)
    return np.asarray(array.numpy())


def to_float64(array: Array) -> Array:
    """``array`` as float64, without a copy where it is float64 already.

    Args:
        array: any shape; numpy, a torch tensor, another array API library, or nested lists.

    Returns:
        Same shape. CPU tensors and tensors of devices without float64 become numpy, tensors of
        other devices stay where they are, other libraries keep their own arrays.
    """
    if is_torch(array):
        if array.device.type in {"cpu", "mps"}:
            return to_numpy(array).astype(np.float64, copy=False)
        return array.detach().to(sys.modules["torch"].float64)
    if isinstance(array, np.ndarray) or not hasattr(array, "__array_namespace__"):
        return np.asarray(array, dtype=np.float64)
    xp = namespace(array)
    return xp.astype(array, xp.float64, copy=False)


def from_numpy(values: npt.NDArray[Any], like: Array) -> Array:
    """``values`` as an array of the library and on the device of ``like``."""
    if isinstance(like, np.ndarray | np.generic):
        return values
    import array_api_compat

    return namespace(like).asarray(values, device=array_api_compat.device(like))


def streams_first(A: Array) -> Array:
    """The same array [..., n, n], laid out so that its two last axes vary slowest in memory.

    Rows of n = 4 numbers are too short for vector instructions; with the tokens contiguous, sums
    over a row are ten times faster in numpy. Shape and values do not change.
    """
    xp = namespace(A)
    axes = range(A.ndim)
    inner = xp.permute_dims(A, (*axes[-2:], *axes[:-2]))
    inner = np.ascontiguousarray(inner) if xp is np else inner
    return xp.permute_dims(inner, (*axes[2:], *axes[:2]))


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) over its sum along ``axis``; same shape, safe for large x."""
    xp = namespace(x)
    weights = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return weights / xp.sum(weights, axis=axis, keepdims=True)


def logsumexp(x: Array, axis: int = -1, *, keepdims: bool = False) -> Array:
    """Log of the sum of exp(x) along ``axis``, safe for large x; -inf where all x are -inf."""
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isinf(top), xp.zeros_like(top), top)
    total = xp.sum(xp.exp(x - top), axis=axis, keepdims=True)
    empty = total == 0
    log = xp.log(xp.where(empty, xp.ones_like(total), total)) + top
    log = xp.where(empty, xp.full_like(log, -xp.inf), log)
    return log if keepdims else xp.squeeze(log, axis=axis)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)); same shape, without overflow and exact in its small tail."""
    xp = namespace(x)
    return xp.exp(-xp.logaddexp(xp.zeros_like(x), -x))


def exponents(x: Array) -> Array:
    """The e of abs(x) = m * 2**e with m in [0.5, 1), as int64; 0 where x is 0 or not finite."""
    xp = namespace(x)
    if xp is np:
        e = np.frexp(x)[1].astype(np.int64)
    elif is_torch(x):
        torch = sys.modules["torch"]
        e = torch.frexp(x).exponent.to(torch.int64)
    else:
        e = from_numpy(np.frexp(to_numpy(x))[1].astype(np.int64), x)
    return xp.where(xp.isfinite(x), e, xp.zeros_like(e))


def pow2(k: Array) -> Array:
    """2**k as float64, exact; k is clipped to [-1022, 1023], the range of normal doubles."""
    xp = namespace(k)
    k = xp.clip(k, -1022, 1023)
    if xp is np:
        return np.ldexp(1.0, k.astype(np.int32))
    if is_torch(k):
        return ((k + 1023) << 52).view(sys.modules["torch"].float64)
    return from_numpy(np.ldexp(1.0, to_numpy(k).astype(np.int32)), k)


def _sizes(A: npt.NDArray[np.float64], kind: str) -> npt.NDArray[np.float64]:
    if kind == "svd":
        return np.asarray(np.linalg.svd(A, compute_uv=False))
    return -np.sort(-np.abs(np.linalg.eigvals(A)), axis=-1)


def _spectrum(A: Array, kind: str) -> Array:
    """Singular values or abs eigenvalues [..., n], largest first; NaN for what has none."""
    host = to_numpy(A).astype(np.float64, copy=False)
    finite = np.asarray(np.isfinite(host).all(axis=(-2, -1), keepdims=True))
    host = np.where(finite, host, 0.0)
    try:
        sizes = _sizes(host, kind)
    except np.linalg.LinAlgError:  # one matrix did not converge: find it, keep the others
        sizes = np.full(host.shape[:-1], np.nan)
        for index in np.ndindex(host.shape[:-2]):
            try:
                sizes[index] = _sizes(host[index], kind)
            except np.linalg.LinAlgError:
                continue  # stays NaN, which every reader reports as "not finite"
    return from_numpy(np.where(finite[..., 0], sizes, np.nan), A)


def eigvals_abs(A: Array) -> Array:
    """Abs eigenvalues of [..., n, n], largest first, float64 [..., n].

    NaN where a matrix has an entry that is not finite, or where LAPACK does not converge; never
    raises. Formed on the host: no accelerator is faster for thousands of tiny matrices.
    """
    return _spectrum(A, "eig")


def svdvals(A: Array) -> Array:
    """Singular values of [..., n, n], largest first, float64 [..., n]; NaN as in eigvals_abs."""
    return _spectrum(A, "svd")


class _Format(NamedTuple):
    """A binary floating-point format."""

    bits: int
    """Significant bits, the hidden one included."""
    smallest: int
    """Exponent of the smallest normal number."""
    largest: float
    beyond: float = np.inf
    """What a value becomes that rounds to more than ``largest``."""


FORMATS: Final = {
    "float32": _Format(24, -126, (2 - 2.0**-23) * 2.0**127),
    "bfloat16": _Format(8, -126, (2 - 2.0**-7) * 2.0**127),
    "float16": _Format(11, -14, 65504.0),
    "float8_e5m2": _Format(3, -14, 57344.0),
    "float8_e4m3fn": _Format(4, -6, 448.0, beyond=np.nan),
}
"""Formats that streams are mixed in; ``float64`` needs no rounding."""


@np.errstate(over="ignore")
def round_to(array: Array, dtype_name: str) -> Array:
    """The float64 values that ``array`` has after a cast to a narrower floating-point format.

    Args:
        array: any shape.
        dtype_name: a name of FORMATS, or ``float64``; ``torch.`` before it is ignored.

    Returns:
        Same shape: rounded to nearest, ties to even, with subnormals, as torch's casts do. Beyond
        the largest number infinity; float8_e4m3fn has none, so NaN (some casts saturate there).

    Raises:
        OptionError: the format is unknown.
    """
    name = dtype_name.removeprefix("torch.")
    x = to_float64(array)
    if name == "float64":
        return x
    if name not in FORMATS:
        raise OptionError(
            "rounding H_res to the precision it is applied in",
            f"{dtype_name!r} is no known floating-point format",
            f"Known: {', '.join(FORMATS)}, float64.",
        )
    target = FORMATS[name]
    xp = namespace(x)
    e = exponents(x) - target.bits
    e = xp.maximum(e, xp.full_like(e, target.smallest - target.bits + 1))
    rounded = xp.round(x * pow2(-e)) * pow2(e)
    beyond = xp.where(x < 0, xp.full_like(x, -target.beyond), xp.full_like(x, target.beyond))
    return xp.where(xp.abs(rounded) > target.largest, beyond, rounded)
