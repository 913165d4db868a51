"""Each connection of the zoo against its paper's equations, written as plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from mhc_diag.zoo.connections import (
    NORM_EPS,
    Connection,
    HyperConnection,
    ManifoldConnection,
    PermutationConnection,
    permutation_matrices,
    sinkhorn,
)

B, S, N, C = 2, 3, 4, 8


def scrambled(module: Connection, scale: float = 0.7) -> Connection:
    """Every parameter random, so that no transposed or dropped term can hide."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.double().requires_grad_(requires_grad=False)


def streams(n: int = N) -> Tensor:
    return torch.randn(B, S, n, C, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def normalised(x: Tensor, weight: Tensor) -> list[float]:
    mean_square = sum(float(v) ** 2 for v in x) / len(x)
    return [
        float(v) / math.sqrt(mean_square + NORM_EPS) * float(w)
        for v, w in zip(x, weight, strict=True)
    ]


def dot(a: list[float], b: Tensor) -> float:
    return sum(u * float(v) for u, v in zip(a, b, strict=True))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def packed_logits(module: Connection, x: Tensor) -> list[float]:
    """alpha * (x_hat phi) + b, one entry at a time; ``x [n, C]``."""
    x_hat = normalised(x.flatten(), module.norm.weight)
    n, rows = module.n_streams, len(module.bias)
    alphas = [module.alpha_pre] * n + [module.alpha_post] * n
    alphas += [module.alpha_res] * (rows - 2 * n)
    return [
        float(alphas[row]) * dot(x_hat, module.phi.weight[row]) + float(module.bias[row])
        for row in range(rows)
    ]


def test_hyper_connection_agrees_with_the_published_equations_token_by_token() -> None:
    module, x = scrambled(HyperConnection(N, C, site=0)), streams()
    H_pre, H_post, H_res = module.maps(x)
    for b, s in itertools.product(range(B), range(S)):
        for j in range(N):
            x_hat = normalised(x[b, s, j], module.norm.weight)
            pre = module.static_pre[j] + module.scale_pre * math.tanh(
                dot(x_hat, module.dynamic_pre)
            )
            post = module.static_post[j] + module.scale_post * math.tanh(
                dot(x_hat, module.dynamic_post)
            )
            assert H_pre[b, s, j].item() == pytest.approx(pre.item())
            assert H_post[b, s, j].item() == pytest.approx(post.item())
            for i in range(N):
                moved = math.tanh(dot(x_hat, module.dynamic_res[:, i]))
                res = module.static_res[i, j] + module.scale_res * moved
                assert H_res[b, s, i, j].item() == pytest.approx(res.item())


@pytest.mark.parametrize("site", range(6))
def test_hyper_connection_starts_at_identity_and_reads_one_stream(site: int) -> None:
    x = streams().float()
    branch_input, H_res, H_post = HyperConnection(N, C, site)(x)
    assert torch.equal(branch_input, x[:, :, site % N])
    assert torch.equal(H_res, torch.eye(N).expand(B, S, N, N))
    assert torch.equal(H_post, torch.ones(B, S, N))


def test_manifold_connection_agrees_with_the_published_equations_token_by_token() -> None:
    module, x = scrambled(ManifoldConnection(N, C, 20)), streams()
    H_pre, H_post, H_res = module.maps(x)
    for b, s in itertools.product(range(B), range(S)):
        logits = packed_logits(module, x[b, s])
        assert H_pre[b, s].tolist() == pytest.approx([sigmoid(v) for v in logits[:N]])
        assert H_post[b, s].tolist() == pytest.approx([2 * sigmoid(v) for v in logits[N : 2 * N]])
        M = [[math.exp(logits[2 * N + i * N + j]) for j in range(N)] for i in range(N)]
        for _ in range(20):
            columns = [sum(M[i][j] for i in range(N)) for j in range(N)]
            M = [[M[i][j] / columns[j] for j in range(N)] for i in range(N)]
            M = [[value / sum(row) for value in row] for row in M]
        assert H_res[b, s].flatten().tolist() == pytest.approx(list(itertools.chain(*M)))


def test_permutation_connection_agrees_with_the_published_equations_token_by_token() -> None:
    n = 3
    module, x = scrambled(PermutationConnection(n, C)), streams(n)
    H_pre, H_post, H_res = module.maps(x)
    for b, s in itertools.product(range(B), range(S)):
        logits = packed_logits(module, x[b, s])
        assert H_pre[b, s].tolist() == pytest.approx([sigmoid(v) for v in logits[:n]])
        assert H_post[b, s].tolist() == pytest.approx([2 * sigmoid(v) for v in logits[n : 2 * n]])
        total = sum(math.exp(v) for v in logits[2 * n :])
        M = [[0.0] * n for _ in range(n)]
        for r, order in enumerate(itertools.permutations(range(n))):
            for i in range(n):
                M[i][order[i]] += math.exp(logits[2 * n + r]) / total
        assert H_res[b, s].flatten().tolist() == pytest.approx(list(itertools.chain(*M)))


@pytest.mark.parametrize(
    "module",
    [
        HyperConnection(N, C, 1),
        ManifoldConnection(N, C, 20),
        PermutationConnection(N, C),
    ],
    ids=["hc", "mhc", "mhc-lite"],
)
def test_branch_input_is_the_streams_weighted_by_h_pre(module: Connection) -> None:
    x = streams()
    H_pre, H_post, H_res = scrambled(module).maps(x)
    branch_input, given_res, given_post = module(x)
    for b, s, c in itertools.product(range(B), range(S), range(C)):
        wanted = sum(float(H_pre[b, s, j]) * float(x[b, s, j, c]) for j in range(N))
        assert branch_input[b, s, c].item() == pytest.approx(wanted)
    assert torch.equal(given_res, H_res)
    assert torch.equal(given_post, H_post)


def test_sinkhorn_makes_rows_exact_and_leaves_the_error_to_columns() -> None:
    logits = 4 * torch.randn(500, N, N, generator=torch.Generator().manual_seed(3)).double()
    M = sinkhorn(logits, 20)
    assert (M >= 0).all()
    assert (M.sum(-1) - 1).abs().max().item() < 1e-14
    assert 1e-6 < (M.sum(-2) - 1).abs().max().item() < 1


@pytest.mark.parametrize("shift", [500.0, -500.0])
def test_sinkhorn_does_not_overflow_on_large_logits(shift: float) -> None:
    logits = torch.randn(5, N, N, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(sinkhorn(logits + shift, 20), sinkhorn(logits, 20), atol=1e-3)


def test_permutation_mixture_is_doubly_stochastic_to_rounding() -> None:
    module = scrambled(PermutationConnection(N, C), scale=2.0)
    _, _, H_res = module.maps(streams())
    assert (H_res >= 0).all()
    assert (H_res.sum(-1) - 1).abs().max().item() < 1e-14
    assert (H_res.sum(-2) - 1).abs().max().item() < 1e-14


def test_permutations_come_in_the_order_of_itertools_with_identity_first() -> None:
    P = permutation_matrices(3)
    assert torch.equal(P[0], torch.eye(3))
    assert P[3].tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]  # (1, 2, 0)
    assert len({tuple(matrix.flatten().tolist()) for matrix in P}) == 6


@pytest.mark.parametrize(
    "module", [ManifoldConnection(N, C, 20), PermutationConnection(N, C)], ids=["mhc", "mhc-lite"]
)
def test_projected_connections_start_near_identity_with_a_gradient_everywhere(
    module: Connection,
) -> None:
    H_pre, H_post, H_res = module.maps(streams().float())
    assert H_pre.mean().item() == pytest.approx(1 / N, abs=0.01)
    assert H_post.mean().item() == pytest.approx(1.0, abs=0.01)
    assert H_res.diagonal(dim1=-2, dim2=-1).mean().item() == pytest.approx(0.95, abs=0.01)
    target = torch.randn(H_res.shape, generator=torch.Generator().manual_seed(5))
    (H_res * target).sum().backward()
    assert (module.bias.grad[2 * N :].abs() > 1e-4).all()
    assert module.phi.weight.grad[2 * N :].abs().sum().item() > 0
