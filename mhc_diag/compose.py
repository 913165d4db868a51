"""Products of H_res over depth, per token, that neither overflow nor underflow.

Letters: L sites in execution order, T tokens, n streams. M[l, t] is the matrix as applied, so the
first site stands rightmost: x_out = M_{L-1} ... M_1 M_0 x_in.

Every matrix travels as a pair: values near 1 and a power of two. Scaling by a power of two is
exact, so a product of 400 matrices of size 1e10 loses nothing but the rounding of its own
multiplications. Entries that are not finite propagate by the rules of IEEE arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from mhc_diag.arrays import exponents, namespace, pow2, streams_first

Array = Any

_NOTHING: Final = -(2**40)
"""Exponent of a matrix of zeros: it must not decide the scale of a mean with others."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """Matrices beyond the range of a double: ``values * 2**exponent``."""

    values: Array
    """[..., n, n] float64; the largest finite entry of each matrix is near 1."""
    exponent: Array
    """[...] int64; far below every other for a matrix of zeros."""

    def __getitem__(self, index: int | slice) -> Scaled:
        """Matrices picked along the first axis."""
        return Scaled(self.values[index, ...], self.exponent[index, ...])


@np.errstate(all="ignore")
def rescale(values: Array, exponent: Array | None = None) -> Scaled:
    """Move the size of each matrix into its exponent; the matrices stay what they are.

    Args:
        values: [..., n, n] float64.
        exponent: [...] int64, or None for zeros.
    """
    xp = namespace(values)
    sizes = xp.abs(values)
    largest = xp.max(sizes, axis=(-2, -1))
    if not bool(xp.all(xp.isfinite(largest))):
        sizes = xp.where(xp.isfinite(sizes), sizes, xp.zeros_like(sizes))
        largest = xp.max(sizes, axis=(-2, -1))
    shift = xp.clip(exponents(largest), -1022, 1022)
    values = values * pow2(-shift)[..., None, None]
    shift = xp.where(largest == 0, xp.full_like(shift, _NOTHING), shift)
    return Scaled(values, shift if exponent is None else shift + exponent)


@np.errstate(all="ignore")
def multiply(X: Scaled, Y: Scaled) -> Scaled:
    """The products X Y of stacks [..., n, n] that broadcast against each other.

    A sum over k of outer products, not matmul: with the streams first in memory it is as fast
    for n = 4, and the result keeps that layout for the readings.
    """
    total = X.values[..., :, 0:1] * Y.values[..., 0:1, :]
    for k in range(1, X.values.shape[-1]):
        total += X.values[..., :, k : k + 1] * Y.values[..., k : k + 1, :]
    return rescale(total, X.exponent + Y.exponent)


def scaled(M: Array) -> Scaled:
    """The matrices themselves as pairs.

    Args:
        M: [..., n, n], real numbers of any precision.
    """
    xp = namespace(M)
    return rescale(streams_first(xp.astype(M, xp.float64, copy=False)))


def concatenate(parts: Sequence[Scaled]) -> Scaled:
    """Stacks [k, T, n, n] joined along their first axis, streams first in memory."""
    xp = namespace(parts[0].values)
    values = xp.concat([xp.permute_dims(A.values, (2, 3, 0, 1)) for A in parts], axis=2)
    return Scaled(
        xp.permute_dims(values, (2, 3, 0, 1)), xp.concat([A.exponent for A in parts], axis=0)
    )


def _stack(matrices: Sequence[Scaled]) -> Scaled:
    """Matrices [T, n, n] of each site -> [L, T, n, n], streams first in memory."""
    xp = namespace(matrices[0].values)
    values = xp.stack([xp.permute_dims(A.values, (1, 2, 0)) for A in matrices], axis=2)
    return Scaled(
        xp.permute_dims(values, (2, 3, 0, 1)), xp.stack([A.exponent for A in matrices], axis=0)
    )


def _running(M: Scaled, step: Callable[[Scaled, Scaled], Scaled]) -> list[Scaled]:
    products = [M[0]]
    for l in range(1, M.values.shape[0]):
        products.append(step(products[-1], M[l]))
    return products


def prefix(M: Array | Scaled) -> Scaled:
    """A_l = M_l ... M_0: what a signal has gone through from the input to site l.

    Args:
        M: [L, T, n, n], L >= 1.

    Returns:
        [L, T, n, n], the product per token.
    """
    M = M if isinstance(M, Scaled) else scaled(M)
    return _stack(_running(M, lambda product, site: multiply(site, product)))


def suffix(M: Array | Scaled) -> Scaled:
    """A_l = M_{L-1} ... M_l: what a gradient goes through from the output down to site l.

    Args:
        M: [L, T, n, n], L >= 1.

    Returns:
        [L, T, n, n], the product per token.
    """
    M = M if isinstance(M, Scaled) else scaled(M)
    xp = namespace(M.values)
    upside_down = Scaled(xp.flip(M.values, axis=0), xp.flip(M.exponent, axis=0))
    return _stack(_running(upside_down, multiply)[::-1])


def magnitudes(M: Array | Scaled) -> Scaled:
    """abs(M), entry by entry: products of it bound how much the products of M cancel."""
    M = M if isinstance(M, Scaled) else scaled(M)
    return Scaled(namespace(M.values).abs(M.values), M.exponent)


def windows_ending(
    M: Array | Scaled, *, first: int = 0, last: int | None = None
) -> Iterator[tuple[int, Scaled]]:
    """All products M_b ... M_a, one end site b after the other.

    Args:
        M: [L, T, n, n].
        first: the first start site.
        last: the last start site, included; None for L - 1. A block of start sites bounds memory.

    Yields:
        b in execution order from ``first``, and [k, T, n, n] with M_b ... M_{first+i} at i, for
        the k = min(b, last) - first + 1 start sites.
    """
    M = M if isinstance(M, Scaled) else scaled(M)
    L = M.values.shape[0]
    last = L - 1 if last is None else last
    open_windows: Scaled | None = None
    for b in range(first, L):
        if open_windows is not None:
            open_windows = multiply(M[b], open_windows)
        if b <= last:
            new = M[b : b + 1]
            open_windows = new if open_windows is None else concatenate([open_windows, new])
        assert open_windows is not None  # first <= last: the first step opened it
        yield b, open_windows
