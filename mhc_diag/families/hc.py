"""From logits to H_pre, H_post, H_res: the families of hyper-connections.

Letters: n streams, C width. ``x_hat`` is the normalised state, flat ``[..., n*C]`` or per stream
``[..., n, C]``; ``None`` stands for the static reference point, where the dynamic part is zero.
Matrices are as **stored** by the implementation; the adapter alone turns them into M.

Sources: Hyper-Connections, arXiv 2409.19606, eqs. 5 and 10 to 13 (unconstrained, tanh-gated);
mHC, arXiv 2512.24880, eqs. 7 to 9; mHC-lite, arXiv 2601.05732.
"""

from __future__ import annotations

from dataclasses import dataclass

from mhc_diag.arrays import namespace, sigmoid
from mhc_diag.families.birkhoff import permutation_mixture
from mhc_diag.families.sinkhorn import Sinkhorn, project
from mhc_diag.trace import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """What the projection acts on: static plus scaled dynamic part."""

    pre: Array
    """[..., n]"""
    post: Array
    """[..., n]"""
    res: Array
    """[..., n, n] as stored, or [..., n!] for mixtures of permutations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """The three maps of one site; H_res as stored by the implementation."""

    H_pre: Array
    """[..., n]; None where the read is no weight per stream of this site."""
    H_post: Array
    """[..., n]"""
    H_res: Array
    """[..., n, n]"""
    logits: Array | None = None
    """[..., n, n] before the projection; None where it does not act on a matrix."""


def packed_logits(
    x_hat: Array | None, *, weight: Array | None, bias: Array, scales: Array, n: int
) -> Logits:
    """Logits of one projection whose rows are packed pre | post | res (DeepSeek's order).

    Args:
        x_hat: [..., n*C], or None for the static point.
        weight: [n + n + R, n*C] with R = n*n (row-major) or n!; not needed for the static point.
        bias: [n + n + R].
        scales: [3], the gates alpha of pre, post and res.
        n: number of streams.
    """
    parts = []
    bounds = [0, n, 2 * n, bias.shape[0]]
    for k in range(3):
        rows = slice(bounds[k], bounds[k + 1])
        part = bias[rows]
        if x_hat is not None and weight is not None:
            part = (x_hat @ weight[rows, :].T) * scales[k] + part
        parts.append(part)
    pre, post, res = parts
    if res.shape[-1] == n * n:
        res = namespace(res).reshape(res, (*res.shape[:-1], n, n))
    return Logits(pre=pre, post=post, res=res)


def dynamic(
    x_hat: Array | None, weight: Array | None, scale: Array, static: Array, *, tanh: bool = False
) -> Array:
    """``scale * (tanh of) (x_hat @ weight) + static``; ``static`` alone at the static point.

    Args:
        x_hat: [..., C_in] or None.
        weight: [C_in, out]; not needed at the static point.
        scale: scalar, or broadcastable to the result.
        static: broadcastable to [..., out].
        tanh: gate of Hyper-Connections, eqs. 10 to 13.
    """
    if x_hat is None or weight is None:
        return static
    moved = x_hat @ weight
    if tanh:
        moved = namespace(moved).tanh(moved)
    return moved * scale + static


def hc_maps(logits: Logits) -> Maps:
    """Hyper-Connections: the logits are the maps; nothing holds them near identity."""
    return Maps(H_pre=logits.pre, H_post=logits.post, H_res=logits.res)


def mhc_maps(
    logits: Logits, sinkhorn: Sinkhorn | None, *, pre_eps: float = 0.0, post_gain: float = 2.0
) -> Maps:
    """mHC, eqs. 7 to 9: sigmoid, ``post_gain`` times sigmoid, Sinkhorn.

    Args:
        logits: with ``res`` a matrix [..., n, n].
        sinkhorn: the implementation's variant; None where it was switched off.
        pre_eps: added to H_pre by some implementations.
        post_gain: 2 in the paper.
    """
    H_res = logits.res if sinkhorn is None else project(logits.res, sinkhorn)
    return Maps(
        H_pre=sigmoid(logits.pre) + pre_eps,
        H_post=post_gain * sigmoid(logits.post),
        H_res=H_res,
        logits=logits.res,
    )


def mhc_lite_maps(logits: Logits, n: int) -> Maps:
    """mHC-lite: as mHC, with H_res a convex mixture of all n! permutation matrices."""
    return Maps(
        H_pre=sigmoid(logits.pre),
        H_post=2.0 * sigmoid(logits.post),
        H_res=permutation_mixture(logits.res, n),
    )
