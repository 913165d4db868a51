"""From parameters alone: the same matrices as the module returns for a zero input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hyper_connections.hyper_connections import HyperConnections
from hyper_connections.manifold_constrained_hyper_connections import (
    ManifoldConstrainedHyperConnections as MHCv1,
)
from hyper_connections.mHCv2 import ManifoldConstrainedHyperConnections as MHCv2
from models import GPT, WIDTH, LucidrainsStack, tiny_deepseek_v4

import mhc_diag as md
from mhc_diag.adapters.modules import find_sites, parameters_by_role
from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.errors import AdapterError, NoHyperConnectionsError, OptionError
from mhc_diag.static import static_trace


def saved(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    return path


def static_of(path: Path, **options: Any) -> md.Trace:
    with open_checkpoint(path) as checkpoint:
        return static_trace(checkpoint, **options)


MODELS = {
    "hc": (lambda: LucidrainsStack(HyperConnections), (2, 3, WIDTH)),
    "mhc v1": (lambda: LucidrainsStack(MHCv1), (2, 3, WIDTH)),
    "mhc v2": (lambda: LucidrainsStack(MHCv2, streams_last=True), (2, 3, WIDTH)),
}


@pytest.mark.parametrize("case", MODELS)
def test_static_equals_a_capture_on_zero_input(tmp_path: Path, case: str) -> None:
    make, shape = MODELS[case]
    model = make()
    for name, parameter in model.named_parameters():
        if name.endswith("branch.bias"):
            torch.nn.init.zeros_(parameter)
    with torch.no_grad(), md.capture(model, tokens=1) as capture:
        model(torch.zeros(shape))
    live = capture.trace()
    static = static_of(saved(tmp_path, model.state_dict()))
    assert static.model.adapter == live.model.adapter
    assert [site.name for site in static.sites] == [site.name for site in live.sites]
    for field in ("M", "H_pre", "H_post"):
        ours, theirs = getattr(static.chains[0], field), getattr(live.chains[0], field)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("form", ["hc", "mhc", "mhc_lite"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_nanogpt_checkpoints_are_read_in_numeric_order(
    tmp_path: Path, form: str, prefix: str
) -> None:
    model = GPT(form, n_blocks=11)
    content = {
        "model": {prefix + name: tensor for name, tensor in model.state_dict().items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        "model_args": {"n_layer": 11},
        "iter_num": 250,
    }
    trace = static_of(saved(tmp_path, content))
    assert trace.source.step == 250
    assert trace.coverage.is_complete
    assert trace.coverage.unclaimed == ()
    names = [f"transformer.h.{i}.hc_{half}" for i in range(11) for half in ("attn", "mlp")]
    assert [site.name for site in trace.sites] == names
    assert [site.layer for site in trace.sites][-1] == 10
    assert trace.sites[1].sublayer == "mlp"
    site = find_sites(model)[20]
    settings = {"sinkhorn_iters": 20, "tanh": True}
    maps = site.adapter.maps(parameters_by_role(site.adapter, site.module), None, 4, settings)
    np.testing.assert_allclose(trace.chains[0].M[20, 0], maps.H_res.detach().numpy().T, atol=1e-6)


@pytest.mark.slow
def test_the_three_spellings_of_deepseek_v4_give_one_answer(tmp_path: Path) -> None:
    model = tiny_deepseek_v4(n_layers=11)
    model.save_pretrained(tmp_path / "folder")
    module_form = model.state_dict()
    hub_form = {
        name.removeprefix("model.")
        .replace("attn_hc.", "hc_attn_")
        .replace("ffn_hc.", "hc_ffn_")
        .replace("hc_head.hc_", "hc_head_"): tensor
        for name, tensor in module_form.items()
    }
    traces = [
        static_of(tmp_path / "folder"),
        static_of(saved(tmp_path, module_form)),
        static_of(saved(tmp_path, hub_form)),
    ]
    assert {trace.model.adapter for trace in traces} == {"deepseek_v4"}
    assert all(trace.coverage.expected == trace.coverage.measured == 22 for trace in traces)
    assert all(trace.coverage.unclaimed == () for trace in traces)
    for trace in traces[1:]:
        np.testing.assert_array_equal(trace.chains[0].M, traces[0].chains[0].M)
    assert traces[0].model.settings["sinkhorn_iters"].source == "config"
    assert traces[1].model.settings["sinkhorn_iters"].source == "assumed"
    zero = model.model.layers[10].ffn_hc(torch.zeros(1, 1, 4, 32))[1][0, 0].detach().numpy()
    np.testing.assert_allclose(traces[0].chains[0].M[21, 0], zero.T, atol=1e-6)


def hub(n_layers: int = 2, n: int = 4, **more: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for i in range(n_layers):
        for half in ("attn", "ffn"):
            rows = (2 + n) * n
            tensors[f"layers.{i}.hc_{half}_fn"] = torch.randn(rows, n * 8, generator=generator)
            tensors[f"layers.{i}.hc_{half}_base"] = torch.randn(rows, generator=generator)
            tensors[f"layers.{i}.hc_{half}_scale"] = torch.ones(3)
    return tensors | more


def test_parameters_that_fit_two_code_bases_are_not_guessed_at(tmp_path: Path) -> None:
    path = saved(tmp_path, hub())
    with pytest.raises(AdapterError, match="deepseek_v4 and glm5_next alike.*--adapter"):
        static_of(path)
    assert static_of(path, adapter="glm5_next").model.adapter == "glm5_next"


def test_mtp_heads_are_an_auxiliary_chain_after_the_main_one(tmp_path: Path) -> None:
    main = hub(
        hc_head_fn=torch.ones(4, 32), hc_head_base=torch.ones(4), hc_head_scale=torch.ones(1)
    )
    heads = {name.replace("layers.0", "mtp.0"): value for name, value in hub(1).items()}
    trace = static_of(saved(tmp_path, heads | main))
    assert [(chain.name, chain.auxiliary, chain.n_sites) for chain in trace.chains] == [
        ("main", False, 4),
        ("mtp.0", True, 2),
    ]
    assert [site.index for site in trace.sites] == list(range(6))


def test_an_incomplete_site_is_counted_as_skipped(tmp_path: Path) -> None:
    tensors = hub()
    del tensors["layers.1.hc_ffn_base"]
    trace = static_of(saved(tmp_path, tensors), adapter="deepseek_v4")
    assert trace.coverage.expected == 4
    assert trace.coverage.measured == 3
    assert trace.coverage.skipped[0].site == "layers.1.hc_ffn"
    assert "bias" in trace.coverage.skipped[0].why
    assert trace.chains[0].measured == (True, True, True, False)
    assert np.isnan(trace.chains[0].M[3]).all()
    assert trace.chains[0].M.shape == (4, 1, 4, 4)


def test_a_block_that_is_not_square_is_skipped_with_the_reason(tmp_path: Path) -> None:
    tensors = hub() | {"layers.0.hc_attn_base": torch.zeros(23)}
    trace = static_of(saved(tmp_path, tensors), adapter="deepseek_v4")
    assert trace.coverage.skipped[0].why == "shapes do not fit together"


def test_names_that_look_like_hyper_connections_and_fit_nothing_are_listed(tmp_path: Path) -> None:
    tensors = hub(**{"layers.0.hc_router_fn": torch.zeros(3)})
    trace = static_of(saved(tmp_path, tensors), adapter="deepseek_v4")
    assert trace.coverage.unclaimed == ("layers.0.hc_router_fn",)


def test_a_file_without_hyper_connections_says_what_was_looked_for(tmp_path: Path) -> None:
    path = saved(
        tmp_path, {"h.0.hc_alpha_weight": torch.zeros(2), "lm_head.weight": torch.zeros(2, 2)}
    )
    with pytest.raises(
        NoHyperConnectionsError, match=r"(?s)h.0.hc_alpha_weight.*Looked for: deepseek_v4"
    ):
        static_of(path)


def test_n_of_one_is_read_as_a_one_by_one_matrix(tmp_path: Path) -> None:
    trace = static_of(saved(tmp_path, hub(n=1)), adapter="deepseek_v4")
    assert trace.chains[0].M.shape == (4, 1, 1, 1)
    np.testing.assert_allclose(trace.chains[0].M, 1, atol=1e-5)


def test_settings_given_by_the_user_win_and_change_the_matrices(tmp_path: Path) -> None:
    path = saved(tmp_path, hub())
    many = static_of(path, adapter="deepseek_v4")
    one = static_of(path, adapter="deepseek_v4", settings={"sinkhorn_iters": "1"})
    assert one.model.settings["sinkhorn_iters"].value == 1
    assert one.model.settings["sinkhorn_iters"].source == "option"
    assert np.abs(many.chains[0].M - one.chains[0].M).max() > 1e-3
    with pytest.raises(OptionError, match="'many' is no whole number"):
        static_of(path, adapter="deepseek_v4", settings={"sinkhorn_iters": "many"})


def test_the_user_may_say_how_a_file_stores_its_matrices(tmp_path: Path) -> None:
    path = saved(tmp_path, hub())
    plain = static_of(path, adapter="deepseek_v4")
    turned = static_of(path, adapter="deepseek_v4", settings={"orientation": "M"})
    np.testing.assert_array_equal(np.swapaxes(turned.chains[0].M, -1, -2), plain.chains[0].M)
    assert turned.orientation.stored == "M"
    assert turned.model.settings["orientation"].value == "M"


def test_the_static_probe_does_not_read_the_dynamic_parameters(tmp_path: Path) -> None:
    wide = {
        name: torch.randn(24, 40000) if name.endswith("fn") else value
        for name, value in hub().items()
    }
    path = saved(tmp_path, wide)
    static = static_of(path, adapter="deepseek_v4")
    isotropic = static_of(path, adapter="deepseek_v4", probe="isotropic", tokens=2)
    assert static.source.bytes_read < 100_000
    assert isotropic.source.bytes_read > 4 * 24 * 40000 * 4


def test_isotropic_draws_are_those_of_the_module_on_the_same_input(tmp_path: Path) -> None:
    model = GPT("mhc")
    trace = static_of(saved(tmp_path, model.state_dict()), probe="isotropic", tokens=6, seed=9)
    assert trace.probe.tokens == 6
    x = np.random.default_rng([9, 3]).standard_normal((6, 4, WIDTH), dtype=np.float32)
    site = model.transformer["h"][1]["hc_mlp"]
    with torch.no_grad():
        _, R = site.maps(site.norm(torch.from_numpy(x).flatten(-2)) @ site.dynamic_alpha_fn)
    np.testing.assert_allclose(trace.chains[0].M[3], R.mT, atol=1e-6)
    assert np.abs(trace.chains[0].M[0] - trace.chains[0].M[1]).max() > 1e-3


def test_isotropic_draws_follow_the_seed(tmp_path: Path) -> None:
    path = saved(tmp_path, GPT("hc").state_dict())
    a, b, c = (static_of(path, probe="isotropic", tokens=3, seed=s).chains[0].M for s in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
