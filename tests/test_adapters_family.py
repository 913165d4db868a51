"""The wider family: adapters against installed libraries, or against a restatement by hand."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from family_models import (
    FamilyGPT,
    HyperConnections,
    KromHC,
    capture_of,
    static_of,
    tiny_hy_v4,
    tiny_qwen4_exp,
)
from models import WIDTH

from mhc_diag.adapters.modules import find_sites, parameters_by_role
from mhc_diag.analysis import analysis_of
from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.errors import AdapterError
from mhc_diag.families.kronecker import kronecker_mixture
from mhc_diag.static import static_trace

IDS = torch.arange(1, 33).reshape(2, 16)
IDENTITY = {"hy_v4": tiny_hy_v4, "qwen4_exp": tiny_qwen4_exp}


@pytest.mark.slow
@pytest.mark.parametrize("name", IDENTITY)
def test_streams_that_do_not_mix_are_a_fact_and_no_error(name: str) -> None:
    model = IDENTITY[name]()
    trace = capture_of(model, IDS)
    layers = range(len(model.model.layers))
    halves = ("attn_hc", "ffn_hc")
    if name == "qwen4_exp":
        halves = ("attn_hyper_connection", "mlp_hyper_connection")
    assert [site.name for site in trace.sites] == [
        f"model.layers.{i}.{half}" for i in layers for half in halves
    ]
    assert (trace.model.adapter, trace.model.family) == (name, "identity")
    assert not trace.model.input_dependent
    assert trace.coverage.is_complete
    assert trace.coverage.unclaimed == ()
    assert trace.chains[0].M.shape == (len(trace.sites), 32, 4, 4)
    np.testing.assert_array_equal(trace.chains[0].M[-1, 5], np.eye(4))
    assert trace.orientation.error < 1e-6, "x' = x + H_post^T f, the last site included"
    assert trace.orientation.verified == "declared", "the identity is its own transpose"
    assert np.isfinite(trace.chains[0].gram).all()
    rules = {finding.rule: finding.severity for finding in analysis_of(trace).findings}
    assert rules == {"MHC111": "info"}


@pytest.mark.slow
def test_what_a_ple_layer_adds_to_the_streams_is_a_finding_and_cuts_no_chain() -> None:
    small = {"heads_per_ngram": 1, "ngram_vocab_size_base": 50, "split_ngram_parts": 1}
    model = tiny_qwen4_exp(ple_layer_ids=[2], eos_token_id=2, **small)
    trace = capture_of(model, IDS)
    assert [(chain.name, chain.n_sites) for chain in trace.chains] == [("main", 8)]
    assert trace.orientation.error > 1e-3
    (finding,) = (one for one in analysis_of(trace).findings if one.rule == "MHC110")
    assert finding.severity == "warning"
    assert "Something acts between two sites" in finding.advice


@pytest.mark.slow
def test_bfloat16_streams_are_closed_to_their_own_rounding() -> None:
    trace = capture_of(tiny_hy_v4().to(torch.bfloat16), IDS)
    assert trace.model.precision.applied == "bfloat16"
    assert [finding.rule for finding in analysis_of(trace).findings] == ["MHC111"]


@pytest.mark.slow
def test_the_formulas_of_hy_v4_are_those_of_transformers() -> None:
    site = find_sites(tiny_hy_v4(hc_eps=1e-3))[1]
    x = torch.randn(2, 5, 4, 32)
    settings = {"eps": 1e-3, "magnitude": 1.5, "rms_norm_eps": site.module.input_norm.eps}
    with torch.no_grad():
        post, read = site.module(x)
        maps = site.adapter.maps(parameters_by_role(site.adapter, site.module), x, 4, settings)
    torch.testing.assert_close(maps.H_post, post, atol=1e-6, rtol=0)
    torch.testing.assert_close((maps.H_pre.unsqueeze(-1) * x).sum(-2), read, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_formulas_of_qwen4_exp_are_those_of_transformers() -> None:
    site = find_sites(tiny_qwen4_exp())[3]
    x = torch.randn(2, 5, 4, 32)
    settings = {"rms_norm_eps": site.module.hc_norm.eps}
    with torch.no_grad():
        _, _, post = site.module(x.flatten(-2))
        maps = site.adapter.maps(parameters_by_role(site.adapter, site.module), x, 4, settings)
    assert post.std() > 0.05
    torch.testing.assert_close(maps.H_post, post, atol=1e-6, rtol=0)
    assert maps.H_pre is None, "the read is a gate per channel"


@pytest.mark.slow
@pytest.mark.parametrize("name", IDENTITY)
def test_identity_families_are_read_from_what_save_pretrained_writes(
    name: str, tmp_path: Path
) -> None:
    model = IDENTITY[name]()
    model.save_pretrained(tmp_path / "folder")
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        saved = static_trace(checkpoint, probe="isotropic", tokens=7)
    plain = static_of(tmp_path, model)
    for trace in (saved, plain):
        assert trace.model.adapter == name
        assert trace.model.width == 32
        assert trace.coverage.expected == trace.coverage.measured == 2 * len(model.model.layers)
        assert trace.coverage.unclaimed == ()
        assert trace.probe.tokens == 1, "there is nothing to draw for"
        np.testing.assert_array_equal(trace.chains[0].M - np.eye(4), 0)
    assert all(setting.source == "config" for setting in saved.model.settings.values())
    site = find_sites(model)[1].module
    zero = torch.zeros(1, 1, 4, 32)
    with torch.no_grad():
        post = site(zero)[0] if name == "hy_v4" else site(zero.flatten(-2))[2]
    np.testing.assert_allclose(saved.chains[0].H_post[1], post[0], atol=1e-6)
    assert [site.sublayer for site in saved.sites[:2]] == ["attn", "mlp"]


@pytest.mark.parametrize("prefix", ["hc_attn_layer.hc_pre.hc_", "hc_pre.hc_attn_layer.hc_"])
def test_both_hub_spellings_of_hy4_are_read(prefix: str, tmp_path: Path) -> None:
    shapes = {"fn": (8, 4 * WIDTH), "base": (8,), "scale": (2,)}
    model = torch.nn.ParameterDict(
        {
            f"layers-{i}-{role}": torch.ones(shape)
            for i in range(3)
            for role, shape in shapes.items()
        }
    )
    tensors = {f"model.layers.{name[7]}.{prefix}{name[9:]}": value for name, value in model.items()}
    torch.save(tensors, tmp_path / "hub.pt")
    with open_checkpoint(tmp_path / "hub.pt") as checkpoint:
        trace = static_trace(checkpoint)
    assert (trace.model.adapter, trace.model.width) == ("hy_v4", WIDTH)
    assert [site.layer for site in trace.sites] == [0, 1, 2]


@pytest.mark.parametrize("K", [1, 2, 3])
def test_the_kronecker_mixture_is_the_product_that_numpy_makes(K: int) -> None:
    logits = np.random.default_rng(K).standard_normal((3, 2 * K))
    for row, H in zip(logits, kronecker_mixture(logits), strict=True):
        p = [1 / (1 + np.exp(row[k + 1] - row[k])) for k in range(0, 2 * K, 2)]
        wanted = reduce(np.kron, [np.array([[q, 1 - q], [1 - q, q]]) for q in p])
        np.testing.assert_allclose(H, wanted, atol=1e-12)


def test_kromhc_closes_on_its_symmetric_matrices() -> None:
    model = FamilyGPT(KromHC)
    trace = capture_of(model, IDS % 32)
    assert (trace.model.adapter, trace.model.family) == ("kromhc", "kromhc")
    assert trace.coverage.is_complete
    M = trace.chains[0].M
    np.testing.assert_allclose(M, np.swapaxes(M, -1, -2), atol=1e-7)
    assert np.abs(M[0, 0] - M[0, 9]).max() > 1e-4, "it depends on the token"
    assert trace.orientation.error < 1e-6
    assert trace.orientation.verified == "declared", "a symmetric matrix proves no orientation"


def test_a_kromhc_checkpoint_is_told_from_mhc_lite_by_its_shapes(tmp_path: Path) -> None:
    model = FamilyGPT(KromHC)
    trace = static_of(tmp_path, model)
    assert trace.model.adapter == "kromhc"
    assert trace.coverage.unclaimed == ()
    site = model.transformer["h"][1]["hc_mlp"]
    with torch.no_grad():
        _, R = site.maps(torch.zeros(1, 8))
    np.testing.assert_allclose(trace.chains[0].M[3], R, atol=1e-6)
    drawn = static_of(tmp_path, model, probe="isotropic", tokens=5)
    assert drawn.chains[0].M.shape == (6, 5, 4, 4)


def test_with_two_streams_kromhc_is_mhc_lite(tmp_path: Path) -> None:
    shapes = {
        "static_alpha": (4,),
        "dynamic_alpha_fn": (8, 4),
        "pre_branch_scale": (1,),
        "residual_scale": (1,),
        "static_beta": (2,),
        "dynamic_beta_fn": (8, 2),
        "h_post_scale": (),
        "norm.gamma": (8,),
    }
    tensors = {f"transformer.h.0.hc_attn.{name}": torch.randn(shapes[name]) for name in shapes}
    torch.save(tensors, tmp_path / "two.pt")
    with open_checkpoint(tmp_path / "two.pt") as checkpoint:
        trace = static_trace(checkpoint)
    assert trace.model.adapter == "gpt_mhc_lite"
    logits = tensors["transformer.h.0.hc_attn.static_alpha"][2:].numpy()
    np.testing.assert_allclose(trace.chains[0].M[0, 0], kronecker_mixture(logits), atol=1e-6)


def test_the_static_form_is_read_from_its_logits_and_not_from_the_unused_parameters() -> None:
    model = FamilyGPT(HyperConnections)
    trace = capture_of(model, IDS % 32)
    assert trace.model.adapter == "static_mhc"
    assert not trace.model.input_dependent
    assert trace.model.settings["sinkhorn_iters"].value == 7
    assert trace.orientation.verified == "numeric"
    assert trace.orientation.error < 1e-6 < 1e-3 < trace.orientation.error_transposed
    R = model.transformer["h"][2]["hc_attn"].mixing().detach()
    np.testing.assert_allclose(trace.chains[0].M[4, 3], R.mT, atol=1e-6)


def test_a_static_form_checkpoint_is_exact_without_data(tmp_path: Path) -> None:
    model = FamilyGPT(HyperConnections)
    config = {"sinkhorn_iters": 7, "sinkhorn_tau": 0.1, "mhc_h_res_proj": "sinkhorn"}
    trace = static_of(tmp_path, model, config)
    live = capture_of(model, IDS % 32)
    assert trace.model.adapter == "static_mhc"
    assert trace.coverage.unclaimed == ()
    np.testing.assert_allclose(trace.chains[0].M, live.chains[0].M[:, :1], atol=1e-6)
    np.testing.assert_allclose(trace.chains[0].H_post, live.chains[0].H_post[:, :1], atol=1e-6)
    assumed = static_of(tmp_path, model)
    assert assumed.model.settings["sinkhorn_tau"].source == "assumed"
    assert np.abs(assumed.chains[0].M - trace.chains[0].M).max() > 1e-3


def test_another_projection_of_the_static_form_is_refused(tmp_path: Path) -> None:
    model = FamilyGPT(HyperConnections)
    with pytest.raises(AdapterError, match="orthostochastic"):
        static_of(tmp_path, model, {"mhc_h_res_proj": "orthostochastic"})
    for block in model.transformer["h"]:
        block["hc_attn"].mhc_h_res_proj = "orthostochastic"
    with pytest.raises(AdapterError, match="orthostochastic"):
        capture_of(model, IDS % 32)
