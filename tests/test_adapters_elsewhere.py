"""Motif-3, openPangu 2.0 and Liger against stand-ins with their names and their arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_elsewhere import WIDTH, LigerMHC, LigerStack, MHCLayer, Motif, N, Pangu, stirred

import mhc_diag as md
from mhc_diag.adapters.modules import find_sites, parameters_by_role
from mhc_diag.adapters.registry import adapter_named
from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.errors import AdapterError
from mhc_diag.static import static_trace


def capture_of(model: torch.nn.Module, x: torch.Tensor, **options: Any) -> md.Trace:
    with torch.no_grad(), md.capture(model, **options) as capture:
        model(x)
    return capture.trace()


def static_of(tmp_path: Path, model: torch.nn.Module, **options: Any) -> md.Trace:
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with open_checkpoint(tmp_path / "model.pt") as checkpoint:
        return static_trace(checkpoint, **options)


def is_skewed(M: np.ndarray[Any, Any]) -> bool:
    return bool(np.abs(M - M.T).max() > 1e-2)


LIVE = {
    "motif3": (Motif, [f"model.layers.{i}.mhc_{half}" for i in (0, 1) for half in ("attn", "ffn")]),
    "liger_mhc": (
        LigerStack,
        [f"blocks.{i}.mhc_{half}" for i in (0, 1) for half in ("attn", "ffn")],
    ),
}


@pytest.mark.parametrize("adapter", LIVE)
def test_a_running_model_closes_with_m_and_not_with_its_transpose(adapter: str) -> None:
    make, names = LIVE[adapter]
    trace = capture_of(make(), torch.randn(2, 5, WIDTH))
    assert (trace.model.adapter, trace.orientation.stored) == (adapter, "M")
    assert [site.name for site in trace.sites][:4] == names
    assert [site.sublayer for site in trace.sites][:2] == ["attn", "mlp"]
    assert trace.coverage.is_complete
    assert trace.orientation.verified == "numeric"
    assert trace.orientation.error < 1e-6 < 1e-3 < trace.orientation.error_transposed


@pytest.mark.parametrize("coefficient", [1.0, 2.0])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_motifs_formula_reproduces_its_module_in_and_beyond_the_clamps(
    coefficient: float, size: float
) -> None:
    module = stirred(MHCLayer(coefficient))
    with torch.no_grad():
        for part in ("pre", "post", "res"):
            module.get_parameter(f"bias_{part}").mul_(size)
    (site,) = find_sites(torch.nn.ModuleList([module]))
    assert site.adapter is not None
    spec = site.adapter.settings["h_post_alpha_end"].from_module
    assert spec is not None
    settings = {"sinkhorn_iters": 20, "h_post_alpha_end": spec(module)}
    x = torch.randn(2, 5, N, WIDTH)
    with torch.no_grad():
        expected = module(x)
        maps = site.adapter.maps(parameters_by_role(site.adapter, module), x, N, settings)
    for ours, theirs in zip((maps.H_pre, maps.H_post, maps.H_res), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


def test_motifs_parameters_alone_give_what_the_module_returns_for_zeros(tmp_path: Path) -> None:
    model = Motif(n_layers=11)
    trace = static_of(tmp_path, model)
    assert (trace.model.adapter, trace.orientation.verified) == ("motif3", "declared")
    assert trace.coverage.is_complete
    assert trace.coverage.unclaimed == ()
    with torch.no_grad():
        pre, post, res = model.model["layers"][10].mhc_ffn(torch.zeros(1, 1, N, WIDTH))
    chain = trace.chains[0]
    np.testing.assert_allclose(chain.M[21, 0], res[0, 0].numpy(), atol=1e-6)
    np.testing.assert_allclose(chain.H_pre[21, 0], pre[0, 0].numpy(), atol=1e-6)
    np.testing.assert_allclose(chain.H_post[21, 0], post[0, 0].numpy(), atol=1e-6)
    assert is_skewed(chain.M[21, 0])


def test_openpangus_methods_apply_the_transpose_of_what_they_store() -> None:
    """The whole update with a silent branch, called as the layer calls it."""
    adapter = adapter_named("openpangu_v2")
    module = Pangu(1).model["layers"][0]["attn_mhc_module"]
    P = {adapter.roles[name]: value for name, value in module.named_parameters()}
    x = torch.randn(7, N, WIDTH)
    settings = {"sinkhorn_iters": 20, "eps": 1e-6, "rms_norm_eps": 1e-6}
    with torch.no_grad():
        read, h_post, logits = module.mhc_pre(x)
        h_res = module.mhc_sinkhorn(logits)
        out = module.mhc_post(torch.zeros(7, WIDTH), h_post, x, h_res)
        maps = adapter.maps(P, x, N, settings)
    assert adapter.stored == "M^T"
    torch.testing.assert_close(maps.H_res, h_res, atol=2e-6, rtol=0)
    torch.testing.assert_close(maps.H_post, h_post, atol=2e-6, rtol=0)
    torch.testing.assert_close((maps.H_pre.unsqueeze(-1) * x).sum(-2), read, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.H_res.mT @ x, out, atol=1e-5, rtol=0)
    assert (maps.H_res @ x - out).abs().max() > 1e-2


def test_openpangu_is_measured_from_parameters(tmp_path: Path) -> None:
    model = Pangu(n_layers=11)
    trace = static_of(tmp_path, model)
    assert (trace.model.adapter, trace.orientation.stored) == ("openpangu_v2", "M^T")
    assert trace.orientation.verified == "declared"
    assert trace.coverage.is_complete
    assert trace.coverage.unclaimed == ()
    assert [site.sublayer for site in trace.sites][:2] == ["attn", "mlp"]
    module = model.model["layers"][10]["mlp_mhc_module"]
    with torch.no_grad():
        _, _, logits = module.mhc_pre(torch.zeros(1, N, WIDTH))
        h_res = module.mhc_sinkhorn(logits)[0].numpy()
    np.testing.assert_allclose(trace.chains[0].M[21, 0], h_res.T, atol=1e-6)
    assert is_skewed(h_res)


def test_a_running_openpangu_is_refused_with_the_way_out() -> None:
    with pytest.raises(AdapterError, match="no hook on these modules sees") as refused:
        md.capture(Pangu(), adapter="openpangu_v2")
    assert "tap" in str(refused.value)


@pytest.mark.parametrize("how", [{}, {"tmax": 3, "pre_eps": 0.1, "post_mult": 1.5}])
def test_ligers_formula_reproduces_its_coefficients(how: dict[str, Any]) -> None:
    module = stirred(LigerMHC(torch.nn.Linear(WIDTH, WIDTH), **how))
    x = torch.randn(2, 5, N, WIDTH)
    with torch.no_grad():
        h_pre, h_post, h_res = module.coefficients(x)
    with torch.no_grad(), md.capture(torch.nn.Sequential(module)) as capture:
        module(x)
    chain = capture.trace().chains[0]
    np.testing.assert_allclose(chain.M[0], h_res.reshape(10, N, N).numpy(), atol=2e-6)
    np.testing.assert_allclose(chain.H_pre[0], h_pre.reshape(10, N).numpy(), atol=2e-6)
    np.testing.assert_allclose(chain.H_post[0], h_post.reshape(10, N).numpy(), atol=2e-6)
    assert is_skewed(chain.M[0, 0])


def test_ligers_parameters_alone_give_its_coefficients_for_zeros(tmp_path: Path) -> None:
    model = LigerStack(n_blocks=11)
    trace = static_of(tmp_path, model)
    assert (trace.model.adapter, trace.orientation.verified) == ("liger_mhc", "declared")
    assert trace.coverage.is_complete
    assert trace.coverage.unclaimed == ()
    assert [site.layer for site in trace.sites] == [i // 2 for i in range(22)]
    with torch.no_grad():
        _, _, res = model.blocks[10]["mhc_ffn"].coefficients(torch.zeros(1, N, WIDTH))
    np.testing.assert_allclose(trace.chains[0].M[21, 0], res[0].numpy(), atol=1e-6)


def test_a_liger_module_saved_by_itself_is_one_site(tmp_path: Path) -> None:
    module = stirred(LigerMHC(torch.nn.Linear(WIDTH, WIDTH)))
    assert static_of(tmp_path, module).coverage.expected == 1
