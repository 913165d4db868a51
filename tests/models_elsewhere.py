"""Stand-ins for code bases that cannot be installed here: their names, shapes and arithmetic."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

N, WIDTH = 4, 16
Tensor = torch.Tensor


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """All parameters away from their start, so that no map is symmetric."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            gate = "alpha" in name
            is_weight = parameter.ndim == 2 and "bias" not in name
            norm = name.endswith(("rms_norm.weight", "norm_gamma"))
            parameter.copy_(0.6 + 0.1 * noise if gate else 1 + 0.2 * noise if norm else noise)
            if is_weight:
                parameter.mul_(0.3)
    return model


def by_rows_then_columns(A: Tensor, *, rounds: int, least: float) -> Tensor:
    for _ in range(rounds):
        A = A / A.sum(-1, keepdim=True).clamp(min=least)
        A = A / A.sum(-2, keepdim=True).clamp(min=least)
    return A


def as_deepseek(logits: Tensor, *, rounds: int, eps: float) -> Tensor:
    A = logits.softmax(-1) + eps
    A = A / (A.sum(-2, keepdim=True) + eps)
    for _ in range(rounds - 1):
        A = A / (A.sum(-1, keepdim=True) + eps)
        A = A / (A.sum(-2, keepdim=True) + eps)
    return A


class HyperConnectionModule(nn.Module):
    """Megatron's parameters; what is common to its two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.n, self.sinkhorn_iterations, self.norm_eps = N, 20, 1e-6
        rows = N * N + 2 * N
        self.mapping_proj = nn.Linear(N * WIDTH, rows, bias=False)
        self.alpha_pre, self.alpha_post, self.alpha_res = (
            nn.Parameter(torch.full((1,), 0.01)) for _ in range(3)
        )
        self.bias = nn.Parameter(torch.zeros(rows))

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r = 1.0 / (x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5 + self.norm_eps)
        gates = (self.alpha_pre.expand(N), self.alpha_post.expand(N), self.alpha_res.expand(N * N))
        h = r * nn.functional.linear(x, self.mapping_proj.weight.to(x.dtype)) * torch.cat(gates)
        pre, post, res = (h + self.bias).split([N, N, N * N], dim=-1)
        return pre, post, res.unflatten(-1, (N, N))


class MainConnection(HyperConnectionModule):
    """Branch main: three entries, all in the dtype of the streams, H_res applied as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(mhc_num_residual_streams=N)

    def forward(self, x: Tensor, mhc_recompute_manager: Any = None) -> tuple[Tensor, ...]:
        pre, post, res = self.logits(x)
        res = (res - res.amax(-1, keepdim=True)).exp()
        h_res = by_rows_then_columns(res, rounds=self.sinkhorn_iterations, least=1e-6)
        aggregated = (x.unflatten(-1, (N, -1)) * pre.sigmoid().unsqueeze(-1)).sum(2)
        return aggregated, h_res, post.sigmoid() * 2

    def write(self, seen: tuple[Tensor, ...], x: Tensor, out: Tensor) -> Tensor:
        _, h_res, h_post = seen
        mixed = torch.einsum("sbij,sbjc->sbic", h_res, x.unflatten(-1, (N, -1)))
        return (mixed + h_post.unsqueeze(-1) * out.unsqueeze(2)).flatten(-2)


class DevConnection(HyperConnectionModule):
    """Branch dev: four entries, computed in float32 and cast, H_res applied transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_residual_streams=N)
        self.sinkhorn_eps = self.compute_h_eps = 1e-6

    def forward(self, x: Tensor, mhc_recompute_manager: Any = None) -> tuple[Tensor, ...]:
        pre, post, res = self.logits(x.float())
        h_res = as_deepseek(res, rounds=self.sinkhorn_iterations, eps=self.sinkhorn_eps).to(x.dtype)
        read = (pre.sigmoid() + self.compute_h_eps).to(x.dtype)
        aggregated = (x.unflatten(-1, (N, -1)) * read.unsqueeze(-1)).sum(2)
        return aggregated, h_res, (post.sigmoid() * 2).to(x.dtype), x

    def write(self, seen: tuple[Tensor, ...], x: Tensor, out: Tensor) -> Tensor:
        _, h_res, h_post, _ = seen
        mixed = torch.einsum("sbij,sbic->sbjc", h_res, x.unflatten(-1, (N, -1)))
        return (mixed + h_post.unsqueeze(-1) * out.unsqueeze(2)).flatten(-2)


class MegatronLayer(nn.Module):
    """A layer with two sites, or a hybrid one with a single site."""

    def __init__(self, connection: type[nn.Module], *, hybrid: bool = False):
        super().__init__()
        names = ["inner_layer"] if hybrid else ["self_attention", "mlp"]
        self.halves = [
            (f"{name}_hyper_connection" if not hybrid else "hyper_connection", name)
            for name in names
        ]
        for site, branch in self.halves:
            self.add_module(site, connection())
            self.add_module(branch, nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        for site, branch in self.halves:
            connection = self.get_submodule(site)
            seen = connection(x, mhc_recompute_manager=None)
            x = connection.write(seen, x, torch.tanh(self.get_submodule(branch)(seen[0])))
        return x


class Megatron(nn.Module):
    """[S, B, C] in, n streams [S, B, n*C] within."""

    def __init__(
        self, connection: type[nn.Module] = MainConnection, n_layers: int = 3, **how: Any
    ) -> None:
        super().__init__()
        self.decoder = nn.ModuleDict(
            {"layers": nn.ModuleList(MegatronLayer(connection, **how) for _ in range(n_layers))}
        )
        stirred(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat(1, 1, N)
        for layer in self.decoder["layers"]:
            x = layer(x)
        return x.unflatten(-1, (N, -1)).mean(2)


class MHCLayer(nn.Module):
    """Motif-3's connection."""

    def __init__(self, h_post_coeff: float = 1.0):
        super().__init__()
        self.sinkhorn_iters, self.h_post_coeff = 20, h_post_coeff
        self.rms_norm = nn.RMSNorm(N * WIDTH, eps=1e-6)
        for part, rows in {"pre": N, "post": N, "res": N * N}.items():
            self.add_module(f"proj_{part}", nn.Linear(N * WIDTH, rows, bias=False))
            shape = (N, N) if part == "res" else (N,)
            self.register_parameter(f"bias_{part}", nn.Parameter(torch.zeros(shape)))
            self.register_parameter(f"alpha_{part}", nn.Parameter(torch.zeros(1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_hat = self.rms_norm(x.flatten(-2))
        pre = (self.alpha_pre * self.proj_pre(x_hat).float() + self.bias_pre).clamp(-10, 10)
        post = (self.alpha_post * self.proj_post(x_hat).float() + self.bias_post).clamp(-10, 10)
        res = self.proj_res(x_hat).float().unflatten(-1, (N, N)) * self.alpha_res + self.bias_res
        h_res = res.clamp(-20, 20).exp()
        h_res = by_rows_then_columns(h_res, rounds=self.sinkhorn_iters, least=1e-8)
        return pre.sigmoid(), self.h_post_coeff * post.sigmoid(), h_res


class MotifLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mhc_attn, self.mhc_ffn = MHCLayer(), MHCLayer()
        self.attn, self.ffn = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for site, branch in ((self.mhc_attn, self.attn), (self.mhc_ffn, self.ffn)):
            h_pre, h_post, h_res = site(x)
            out = torch.tanh(branch((x * h_pre.unsqueeze(-1)).sum(2)))
            x = torch.einsum("bsij,bsjd->bsid", h_res, x) + h_post.unsqueeze(-1) * out.unsqueeze(2)
        return x


class Motif(nn.Module):
    """``model.layers.{i}.mhc_attn`` and ``.mhc_ffn``; the streams are averaged at the end."""

    def __init__(self, n_layers: int = 3):
        super().__init__()
        self.model = nn.ModuleDict({"layers": nn.ModuleList(MotifLayer() for _ in range(n_layers))})
        stirred(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(2).expand(-1, -1, N, -1)
        for layer in self.model["layers"]:
            x = layer(x)
        return x.mean(2)


class PanguConnection(nn.Module):
    """openPangu's connection: three methods, no forward."""

    def __init__(self) -> None:
        super().__init__()
        rows = (N + 2) * N
        self.phi = nn.Linear(N * WIDTH, rows, bias=False)
        self.branch_alpha = nn.Parameter(torch.zeros(3))
        self.branch_beta = nn.Parameter(torch.zeros(rows))
        self.norm_gamma = nn.Parameter(torch.ones(N * WIDTH))

    def mhc_pre(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.flatten(-2)
        flat = flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + 1e-6) * self.norm_gamma
        mixes, beta = self.phi(flat).split([N, N, N * N], -1), self.branch_beta.split([N, N, N * N])
        pre, post, res = (m * self.branch_alpha[k] + beta[k] for k, m in enumerate(mixes))
        read = pre.sigmoid() + 1e-6
        return (read.unsqueeze(-1) * x).sum(-2), 2 * post.sigmoid(), res.unflatten(-1, (N, N))

    def mhc_sinkhorn(self, res: Tensor) -> Tensor:
        return as_deepseek(res, rounds=20, eps=1e-6)

    def mhc_post(self, out: Tensor, h_post: Tensor, x: Tensor, h_res: Tensor) -> Tensor:
        mixed = (h_res.unsqueeze(-1) * x.unsqueeze(-2)).sum(-3)
        return h_post.unsqueeze(-1) * out.unsqueeze(-2) + mixed


class Pangu(nn.Module):
    """Two sites in each layer, and a merging module with a read map alone."""

    def __init__(self, n_layers: int = 3):
        super().__init__()
        layers = nn.ModuleList(
            nn.ModuleDict({f"{half}_mhc_module": PanguConnection() for half in ("attn", "mlp")})
            for _ in range(n_layers)
        )
        merge = nn.ParameterDict({"branch_beta_pre": nn.Parameter(torch.zeros(N))})
        self.model = nn.ModuleDict({"layers": layers, "merge_mhc_module": merge})
        stirred(self)


class LigerMHC(nn.Module):
    """Liger's wrapper, by its reference formula."""

    def __init__(self, layer: nn.Module, **how: Any):
        super().__init__()
        self.layer = layer
        self.tmax, self.rms_eps, self.sinkhorn_eps = how.get("tmax", 20), 1e-6, 1e-6
        self.pre_eps, self.post_mult = how.get("pre_eps", 0.0), how.get("post_mult", 2.0)
        rows = N * N + 2 * N
        self.phi = nn.Parameter(torch.zeros(N * WIDTH, rows))
        self.b = nn.Parameter(torch.zeros(rows))
        self.alpha_pre, self.alpha_post, self.alpha_res = (
            nn.Parameter(torch.tensor(1.0)) for _ in range(3)
        )

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.flatten(-2)
        mix = (flat @ self.phi) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + self.rms_eps)
        pre, post, res = (
            part * gate + bias
            for part, gate, bias in zip(
                mix.split([N, N, N * N], -1),
                (self.alpha_pre, self.alpha_post, self.alpha_res),
                self.b.split([N, N, N * N]),
                strict=True,
            )
        )
        h_res = as_deepseek(res.unflatten(-1, (N, N)), rounds=self.tmax, eps=self.sinkhorn_eps)
        return pre.sigmoid() + self.pre_eps, post.sigmoid() * self.post_mult, h_res

    def forward(self, x: Tensor) -> Tensor:
        h_pre, h_post, h_res = self.coefficients(x)
        out = torch.tanh(self.layer((h_pre.unsqueeze(-1) * x).sum(-2)))
        return (
            torch.einsum("...oi,...ic->...oc", h_res, x) + h_post.unsqueeze(-1) * out[..., None, :]
        )


class LigerStack(nn.Module):
    def __init__(self, n_blocks: int = 3, **how: Any):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    f"mhc_{half}": LigerMHC(nn.Linear(WIDTH, WIDTH), **how)
                    for half in ("attn", "ffn")
                }
            )
            for _ in range(n_blocks)
        )
        stirred(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-2).expand(*x.shape[:-1], N, WIDTH)
        for block in self.blocks:
            x = block["mhc_ffn"](block["mhc_attn"](x))
        return x.sum(-2)
