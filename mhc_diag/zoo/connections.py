"""The four ways a block of the zoo writes to its streams, each straight from its paper.

Letters: B sequences, S positions, n streams, C width. H_res is kept **as applied**: row =
destination, column = source, so that x' = H_res x + H_post^T F(H_pre x).

Every connection is called with the streams ``x [B, S, n, C]`` and returns
``(branch_input [B, S, C], H_res [B, S, n, n], H_post [B, S, n])``. Its parameters:

==================================  ==========================  ==================================
:class:`HyperConnection`            :class:`ManifoldConnection`  :class:`PermutationConnection`
==================================  ==========================  ==================================
``norm.weight`` [C]                 ``norm.weight`` [n*C]       ``norm.weight`` [n*C]
``static_pre`` [n]                  ``phi.weight`` [2n+n*n, n*C]  ``phi.weight`` [2n+n!, n*C]
``static_post`` [n]                 ``bias`` [2n+n*n]           ``bias`` [2n+n!]
``static_res`` [n, n]               ``alpha_pre`` []            ``alpha_pre`` []
``dynamic_pre`` [C]                 ``alpha_post`` []           ``alpha_post`` []
``dynamic_post`` [C]                ``alpha_res`` []            ``alpha_res`` []
``dynamic_res`` [C, n]
``scale_pre`` ``scale_post`` ``scale_res`` []
==================================  ==========================  ==================================

Rows of ``phi`` and ``bias`` are packed pre | post | res; res is row-major (destination, source),
or one logit per permutation in the order of ``itertools.permutations``. The norms divide by
sqrt(mean(x^2) + 1e-6).

Sources: Hyper-Connections, arXiv 2409.19606, eqs. 10 to 14; mHC, arXiv 2512.24880, eqs. 7 to 9;
mHC-lite, arXiv 2601.05732.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6
"""Added to the mean square by every norm of the zoo."""

Maps = tuple[Tensor, Tensor, Tensor]
"""branch_input [B, S, C], H_res [B, S, n, n], H_post [B, S, n]."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, ``[..., width] -> [..., width]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x [..., width]``."""
        return functional.rms_norm(x, self.weight.shape, self.weight, NORM_EPS)


class Connection(nn.Module):
    """What all connections share: n streams are read into one branch input."""

    def __init__(self, n_streams: int, width: int) -> None:
        super().__init__()
        self.n_streams, self.width = n_streams, width

    def forward(self, x: Tensor) -> Maps:
        """``x [B, S, n, C]`` -> branch_input [B, S, C], H_res [B, S, n, n], H_post [B, S, n]."""
        H_pre, H_post, H_res = self.maps(x)
        return torch.einsum("bsj,bsjc->bsc", H_pre, x), H_res, H_post

    def maps(self, x: Tensor) -> Maps:
        """``x [B, S, n, C]`` -> H_pre [B, S, n], H_post [B, S, n], H_res [B, S, n, n]."""
        raise NotImplementedError


class HyperConnection(Connection):
    """Dynamic hyper-connections as published: unconstrained, free to leave identity (2409.19606).

    With x_hat_j the normalised stream j: H_pre[j] = static_pre[j] + s tanh(x_hat_j . dynamic_pre),
    H_post alike, and H_res[i, j] = static_res[i, j] + s tanh(x_hat_j . dynamic_res[:, i]): a stream
    decides itself with what weights it is sent to the n destinations. At the start stream
    ``site % n`` is read, every stream is written with weight 1, and H_res is identity.
    """

    def __init__(self, n_streams: int, width: int, site: int) -> None:
        super().__init__(n_streams, width)
        self.norm = RMSNorm(width)
        self.static_pre = nn.Parameter(torch.eye(n_streams)[site % n_streams].clone())
        self.static_post = nn.Parameter(torch.ones(n_streams))
        self.static_res = nn.Parameter(torch.eye(n_streams))
        self.dynamic_pre = nn.Parameter(torch.zeros(width))
        self.dynamic_post = nn.Parameter(torch.zeros(width))
        self.dynamic_res = nn.Parameter(torch.zeros(width, n_streams))
        self.scale_pre = nn.Parameter(torch.tensor(0.01))
        self.scale_post = nn.Parameter(torch.tensor(0.01))
        self.scale_res = nn.Parameter(torch.tensor(0.01))

    def maps(self, x: Tensor) -> Maps:
        """``x [B, S, n, C]`` -> H_pre [B, S, n], H_post [B, S, n], H_res [B, S, n, n]."""
        x_hat = self.norm(x)  # [B, S, n, C], each stream by itself
        H_pre = self.static_pre + self.scale_pre * torch.tanh(x_hat @ self.dynamic_pre)
        H_post = self.static_post + self.scale_post * torch.tanh(x_hat @ self.dynamic_post)
        by_source = torch.tanh(x_hat @ self.dynamic_res)  # [B, S, n source, n destination]
        H_res = self.static_res + self.scale_res * by_source.transpose(-1, -2)
        return H_pre, H_post, H_res


class PackedConnection(Connection):
    """What mHC and mHC-lite share: one norm over all n*C features and one packed projection."""

    def __init__(self, n_streams: int, width: int, res_bias: Tensor) -> None:
        super().__init__(n_streams, width)
        n = n_streams
        self.norm = RMSNorm(n * width)
        self.phi = nn.Linear(n * width, 2 * n + res_bias.numel(), bias=False)
        nn.init.normal_(self.phi.weight, std=0.02)
        # The sigmoid starts at 1/n, so that the branch reads the mean stream; 2 sigmoid(0) = 1.
        pre = torch.full((n,), -math.log(max(n - 1, 1)))
        self.bias = nn.Parameter(torch.cat([pre, torch.zeros(n), res_bias.flatten()]))
        self.alpha_pre = nn.Parameter(torch.tensor(0.01))
        self.alpha_post = nn.Parameter(torch.tensor(0.01))
        self.alpha_res = nn.Parameter(torch.tensor(0.01))

    def maps(self, x: Tensor) -> Maps:
        """``x [B, S, n, C]`` -> H_pre [B, S, n], H_post [B, S, n], H_res [B, S, n, n]."""
        n = self.n_streams
        dynamic = self.phi(self.norm(x.flatten(-2)))  # [B, S, 2n + R]
        pre, post, res = dynamic[..., :n], dynamic[..., n : 2 * n], dynamic[..., 2 * n :]
        b_pre, b_post, b_res = self.bias[:n], self.bias[n : 2 * n], self.bias[2 * n :]
        H_pre = torch.sigmoid(self.alpha_pre * pre + b_pre)
        H_post = 2.0 * torch.sigmoid(self.alpha_post * post + b_post)
        return H_pre, H_post, self.project(self.alpha_res * res + b_res)

    def project(self, logits: Tensor) -> Tensor:
        """Logits of H_res ``[B, S, R]`` -> H_res ``[B, S, n, n]``, doubly stochastic."""
        raise NotImplementedError


class ManifoldConnection(PackedConnection):
    """mHC (2512.24880): H_res is projected by ``sinkhorn_iters`` rounds of Sinkhorn-Knopp.

    Logits start at 0 on the diagonal and -4 off it: at n = 4 a stream keeps 0.95 of itself, and
    the gradient reaches every entry.
    """

    def __init__(self, n_streams: int, width: int, sinkhorn_iters: int) -> None:
        super().__init__(n_streams, width, -4.0 * (1.0 - torch.eye(n_streams)))
        self.sinkhorn_iters = sinkhorn_iters

    def project(self, logits: Tensor) -> Tensor:
        """``[B, S, n*n] -> [B, S, n, n]``; rows come last, so row sums are 1 to rounding."""
        return sinkhorn(
            logits.reshape(*logits.shape[:-1], self.n_streams, self.n_streams), self.sinkhorn_iters
        )


class PermutationConnection(PackedConnection):
    """mHC-lite (2601.05732): H_res is a convex mixture of all n! permutation matrices.

    Logits start at 0 for identity and -6 for every other permutation: at n = 4 identity has the
    weight 0.95.
    """

    permutations: Tensor

    def __init__(self, n_streams: int, width: int) -> None:
        P = permutation_matrices(n_streams)
        res_bias = torch.full((P.shape[0],), -6.0)
        res_bias[0] = 0.0
        super().__init__(n_streams, width, res_bias)
        self.register_buffer("permutations", P, persistent=False)

    def project(self, logits: Tensor) -> Tensor:
        """``[B, S, n!] -> [B, S, n, n]``, doubly stochastic to rounding."""
        return torch.einsum("bsr,rij->bsij", torch.softmax(logits, dim=-1), self.permutations)


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """mHC eqs. 8 and 9: ``[..., n, n] -> [..., n, n]``, T_r(T_c(.)) ``iterations`` times.

    Starts at exp(logits - max over the matrix); one iteration divides by the column sums, then by
    the row sums, with no epsilon.
    """
    M = torch.exp(logits - logits.amax(dim=(-2, -1), keepdim=True))
    for _ in range(iterations):
        M = M / M.sum(dim=-2, keepdim=True)
        M = M / M.sum(dim=-1, keepdim=True)
    return M


def permutation_matrices(n: int) -> Tensor:
    """All n! of them, ``[n!, n, n]``: P_r[i, perm_r[i]] = 1, identity first."""
    orders = torch.tensor(list(itertools.permutations(range(n))))  # [n!, n]
    return functional.one_hot(orders, n).to(torch.float32)
