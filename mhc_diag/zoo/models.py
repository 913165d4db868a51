"""A small byte-level GPT whose residual connection can be swapped: residual, HC, mHC, mHC-lite.

Letters: B sequences, S positions, n streams, C width, V vocabulary (256 bytes).

The tree of modules, and thereby the names in a checkpoint (the connection's own parameters stand in
:mod:`mhc_diag.zoo.connections`)::

    token.weight [V, C]   position.weight [context, C]
    blocks.{i}.hc_attn.*  blocks.{i}.attn.norm.weight [C]  .qkv.weight [3C, C]  .out.weight [C, C]
    blocks.{i}.hc_mlp.*   blocks.{i}.mlp.norm.weight [C]   .up.weight [4C, C]   .down.weight [C, 4C]
    merge                 (no parameters: sum over streams)
    norm.weight [C]       head.weight [V, C]

``hc_attn`` and ``hc_mlp`` are missing in the residual model. The output of ``attn`` and ``mlp`` is
the branch output F(.), norm included; sites in execution order are attn, mlp of block 0, 1, ...

A checkpoint is ``{"model": state_dict, "config": {...}, "step": int}``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from mhc_diag.errors import ModelError
from mhc_diag.files import write_atomically
from mhc_diag.zoo.connections import (
    Connection,
    HyperConnection,
    ManifoldConnection,
    PermutationConnection,
    RMSNorm,
)

ConnectionKind = Literal["residual", "hc", "mhc", "mhc-lite"]
CONNECTIONS: tuple[ConnectionKind, ...] = get_args(ConnectionKind)
VOCABULARY = 256
"""One token per byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooConfig:
    """Everything that shapes a model; no unit on any field."""

    connection: ConnectionKind
    n_blocks: int = 12
    """Blocks; each has two sites, attention then MLP."""
    width: int = 32
    """Features per stream, C."""
    n_streams: int = 4
    """Ignored by the residual model."""
    n_heads: int = 4
    context: int = 64
    """Longest sequence."""
    sinkhorn_iters: int = 20
    """Rounds of Sinkhorn-Knopp; read by mHC only."""

    def __post_init__(self) -> None:
        if self.connection not in CONNECTIONS:
            raise ModelError(
                "build a model of the zoo",
                f"its config has connection={self.connection!r}",
                f"Choose one of {', '.join(CONNECTIONS)}.",
            )
        if self.width % self.n_heads:
            raise ModelError(
                "build a model of the zoo",
                f"width {self.width} cannot be split over {self.n_heads} heads",
                "Make width a multiple of n_heads.",
            )


class Attention(nn.Module):
    """Norm and causal self-attention, ``[B, S, C] -> [B, S, C]``."""

    def __init__(self, config: ZooConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.norm = RMSNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Every position looks at itself and the positions before it."""
        heads = self.qkv(self.norm(x)).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each [B, heads, S, C / heads]
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]  # nn.Module


class MLP(nn.Module):
    """Norm and two layers, ``[B, S, C] -> [B, S, C]``."""

    def __init__(self, config: ZooConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Each position by itself."""
        return self.down(functional.gelu(self.up(self.norm(x))))  # type: ignore[no-any-return]  # nn.Module


class ResidualBlock(nn.Module):
    """The classic block, ``x [B, S, C] -> x + F(x)``, twice."""

    def __init__(self, config: ZooConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, S, C] -> [B, S, C]``."""
        x = x + self.attn(x)
        return x + self.mlp(x)  # type: ignore[no-any-return]  # nn.Module


class StreamBlock(nn.Module):
    """A block over n streams: each half is one site, ``x [B, S, n, C] -> [B, S, n, C]``."""

    def __init__(self, config: ZooConfig, layer: int) -> None:
        super().__init__()
        self.hc_attn = connection_of(config, site=2 * layer)
        self.attn = Attention(config)
        self.hc_mlp = connection_of(config, site=2 * layer + 1)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, S, n, C] -> [B, S, n, C]``."""
        branch_input, H_res, H_post = self.hc_attn(x)
        x = propagate(x, H_res, H_post, self.attn(branch_input))
        branch_input, H_res, H_post = self.hc_mlp(x)
        return propagate(x, H_res, H_post, self.mlp(branch_input))


class Merge(nn.Module):
    """The streams become one again: their sum, ``[B, S, n, C] -> [B, S, C]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Sum over streams."""
        return x.sum(dim=-2)


class ZooModel(nn.Module):
    """The language model; ``config`` says which connection it has."""

    def __init__(self, config: ZooConfig) -> None:
        super().__init__()
        self.config = config
        self.n_copies = 0 if config.connection == "residual" else config.n_streams
        self.token = nn.Embedding(VOCABULARY, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(
            StreamBlock(config, layer) if self.n_copies else ResidualBlock(config)
            for layer in range(config.n_blocks)
        )
        self.merge = Merge() if self.n_copies else nn.Identity()
        self.norm = RMSNorm(config.width)
        self.head = nn.Linear(config.width, VOCABULARY, bias=False)
        self.apply(_initialise)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids ``[B, S]`` (S <= context) -> logits of the next byte ``[B, S, V]``."""
        x = self.token(ids) + self.position.weight[: ids.shape[1]]  # [B, S, C]
        if self.n_copies:
            x = x.unsqueeze(-2).expand(-1, -1, self.n_copies, -1)  # [B, S, n, C]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(self.merge(x)))  # type: ignore[no-any-return]  # nn.Module


def propagate(x: Tensor, H_res: Tensor, H_post: Tensor, f: Tensor) -> Tensor:
    """x' = H_res x + H_post^T f (mHC eq. 3).

    Args:
        x: streams entering the site, [B, S, n, C].
        H_res: [B, S, n, n], row = destination, column = source.
        H_post: [B, S, n].
        f: branch output, [B, S, C].

    Returns:
        Streams leaving the site, [B, S, n, C].
    """
    return torch.einsum("bsij,bsjc->bsic", H_res, x) + H_post.unsqueeze(-1) * f.unsqueeze(-2)


def connection_of(config: ZooConfig, *, site: int) -> Connection:
    """The connection that ``config`` asks for, at ``site`` in execution order."""
    if config.connection == "hc":
        return HyperConnection(config.n_streams, config.width, site)
    if config.connection == "mhc":
        return ManifoldConnection(config.n_streams, config.width, config.sinkhorn_iters)
    return PermutationConnection(config.n_streams, config.width)


def _initialise(module: nn.Module) -> None:
    """Normal with standard deviation 0.02 for embeddings and projections, as in GPT-2."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


def save_checkpoint(path: str | Path, model: ZooModel, *, step: int) -> Path:
    """Write ``{"model", "config", "step"}`` to ``path`` in one step; an older file is replaced.

    Raises:
        OutputError: the folder is missing or not writable.
    """
    content = {"model": model.state_dict(), "config": asdict(model.config), "step": step}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return write_atomically(path, buffer.getvalue())


def load_checkpoint(path: str | Path) -> ZooModel:
    """Read a file of :func:`save_checkpoint`; no pickled code is run."""
    return build(torch.load(path, map_location="cpu", weights_only=True))


def build(checkpoint: Mapping[str, Any]) -> ZooModel:
    """The model of a checkpoint, weights loaded; ``--model mhc_diag.zoo.models:build``.

    Args:
        checkpoint: the mapping that :func:`save_checkpoint` writes: tensors and plain values.

    Raises:
        ModelError: the mapping is not a checkpoint of the zoo, or its weights do not fit.
    """
    asked = "build a model of the zoo from a checkpoint"
    if not isinstance(checkpoint.get("model"), Mapping) or not isinstance(
        checkpoint.get("config"), Mapping
    ):
        raise ModelError(
            asked,
            f"it has the keys {sorted(map(str, checkpoint))}",
            "Give a file that mhc_diag.zoo wrote, with 'model' and 'config'.",
        )
    known = {field.name for field in fields(ZooConfig)}
    config = {key: value for key, value in checkpoint["config"].items() if key in known}
    try:
        model = ZooModel(ZooConfig(**config))
        model.load_state_dict(dict(checkpoint["model"]))
    except (TypeError, RuntimeError) as error:
        raise ModelError(
            asked, str(error).strip(), "The config must describe the weights beside it."
        ) from error
    return model
