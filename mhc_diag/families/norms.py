"""How implementations normalise the streams before they project them to logits.

Letters: n streams, C width; ``x`` is [..., n, C].
"""

from __future__ import annotations

from mhc_diag.arrays import namespace
from mhc_diag.trace import Array


def rms(x: Array, eps: float, weight: Array | None = None) -> Array:
    """x / sqrt(mean(x^2) + eps) over the last axis, times ``weight`` where there is one."""
    xp = namespace(x)
    scaled = x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)
    return scaled if weight is None else scaled * weight


def over_rms(x: Array, eps: float) -> Array:
    """x / (sqrt(mean(x^2)) + eps) over the last axis: eps outside the root, as in Megatron."""
    xp = namespace(x)
    return x / (xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True)) + eps)


def unit_length(x: Array, gamma: Array) -> Array:
    """x / max(|x|, 1e-12) * sqrt(C) * (gamma + 1) over the last axis: lucidrains' RMSNorm."""
    xp = namespace(x)
    length = xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))
    return x / xp.clip(length, min=1e-12) * x.shape[-1] ** 0.5 * (gamma + 1)


def flat(x: Array) -> Array:
    """[..., n, C] -> [..., n*C], stream after stream."""
    return namespace(x).reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))
