"""Hypothesis strategies: stacks of matrices as real models and nasty ones have them.

Letters: L sites, T tokens, n streams; M [L, T, n, n], row = destination, column = source.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Stack = npt.NDArray[np.float64]


def _entries(kind: str) -> st.SearchStrategy[float]:
    if kind == "ones":  # zeros, signs and exact cancellation
        return st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, -3.0])
    return st.floats(-3.0, 3.0, allow_subnormal=False)


@st.composite
def stacks(
    draw: st.DrawFn,
    *,
    max_sites: int = 4,
    max_tokens: int = 4,
    max_streams: int = 5,
    exponents: tuple[int, int] = (-10, 10),
) -> Stack:
    """Signed, non-symmetric [L, T, n, n]; sizes 10**exponents per site and token, some singular."""
    L = draw(st.integers(1, max_sites))
    T = draw(st.integers(1, max_tokens))
    n = draw(st.integers(1, max_streams))
    kind = draw(st.sampled_from(["floats", "ones"]))
    M = draw(hnp.arrays(np.float64, (L, T, n, n), elements=_entries(kind)))
    sizes = draw(hnp.arrays(np.int64, (L, T), elements=st.integers(*exponents)))
    M = M * (10.0**sizes)[:, :, None, None]
    if draw(st.booleans()):  # ill-conditioned: one row nearly repeats another
        M[:, :, -1] = M[:, :, 0] * (1.0 + draw(st.sampled_from([0.0, 1e-12, 1e-6])))
    return np.asarray(M)


@st.composite
def doubly_stochastic(
    draw: st.DrawFn, *, max_sites: int = 4, max_tokens: int = 4, max_streams: int = 5
) -> Stack:
    """Mixtures of up to three permutations, [L, T, n, n]."""
    L = draw(st.integers(1, max_sites))
    T = draw(st.integers(1, max_tokens))
    n = draw(st.integers(1, max_streams))
    seeds = draw(st.lists(st.permutations(range(n)), min_size=3, max_size=3))
    corners = np.stack([np.eye(n)[list(order)] for order in seeds])
    weights = draw(hnp.arrays(np.float64, (L, T, 3), elements=st.floats(0.05, 1.0)))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.einsum("ltk,kij->ltij", weights, corners))


@st.composite
def with_holes(draw: st.DrawFn, source: st.SearchStrategy[Stack]) -> tuple[Stack, list[bool]]:
    """A stack, and which of its sites were measured; unmeasured sites hold NaN."""
    M = draw(source).copy()
    measured = draw(st.lists(st.booleans(), min_size=len(M), max_size=len(M)))
    M[~np.asarray(measured)] = np.nan
    return M, measured


@st.composite
def not_finite(draw: st.DrawFn, source: st.SearchStrategy[Stack]) -> Stack:
    """A stack with a few entries that are infinite or NaN."""
    M = draw(source).copy()
    for _ in range(draw(st.integers(1, 3))):
        place: Any = tuple(draw(st.integers(0, size - 1)) for size in M.shape)
        M[place] = draw(st.sampled_from([np.inf, -np.inf, np.nan]))
    return M
