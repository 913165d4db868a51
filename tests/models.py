"""One tiny model per oddity, small enough to run in milliseconds."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn

N, WIDTH = 4, 16


def tiny_deepseek_v4(n_layers: int = 3, **changes: Any) -> Any:
    """DeepSeek-V4 of transformers with random, clearly non-symmetric mixing."""
    from transformers.models.deepseek_v4 import DeepseekV4Config, DeepseekV4ForCausalLM

    kinds = ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"]
    values: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "moe_intermediate_size": 32,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "q_lora_rank": 16,
        "num_experts_per_tok": 2,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "max_position_embeddings": 128,
        "layer_types": [kinds[i % 3] for i in range(n_layers)],
        "mlp_layer_types": ["moe"] * n_layers,
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
        "sliding_window": 8,
        "o_groups": 2,
        "o_lora_rank": 8,
        "index_n_heads": 2,
        "index_head_dim": 8,
        "index_topk": 2,
        "partial_rotary_factor": 0.5,
        "hc_mult": N,
        "hc_sinkhorn_iters": 20,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    model = DeepseekV4ForCausalLM(DeepseekV4Config(**{**values, **changes})).eval()
    return _stirred(model, "DeepseekV4HyperConnection")


def tiny_glm5_next() -> Any:
    """The text model of GLM-5.3 of transformers, the same way."""
    from transformers.models.glm5_next.configuration_glm5_next import Glm5NextTextConfig
    from transformers.models.glm5_next.modeling_glm5_next import Glm5NextTextModel

    config = Glm5NextTextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        kv_lora_rank=16,
        q_lora_rank=16,
        qk_rope_head_dim=0,
        qk_nope_head_dim=16,
        v_head_dim=16,
        index_topk=4,
        index_head_dim=8,
        index_n_heads=2,
        index_kpool=2,
        linear_head_dim=16,
        linear_num_heads=2,
        layer_types=["linear_attention"] * 3 + ["indexed_attention"],
        mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
        indexer_types=["full"] * 4,
        hc_mult=N,
        hc_sinkhorn_iters=20,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    return _stirred(Glm5NextTextModel(config).eval(), "Glm5NextTextHyperConnection")


def _stirred(model: nn.Module, class_name: str) -> nn.Module:
    """The default initialisation mixes uniformly, where no orientation can be told."""
    with torch.no_grad():
        for module in model.modules():
            if type(module).__name__ == class_name:
                module.base.normal_()
                module.fn.normal_(std=0.2)
                module.scale.copy_(torch.tensor([0.5, 0.7, 0.9]))
    return model


class LucidrainsStack(nn.Module):
    """Blocks of attention and feed-forward stand-ins, wrapped by a hyper-connections class."""

    def __init__(
        self,
        connection: type[nn.Module],
        n_blocks: int = 3,
        *,
        streams_last: bool = False,
        **options: Any,
    ):
        super().__init__()
        self.streams_last = streams_last
        self.layers = nn.ModuleList(
            nn.ModuleList(
                connection(N, dim=WIDTH, branch=nn.Linear(WIDTH, WIDTH), layer_index=i, **options)
                for _ in range(2)
            )
            for i in range(n_blocks)
        )
        stir(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.streams_last:  # mHCv2 keeps [B, S, n, C]
            x = x.unsqueeze(-2).expand(*x.shape[:-1], N, WIDTH)
        else:  # the others fold streams into the batch, [(B n), S, C]
            x = x.repeat_interleave(N, 0)
        for block in self.layers:
            for connection in block:
                x = connection(x)
        return x.sum(-2) if self.streams_last else x.unflatten(0, (-1, N)).sum(1)


def stir(model: nn.Module, seed: int = 0) -> None:
    """Move every hyper-connection parameter away from its symmetric start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "static" in name or "dynamic" in name:
                parameter.add_(0.3 * noise)
            elif name.endswith("_scale"):
                parameter.fill_(0.5)
            elif name.endswith("gamma"):
                parameter.copy_(0.1 * noise)


class _Gamma(nn.Module):
    """x over its length, times sqrt(features) and (gamma + 1)."""

    def __init__(self, features: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(x, dim=-1) * len(self.gamma) ** 0.5 * (self.gamma + 1)


class _FlatConnection(nn.Module):
    """What the two constrained forms of the mhc-lite family share: parameters, read, write."""

    def __init__(self, branch: nn.Module, static: torch.Tensor, columns: int):
        super().__init__()
        self.branch = branch
        self.norm = _Gamma(N * WIDTH)
        self.static_alpha = nn.Parameter(static)
        self.dynamic_alpha_fn = nn.Parameter(torch.zeros(N * WIDTH, columns))
        self.pre_branch_scale = nn.Parameter(torch.full((1,), 0.01))
        self.residual_scale = nn.Parameter(torch.full((1,), 0.01))
        self.static_beta = nn.Parameter(torch.zeros(N))
        self.dynamic_beta_fn = nn.Parameter(torch.zeros(N * WIDTH, N))
        self.h_post_scale = nn.Parameter(torch.tensor(0.01))

    def forward(self, folded: torch.Tensor) -> torch.Tensor:
        x = folded.unflatten(0, (-1, N)).movedim(1, -2)  # [B, S, n, C]
        x_hat = self.norm(x.flatten(-2))
        pre, R = self.maps(x_hat @ self.dynamic_alpha_fn)
        post = 2 * torch.sigmoid(
            x_hat @ self.dynamic_beta_fn * self.h_post_scale + self.static_beta
        )
        f = self.branch((pre.unsqueeze(-1) * x).sum(-2))
        mixed = torch.stack([(R[..., :, t, None] * x).sum(-2) for t in range(N)], dim=-2)
        return (mixed + post.unsqueeze(-1) * f.unsqueeze(-2)).movedim(-2, 1).flatten(0, 1)

    def maps(self, moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("each form has its own")


class ManifoldConstrainedHyperConnections(_FlatConnection):
    """The mhc form: per source stream, its entry of H_pre and then its row of R."""

    def __init__(self, branch: nn.Module):
        super().__init__(branch, torch.zeros(N, N + 1), N * (N + 1))
        self.sinkhorn_iters = 20

    def maps(self, moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moved = moved.unflatten(-1, (N, N + 1))
        pre = torch.sigmoid(moved[..., 0] * self.pre_branch_scale + self.static_alpha[:, 0])
        R = moved[..., 1:] * self.residual_scale + self.static_alpha[:, 1:]
        for _ in range(self.sinkhorn_iters):
            R = R - R.logsumexp(-2, keepdim=True)
            R = R - R.logsumexp(-1, keepdim=True)
        return pre, R.exp()


class MHCLite(_FlatConnection):
    """The mhc-lite form: a softmax over all permutations."""

    def __init__(self, branch: nn.Module):
        super().__init__(branch, torch.zeros(N + 24), N + 24)

    def maps(self, moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pre = torch.sigmoid(moved[..., :N] * self.pre_branch_scale + self.static_alpha[:N])
        weights = torch.softmax(moved[..., N:] * self.residual_scale + self.static_alpha[N:], -1)
        R = torch.zeros(*weights.shape[:-1], N, N)
        for r, permutation in enumerate(itertools.permutations(range(N))):
            for i, j in enumerate(permutation):
                R[..., i, j] += weights[..., r]
        return pre, R


class GPT(nn.Module):
    """``transformer.h.{i}.hc_attn`` and ``.hc_mlp``, as the mhc-lite family names them."""

    def __init__(self, form: str, n_blocks: int = 3):
        super().__init__()
        from hyper_connections.hyper_connections import HyperConnections

        def connection(branch: nn.Module, index: int) -> nn.Module:
            if form == "hc":
                return HyperConnections(N, dim=WIDTH, branch=branch, layer_index=index)
            return {"mhc": ManifoldConstrainedHyperConnections, "mhc_lite": MHCLite}[form](branch)

        def block(index: int) -> nn.ModuleDict:
            branches = {
                "branch_attn": nn.Linear(WIDTH, WIDTH),
                "branch_mlp": nn.Linear(WIDTH, WIDTH),
            }
            return nn.ModuleDict(
                branches
                | {
                    "hc_attn": connection(branches["branch_attn"], index),
                    "hc_mlp": connection(branches["branch_mlp"], index),
                }
            )

        self.transformer = nn.ModuleDict(
            {"wte": nn.Embedding(32, WIDTH), "h": nn.ModuleList(block(i) for i in range(n_blocks))}
        )
        stir(self)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.transformer["wte"](ids).repeat_interleave(N, 0)
        for block in self.transformer["h"]:
            x = block["hc_mlp"](block["hc_attn"](x))
        return x.unflatten(0, (-1, N)).sum(1)
