"""Mixing matrices that are doubly stochastic by construction: mixtures of permutations.

Source: Birkhoff (1946); mHC-lite, arXiv 2601.05732.
"""

from __future__ import annotations

import itertools
from functools import cache
from math import factorial
from typing import Any

import numpy as np

from mhc_diag.arrays import namespace, softmax
from mhc_diag.trace import Array


@cache
def permutation_matrices(n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All n! permutation matrices ``[n!, n, n]``, P_r[i, perm_r[i]] = 1, identity first.

    The order is lexicographic in ``perm_r``, as ``itertools.permutations`` gives it and mHC-lite
    stores its logits.
    """
    rows = np.arange(n)
    P = np.zeros((factorial(n), n, n))
    for r, permutation in enumerate(itertools.permutations(range(n))):
        P[r, rows, list(permutation)] = 1.0
    return P


def permutation_mixture(logits: Array, n: int) -> Array:
    """H = sum over r of softmax(logits)_r P_r: ``[..., n!] -> [..., n, n]``, as stored."""
    xp = namespace(logits)
    weights = softmax(logits, axis=-1)
    P = xp.asarray(permutation_matrices(n), dtype=weights.dtype, device=_device(weights))
    mixed = weights @ xp.reshape(P, (factorial(n), n * n))
    return xp.reshape(mixed, (*weights.shape[:-1], n, n))


def _device(array: Array) -> Any:
    """Where the array lives; None for numpy, which has one place only."""
    return getattr(array, "device", None) if not isinstance(array, np.ndarray) else None
