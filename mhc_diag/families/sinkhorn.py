"""Sinkhorn-Knopp as it is really written: one record per variant, reproduced exactly.

Alternating row and column normalisation has one limit and many truncations. Implementations differ
in the start (softmax with a floor, or exp), in the axis normalised last (only that one is exact),
in where epsilon stands and in the temperature; at sharp logits their results differ by up to 0.9
per entry. Axes here are those of the **stored** matrix: -1 normalises over the last axis, -2 over
the one before; orientation is the adapter's business.

Source: Sinkhorn and Knopp (1967); mHC, arXiv 2512.24880, eq. 9 (t_max = 20).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mhc_diag.arrays import logsumexp, namespace, softmax
from mhc_diag.errors import OptionError
from mhc_diag.trace import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinkhorn:
    """One truncated projection onto the doubly stochastic matrices."""

    order: tuple[int, int]
    """Axes in the order of one iteration; the last one is exact when the iteration stops."""
    start: Literal["softmax", "exp", "log"] = "exp"
    """softmax over ``order[0]`` plus ``eps``, which is the first half of iteration 1; exp of the
    shifted logits; or logits kept in the log domain until the end."""
    shift: tuple[int, ...] = ()
    """Axes over which the maximum is subtracted before exp."""
    denominator: Literal["sum + eps", "max(sum, eps)", "sum"] = "sum"
    """What each normalisation divides by."""
    iterations: int = 20
    eps: float = 0.0
    tau: float = 1.0
    """Temperature: logits are divided by it."""
    clamp: float | None = None
    """Logits are clipped to [-clamp, clamp] first."""


VARIANTS: dict[str, Sinkhorn] = {
    "paper": Sinkhorn(order=(-2, -1), shift=(-2, -1)),
    "deepseek": Sinkhorn(order=(-1, -2), start="softmax", denominator="sum + eps", eps=1e-6),
    "torchtitan": Sinkhorn(order=(-1, -2), shift=(-1,), denominator="sum + eps", eps=1e-6),
    "megatron": Sinkhorn(order=(-1, -2), shift=(-1,), denominator="max(sum, eps)", eps=1e-6),
    "motif": Sinkhorn(order=(-1, -2), clamp=20.0, denominator="max(sum, eps)", eps=1e-8),
    "lucidrains": Sinkhorn(order=(-2, -1), shift=(-2,), denominator="max(sum, eps)", eps=1e-12),
    "log-columns-first": Sinkhorn(order=(-2, -1), start="log"),
    "log-rows-first": Sinkhorn(order=(-1, -2), start="log"),
    "tokenbender": Sinkhorn(order=(-1, -2), start="log", iterations=10, tau=0.05),
}
"""Name -> variant, with the defaults of the code base it is named after."""


def variant(name: str, **changes: float | None) -> Sinkhorn:
    """The named variant with some of its numbers changed.

    Args:
        name: a key of :data:`VARIANTS`.
        **changes: ``iterations``, ``eps``, ``tau`` or ``clamp``.

    Raises:
        OptionError: no such variant.

    Example:
        >>> variant("deepseek", iterations=2).iterations
        2
    """
    if name not in VARIANTS:
        raise OptionError(
            f"Sinkhorn variant {name!r}", "there is none", f"Known: {', '.join(VARIANTS)}."
        )
    return replace(VARIANTS[name], **changes)  # type: ignore[arg-type]  # numbers, checked by use


def project(logits: Array, how: Sinkhorn) -> Array:
    """Project ``logits`` [..., n, n] as ``how`` says; the result has the same shape and dtype."""
    xp = namespace(logits)
    if how.tau != 1.0:
        logits = logits / how.tau
    if how.clamp is not None:
        logits = xp.clip(logits, -how.clamp, how.clamp)
    if how.start == "log":
        for _ in range(how.iterations):
            for axis in how.order:
                logits = logits - logsumexp(logits, axis=axis, keepdims=True)
        return xp.exp(logits)
    A = _start(logits, how)
    axes = list(how.order) * how.iterations
    for axis in axes[1:] if how.start == "softmax" else axes:
        A = A / _denominator(xp.sum(A, axis=axis, keepdims=True), how)
    return A


def _start(logits: Array, how: Sinkhorn) -> Array:
    xp = namespace(logits)
    if how.start == "softmax":
        return softmax(logits, axis=how.order[0]) + how.eps
    if how.shift:
        logits = logits - xp.max(logits, axis=how.shift, keepdims=True)
    return xp.exp(logits)


def _denominator(total: Array, how: Sinkhorn) -> Array:
    if how.denominator == "sum + eps":
        return total + how.eps
    if how.denominator == "max(sum, eps)":
        return namespace(total).clip(total, min=how.eps)
    return total
