"""Mixing matrices that are Kronecker products of 2 x 2 doubly stochastic ones: KromHC.

Letters: n = 2^K streams. Every factor is ``[[p, 1-p], [1-p, p]]``, symmetric, so the product is
symmetric, doubly stochastic, and commutes with all others of its family.
"""

from __future__ import annotations

from mhc_diag.arrays import namespace, softmax
from mhc_diag.families.hc import Logits, Maps, mhc_maps
from mhc_diag.trace import Array


def kronecker_mixture(logits: Array) -> Array:
    """H = U_1 x ... x U_K: ``[..., 2K] -> [..., 2^K, 2^K]``.

    Each pair of logits is (keep, swap), p is the softmax's first entry, and U_1 is the outermost
    factor.
    """
    xp = namespace(logits)
    lead, count = logits.shape[:-1], logits.shape[-1] // 2
    weights = softmax(xp.reshape(logits, (*lead, count, 2)), axis=-1)
    H = xp.ones_like(weights[..., :1, :1])
    for k in range(count):
        keep, swap = weights[..., k, 0], weights[..., k, 1]
        U = xp.stack([xp.stack([keep, swap], axis=-1), xp.stack([swap, keep], axis=-1)], axis=-2)
        size = 2 * H.shape[-1]
        product = H[..., :, None, :, None] * U[..., None, :, None, :]
        H = xp.reshape(product, (*lead, size, size))
    return H


def kromhc_maps(logits: Logits) -> Maps:
    """KromHC: H_pre and H_post as in mHC, H_res from pairs of logits ``res`` [..., 2K]."""
    bounded = mhc_maps(logits, None)
    return Maps(H_pre=bounded.H_pre, H_post=bounded.H_post, H_res=kronecker_mixture(logits.res))
