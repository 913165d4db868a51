"""Megatron core's two branches: the same names and shapes, H_res used the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_elsewhere import (
    WIDTH,
    DevConnection,
    HyperConnectionModule,
    MainConnection,
    Megatron,
    N,
)

import mhc_diag as md
from mhc_diag.adapters.modules import find_sites, parameters_by_role
from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.errors import AdapterError
from mhc_diag.static import static_trace

BRANCHES = {
    "megatron_main": (MainConnection, "M"),
    "megatron_dev": (DevConnection, "M^T"),
}
SETTINGS = {"sinkhorn_iters": 20, "norm_eps": 1e-6}


def capture_of(model: torch.nn.Module, x: torch.Tensor, **options: Any) -> md.Trace:
    with torch.no_grad(), md.capture(model, **options) as capture:
        model(x)
    return capture.trace()


def static_of(tmp_path: Path, content: Any, **options: Any) -> md.Trace:
    torch.save(content, tmp_path / "model.pt")
    with open_checkpoint(tmp_path / "model.pt") as checkpoint:
        return static_trace(checkpoint, **options)


@pytest.mark.parametrize("adapter", BRANCHES)
def test_a_running_model_closes_with_m_and_not_with_its_transpose(adapter: str) -> None:
    connection, stored = BRANCHES[adapter]
    trace = capture_of(Megatron(connection), torch.randn(5, 2, WIDTH))
    assert (trace.model.adapter, trace.orientation.stored) == (adapter, stored)
    assert trace.coverage.is_complete
    assert [(site.name, site.sublayer) for site in trace.sites][:3] == [
        ("decoder.layers.0.self_attention_hyper_connection", "attn"),
        ("decoder.layers.0.mlp_hyper_connection", "mlp"),
        ("decoder.layers.1.self_attention_hyper_connection", "attn"),
    ]
    assert trace.orientation.verified == "numeric"
    assert trace.orientation.error < 1e-6 < 1e-3 < trace.orientation.error_transposed


@pytest.mark.parametrize("adapter", BRANCHES)
def test_a_layer_with_a_silent_branch_returns_m_times_x(adapter: str) -> None:
    """Tokens come out of [S, B] in the order of [B, S]."""
    connection, _ = BRANCHES[adapter]
    layer = Megatron(connection, n_layers=1).decoder["layers"][0]
    for branch in (layer.self_attention, layer.mlp):
        torch.nn.init.zeros_(branch.weight)
        torch.nn.init.zeros_(branch.bias)
    x = torch.randn(5, 2, N * WIDTH)
    with torch.no_grad(), md.capture(layer) as capture:
        out = layer(x)
    M = torch.from_numpy(capture.trace().chains[0].M)
    streams = x.transpose(0, 1).reshape(10, N, WIDTH)
    expected = out.transpose(0, 1).reshape(10, N, WIDTH)
    torch.testing.assert_close(M[1] @ M[0] @ streams, expected, atol=1e-5, rtol=0)
    assert (M[1].mT @ M[0].mT @ streams - expected).abs().max() > 1e-2


@pytest.mark.parametrize("size", [3.0, 1e-6])
@pytest.mark.parametrize("adapter", BRANCHES)
def test_the_formula_reproduces_what_the_module_returns(adapter: str, size: float) -> None:
    """Streams as small as the norm's eps show where it stands."""
    connection, _ = BRANCHES[adapter]
    site = find_sites(Megatron(connection))[1]
    assert site.adapter is not None
    x = size * torch.randn(5, 2, N, WIDTH)
    with torch.no_grad():
        aggregated, h_res, h_post, *_ = site.module(x.flatten(-2))
        maps = site.adapter.maps(parameters_by_role(site.adapter, site.module), x, N, SETTINGS)
    torch.testing.assert_close(maps.H_res, h_res, atol=2e-6, rtol=0)
    torch.testing.assert_close(maps.H_post, h_post, atol=2e-6, rtol=0)
    torch.testing.assert_close(
        (maps.H_pre.unsqueeze(-1) * x).sum(-2), aggregated, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("adapter", BRANCHES)
def test_parameters_alone_give_what_the_module_returns_for_zeros(
    tmp_path: Path, adapter: str
) -> None:
    connection, stored = BRANCHES[adapter]
    model = Megatron(connection, n_layers=11)
    content = {"model": model.state_dict(), "iteration": 300}
    trace = static_of(tmp_path, content, adapter=adapter)
    assert (trace.orientation.stored, trace.orientation.verified) == (stored, "declared")
    assert trace.source.step == 300
    assert trace.coverage.is_complete
    assert trace.coverage.unclaimed == ()
    assert [site.layer for site in trace.sites] == [i // 2 for i in range(22)]
    assert [site.sublayer for site in trace.sites][:2] == ["attn", "mlp"]
    with torch.no_grad():
        last = model.decoder["layers"][10].mlp_hyper_connection
        h_res = last(torch.zeros(1, 1, N * WIDTH))[1][0, 0].numpy()
    M = trace.chains[0].M[21, 0]
    np.testing.assert_allclose(M, h_res if stored == "M" else h_res.T, atol=1e-6)
    assert np.abs(M - M.T).max() > 1e-2


def test_a_file_alone_does_not_tell_the_branches_and_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="fit megatron_main and megatron_dev alike") as refused:
        static_of(tmp_path, Megatron().state_dict())
    assert "--adapter" in str(refused.value)


def test_a_learned_head_is_devs(tmp_path: Path) -> None:
    names = ("hc_head_fn", "hc_head_base", "hc_head_scale")
    head = {f"decoder.{name}": torch.zeros(1) for name in names}
    trace = static_of(tmp_path, Megatron(DevConnection).state_dict() | head)
    assert trace.model.adapter == "megatron_dev"
    assert trace.coverage.unclaimed == ()


def test_hybrid_layers_are_devs_with_one_site_each(tmp_path: Path) -> None:
    model = Megatron(DevConnection, hybrid=True)
    names = [f"decoder.layers.{i}.hyper_connection" for i in range(3)]
    live = capture_of(model, torch.randn(5, 2, WIDTH))
    static = static_of(tmp_path, model.state_dict())
    for trace in (live, static):
        assert trace.model.adapter == "megatron_dev"
        assert [site.name for site in trace.sites] == names
    assert live.orientation.verified == "numeric"


def test_sites_of_multi_token_prediction_are_a_chain_of_their_own(tmp_path: Path) -> None:
    main = Megatron(DevConnection).state_dict()
    layer = "decoder.layers.0."
    mtp = {
        name.replace(layer, "mtp.layers.0.mtp_model_layer."): tensor
        for name, tensor in main.items()
        if name.startswith(layer)
    }
    trace = static_of(tmp_path, main | mtp, adapter="megatron_dev")
    assert [(chain.name, chain.auxiliary, chain.n_sites) for chain in trace.chains] == [
        ("main", False, 6),
        ("mtp.layers.0", True, 2),
    ]
    assert trace.chains[1].sites[0].sublayer == "attn"


@pytest.mark.parametrize(
    ("adapter", "connection"),
    [("megatron_main", DevConnection), ("megatron_dev", MainConnection)],
)
def test_the_other_branchs_adapter_is_refused_at_the_first_firing(
    adapter: str, connection: type[HyperConnectionModule]
) -> None:
    with pytest.raises(AdapterError, match=r"output has \d entries, on (main|dev) it has \d"):
        capture_of(Megatron(connection), torch.randn(5, 2, WIDTH), adapter=adapter)


def test_a_module_that_says_neither_branch_is_refused_before_it_runs() -> None:
    class Older(MainConnection):
        def __init__(self) -> None:
            super().__init__()
            del self.config

    model = Megatron(Older)
    with pytest.raises(AdapterError, match="of megatron_main and megatron_dev, its attributes"):
        md.capture(model)
    trace = capture_of(model, torch.randn(5, 2, WIDTH), adapter="megatron_main")
    assert trace.orientation.verified == "numeric"


@pytest.mark.parametrize("adapter", BRANCHES)
def test_bfloat16_matrices_are_said_to_be_bfloat16(adapter: str) -> None:
    connection, _ = BRANCHES[adapter]
    model = Megatron(connection).to(torch.bfloat16)
    if connection is DevConnection:  # dev keeps these parameters in float32
        for module in model.modules():
            if isinstance(module, DevConnection):
                module.float()
    trace = capture_of(model, torch.randn(5, 2, WIDTH, dtype=torch.bfloat16))
    precision = trace.model.precision
    assert (precision.computed, precision.applied) == ("bfloat16", "bfloat16")
    assert trace.orientation.verified == "numeric"
