"""The closure proof: does x' = M x + H_post^T f hold on the model's own numbers, or does M^T?

Letters: T tokens, n streams, C width. The branch output f need not be seen: of all f, the one
that explains x' - M x best is taken, and what remains must be zero, because n streams of C features
leave n - 1 directions that no f can reach. A transposed M leaves a remainder there unless it is
symmetric.

Source: mHC, arXiv 2512.24880, eq. 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mhc_diag.arrays import namespace
from mhc_diag.trace import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """One site, closed."""

    f: Array
    """[T, C]: branch output, NaN where H_post is zero and nothing was written."""
    error: Array
    """[T]: remainder of the closure with M, relative to the size of x'."""
    error_transposed: Array
    """[T]: the same with M^T."""
    gram: Array
    """[T, n+1, n+1]: inner products of (x_0 .. x_{n-1}, f)."""


def close(x: Array, x_next: Array, M: Array, H_post: Array) -> Closure:
    """Explain what left a site by what entered it.

    Args:
        x: [T, n, C], streams entering.
        x_next: [T, n, C], streams leaving.
        M: [T, n, n], as applied.
        H_post: [T, n], as applied.
    """
    xp = namespace(x)
    x, x_next, M, H_post = (xp.astype(a, xp.float64) for a in (x, x_next, M, H_post))
    f, error = _remainder(x, x_next, M, H_post)
    _, error_transposed = _remainder(x, x_next, xp.matrix_transpose(M), H_post)
    together = xp.concat([x, f[:, None, :]], axis=1)
    gram = together @ xp.matrix_transpose(together)
    return Closure(f=f, error=error, error_transposed=error_transposed, gram=gram)


def _remainder(x: Array, x_next: Array, M: Array, H_post: Array) -> tuple[Array, Array]:
    """Best f [T, C] and the relative size [T] of what it cannot explain."""
    xp = namespace(x)
    written = x_next - M @ x
    weight = xp.sum(H_post * H_post, axis=-1)
    best = (H_post[:, None, :] @ written)[:, 0, :] / xp.where(weight > 0, weight, 1.0)[:, None]
    rest = written - H_post[:, :, None] * best[:, None, :]
    error = _size(rest) / xp.clip(_size(x_next), min=1e-300)
    nothing = xp.full_like(best, float("nan"))
    return xp.where((weight > 0)[:, None], best, nothing), error


def _size(x: Array) -> Array:
    """Frobenius norm over the last two axes."""
    xp = namespace(x)
    return xp.sqrt(xp.sum(x * x, axis=(-2, -1)))


def verdict_of(
    error: float, error_transposed: float, tolerance: float
) -> Literal["numeric", "declared"]:
    """Say "numeric" when M closes to rounding and M^T does not by a factor of ten.

    Anything else is "declared".


    Args:
        error: largest relative remainder with M.
        error_transposed: the same with M^T.
        tolerance: what counts as rounding.
    """
    closes = error < tolerance
    return "numeric" if closes and error_transposed > 10 * error else "declared"
