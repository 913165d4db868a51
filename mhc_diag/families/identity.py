"""Streams that are read from and written to and do not mix: H_res = I.

Letters: n streams. The family of independent hyper-connections and of gated residual streams: the
weights are learned, the mixing is a fact.
"""

from __future__ import annotations

from mhc_diag.arrays import namespace
from mhc_diag.families.hc import Maps
from mhc_diag.trace import Array


def identity_maps(H_pre: Array | None, H_post: Array) -> Maps:
    """The maps of a site that leaves every stream where it is.

    Args:
        H_pre: [..., n], or None where the read is no weight per stream.
        H_post: [..., n].
    """
    xp = namespace(H_post)
    n = H_post.shape[-1]
    identity = xp.eye(n, dtype=H_post.dtype, device=H_post.device)
    return Maps(
        H_pre=H_pre,
        H_post=H_post,
        H_res=xp.broadcast_to(identity, (*H_post.shape[:-1], n, n)),
    )
