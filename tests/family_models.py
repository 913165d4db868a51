"""Models of the wider family: the library's own where it is installed, else restated by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from models import GPT, WIDTH, N, _FlatConnection, stir
from torch import nn

import mhc_diag as md
from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.static import static_trace


def capture_of(model: torch.nn.Module, *inputs: Any, **options: Any) -> md.Trace:
    """One forward pass of ``model``, measured."""
    with torch.no_grad(), md.capture(model, **options) as capture:
        model(*inputs)
    return capture.trace()


def static_of(tmp_path: Path, model: torch.nn.Module, config: Any = None, **options: Any) -> Any:
    """The model's parameters alone, through a file."""
    path = tmp_path / "model.pt"
    torch.save({"model": model.state_dict(), "config": config or {}}, path)
    with open_checkpoint(path) as checkpoint:
        return static_trace(checkpoint, **options)


def tiny_hy_v4(**changes: Any) -> Any:
    """Hy4 of transformers, moved away from its start."""
    from transformers.models.hy_v4 import HYV4Config, HYV4ForCausalLM

    values: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "index_topk": 4,
        "index_head_dim": 16,
        "index_n_heads": 2,
        "hc_mult": N,
        "hc_magnitude": 1.5,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(0)
    model = HYV4ForCausalLM(HYV4Config(**{**values, **changes})).eval()
    with torch.no_grad():
        for module in model.modules():
            if type(module).__name__ == "HYV4HyperConnection":
                module.base.normal_()
                module.fn.normal_(std=0.2)
                module.scale.copy_(torch.tensor([0.5, 0.7]))
    return model


def tiny_qwen4_exp(**changes: Any) -> Any:
    """Qwen4-Exp of transformers, the same way."""
    from transformers.models.qwen4_exp.configuration_qwen4_exp import Qwen4ExpTextConfig
    from transformers.models.qwen4_exp.modeling_qwen4_exp import Qwen4ExpForCausalLM

    values: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_experts_per_tok": 2,
        "num_experts": 4,
        "hc_count": N,
        "hc_lowrank": 8,
        "max_position_embeddings": 128,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
            "partial_rotary_factor": 0.5,
        },
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    model = Qwen4ExpForCausalLM(Qwen4ExpTextConfig(**{**values, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "hc_norm" in name or "block_inject" in name:
                parameter.normal_(std=0.3)
    return model


class KromHC(_FlatConnection):
    """n logits of H_pre, then (keep, swap) of the outer and of the inner factor."""

    def __init__(self, branch: nn.Module):
        super().__init__(branch, torch.zeros(N + 4), N + 4)

    def maps(self, moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pre = torch.sigmoid(moved[..., :N] * self.pre_branch_scale + self.static_alpha[:N])
        logits = moved[..., N:] * self.residual_scale + self.static_alpha[N:]
        stay = [torch.sigmoid(logits[..., k] - logits[..., k + 1]) for k in (0, 2)]
        R = torch.empty(*moved.shape[:-1], N, N)
        for i in range(N):
            for j in range(N):
                outer = stay[0] if i // 2 == j // 2 else 1 - stay[0]
                inner = stay[1] if i % 2 == j % 2 else 1 - stay[1]
                R[..., i, j] = outer * inner
        return pre, R


class HyperConnections(nn.Module):
    """The static form: the parameters of the dynamic one are there and not used."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch
        self.norm = nn.Module()
        self.norm.gamma = nn.Parameter(torch.zeros(WIDTH))
        self.static_alpha = nn.Parameter(torch.eye(N, N + 1))
        self.dynamic_alpha_fn = nn.Parameter(torch.zeros(WIDTH, N + 1))
        self.dynamic_alpha_scale = nn.Parameter(torch.tensor(0.01))
        self.static_beta = nn.Parameter(torch.ones(N))
        self.dynamic_beta_fn = nn.Parameter(torch.zeros(WIDTH))
        self.dynamic_beta_scale = nn.Parameter(torch.tensor(0.01))
        self.act = nn.Tanh()
        self.sinkhorn_iters, self.sinkhorn_tau, self.mhc_h_res_proj = 7, 0.1, "sinkhorn"
        self.H_res_logits = nn.Parameter(0.1 * torch.randn(N, N))
        self.H_pre_logits = nn.Parameter(torch.randn(N))
        self.H_post_logits = nn.Parameter(torch.randn(N))

    def mixing(self) -> torch.Tensor:
        Z = self.H_res_logits / self.sinkhorn_tau
        u, v = torch.zeros(N), torch.zeros(N)
        for _ in range(self.sinkhorn_iters):
            u = -torch.logsumexp(Z + v[None, :], 1)
            v = -torch.logsumexp(Z + u[:, None], 0)
        return torch.exp(Z + u[:, None] + v[None, :])

    def forward(self, folded: torch.Tensor) -> torch.Tensor:
        x = folded.unflatten(0, (-1, N)).movedim(1, -2)
        f = self.branch(torch.einsum("s,...sd->...d", self.H_pre_logits.softmax(-1), x))
        mixed = torch.einsum("st,...sd->...td", self.mixing(), x)
        written = self.H_post_logits.softmax(-1)[:, None] * f.unsqueeze(-2)
        return (mixed + written).movedim(-2, 1).flatten(0, 1)


class FamilyGPT(GPT):
    """``transformer.h.{i}.hc_attn`` and ``.hc_mlp`` around any connection."""

    def __init__(self, connection: type[nn.Module], n_blocks: int = 3):
        torch.manual_seed(0)
        super().__init__("mhc", n_blocks)
        for block in self.transformer["h"]:
            for half in ("attn", "mlp"):
                block[f"hc_{half}"] = connection(block[f"branch_{half}"])
        stir(self)


def packed(module: nn.Module, x: torch.Tensor, names: tuple[str, str, str], floor: float) -> Any:
    """(pre, post, comb) of DeepSeek's parameters; ``floor`` stands after the softmax."""
    weight, bias, scale = (getattr(module, name) for name in names)
    eps = 1e-6
    state = x.flatten(2)
    mixes = state @ weight.T * torch.rsqrt(state.square().mean(-1, keepdim=True) + eps)
    pre = torch.sigmoid(mixes[..., :N] * scale[0] + bias[:N]) + eps
    post = 2 * torch.sigmoid(mixes[..., N : 2 * N] * scale[1] + bias[N : 2 * N])
    comb = (mixes[..., 2 * N :] * scale[2] + bias[2 * N :]).unflatten(-1, (N, N))
    comb = comb.softmax(-1) + floor if floor else (comb - comb.amax(-1, keepdim=True)).exp()
    for step in range(20):
        if step or not floor:
            comb = comb / (comb.sum(-1, keepdim=True) + eps)
        comb = comb / (comb.sum(-2, keepdim=True) + eps)
    return pre, post, comb


class _Packed(nn.Module):
    names = ("fn", "base", "scale")
    floor = 1e-6

    def __init__(self) -> None:
        super().__init__()
        shapes = ((N * (N + 2), N * WIDTH), (N * (N + 2),), (3,))
        for name, shape, size in zip(self.names, shapes, (0.2, 2.0, 1.0), strict=True):
            setattr(self, name, nn.Parameter(size * torch.randn(shape)))

    def forward(self, x: torch.Tensor) -> Any:
        return packed(self, x, self.names, self.floor)


class DeepseekV4HyperConnection(_Packed):
    """As NeMo Automodel writes it: (pre, post, comb)."""

    hc_sinkhorn_iters, hc_eps, norm_eps = 20, 1e-6, 1e-6


class DeepseekV41HyperConnection(DeepseekV4HyperConnection):
    """The same output; pre is for the next site."""


class HcPre(_Packed):
    """As torchtitan writes it: (collapsed, post, comb), and no floor."""

    names = ("hc_fn", "hc_base", "hc_scale")
    floor = 0.0

    def forward(self, x: torch.Tensor) -> Any:
        pre, post, comb = super().forward(x)
        return (pre.unsqueeze(-1) * x).sum(-2), post, comb


class PackedStack(nn.Module):
    """``layers.{i}.attn_hc`` and ``.ffn_hc`` (or what ``halves`` calls them) around linear maps."""

    def __init__(self, connection: type[nn.Module], halves: tuple[str, str]):
        super().__init__()
        torch.manual_seed(1)
        self.kind, self.halves = connection.__name__, halves
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {half: connection() for half in halves}
                | {f"{half}_branch": nn.Linear(WIDTH, WIDTH) for half in halves}
            )
            for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(-2) * torch.linspace(0.5, 1.5, N)[:, None]
        carried = nn.functional.one_hot(torch.tensor(0), N).float()
        for layer in self.layers:
            for half in self.halves:
                first, post, comb = layer[half](x)
                if self.kind == "HcPre":
                    read = first
                elif self.kind == "DeepseekV41HyperConnection":
                    read, carried = (carried.unsqueeze(-1) * x).sum(-2), first
                else:
                    read = (first.unsqueeze(-1) * x).sum(-2)
                f = layer[f"{half}_branch"](read)
                x = post.unsqueeze(-1) * f.unsqueeze(-2) + comb.transpose(-1, -2) @ x
        return x.mean(-2)
