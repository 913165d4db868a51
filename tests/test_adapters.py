"""Each adapter against the library's own arithmetic, on non-symmetric maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hyper_connections.hyper_connections import HyperConnections
from hyper_connections.manifold_constrained_hyper_connections import (
    ManifoldConstrainedHyperConnections as MHCv1,
)
from hyper_connections.mHCv2 import ManifoldConstrainedHyperConnections as MHCv2
from models import GPT, WIDTH, LucidrainsStack, tiny_deepseek_v4, tiny_glm5_next

import mhc_diag as md
from mhc_diag.adapters.modules import find_sites, parameters_by_role
from mhc_diag.errors import AdapterError, NoHyperConnectionsError

IDS = torch.arange(1, 33).reshape(2, 16)


def capture_of(model: torch.nn.Module, *inputs: Any, **options: Any) -> md.Trace:
    with torch.no_grad(), md.capture(model, **options) as capture:
        model(*inputs)
    return capture.trace()


def branch_hooked_closure(
    model: torch.nn.Module, names: list[str], outputs: list[str]
) -> tuple[float, float]:
    """x' = M x + H_post^T f with the f that the branch itself returned, on the library's tensors.

    ``names`` are modules that hand out (post, comb, ...) in execution order, ``outputs`` the
    branches that belong to them; independent of everything in mhc_diag.
    """
    seen: dict[str, Any] = {}
    keep = lambda key: lambda module, args, out: seen.__setitem__(key, (args, out))
    handles = [
        model.get_submodule(name).register_forward_hook(keep(name)) for name in [*names, *outputs]
    ]
    with torch.no_grad():
        model(IDS)
    for handle in handles:
        handle.remove()
    errors, transposed = [], []
    for here, after, branch in zip(names, names[1:], outputs, strict=False):
        (x, *_), (post, comb, *_) = seen[here]
        f = seen[branch][1]
        f = f[0] if isinstance(f, tuple) else f
        rest = seen[after][0][0] - post.unsqueeze(-1) * f.unsqueeze(-2)
        errors.append(float((rest - comb.mT @ x).abs().max()))
        transposed.append(float((rest - comb @ x).abs().max()))
    return max(errors), max(transposed)


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_deepseek_v4, tiny_glm5_next])
def test_transformers_models_store_the_transpose_by_their_own_branch_outputs(make: Any) -> None:
    model = make()
    prefix = "model." if hasattr(model, "lm_head") else ""
    layers = range(len(model.get_submodule(f"{prefix}layers")))
    names = [f"{prefix}layers.{i}.{half}_hc" for i in layers for half in ("attn", "ffn")]
    branches = [f"{prefix}layers.{i}.{branch}" for i in layers for branch in ("self_attn", "mlp")]
    error, transposed = branch_hooked_closure(model, names, branches)
    assert error < 1e-5
    assert transposed > 1e-3
    trace = capture_of(model, IDS)
    assert [site.name for site in trace.sites] == names
    assert trace.orientation.stored == "M^T"
    assert trace.orientation.verified == "numeric"
    assert trace.orientation.error < 1e-6 < 1e-3 < trace.orientation.error_transposed


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_deepseek_v4, tiny_glm5_next])
def test_the_formula_reproduces_what_transformers_returns(make: Any) -> None:
    model = make()
    for site in find_sites(model)[:2]:
        x = torch.randn(3, 5, 4, 32)
        with torch.no_grad():
            post, comb, collapsed = site.module(x)
            settings = {
                "sinkhorn_iters": 20,
                "eps": 1e-6,
                "rms_norm_eps": site.module.input_norm.eps,
            }
            maps = site.adapter.maps(parameters_by_role(site.adapter, site.module), x, 4, settings)
            zero = site.module(torch.zeros(1, 1, 4, 32))[1][0, 0]
            static = site.adapter.maps(
                parameters_by_role(site.adapter, site.module), None, 4, settings
            )
        torch.testing.assert_close(maps.H_res, comb, atol=2e-6, rtol=0)
        torch.testing.assert_close(maps.H_post, post, atol=2e-6, rtol=0)
        torch.testing.assert_close(
            (maps.H_pre.unsqueeze(-1) * x).sum(-2), collapsed, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(static.H_res, zero, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_bfloat16_streams_are_mixed_by_a_rounded_copy_of_a_float32_matrix() -> None:
    model = tiny_deepseek_v4().to(torch.bfloat16)
    for site in find_sites(model):
        site.module.float()
    trace = capture_of(model, IDS)
    assert (trace.model.precision.computed, trace.model.precision.applied) == (
        "float32",
        "bfloat16",
    )
    assert trace.orientation.verified == "numeric"


@pytest.mark.slow
def test_autocast_is_named_as_what_rounds_the_matrix() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = capture_of(tiny_deepseek_v4(), IDS)
    assert (trace.model.precision.computed, trace.model.precision.applied) == (
        "float32",
        "bfloat16",
    )
    assert trace.orientation.verified == "numeric"


@pytest.mark.slow
def test_each_decoding_step_of_generate_adds_its_tokens() -> None:
    model = tiny_deepseek_v4()
    with torch.no_grad(), md.capture(model) as capture:
        model.generate(IDS[:1], max_new_tokens=4, do_sample=False)
    trace = capture.trace()
    assert trace.probe.tokens == 16 + 3
    assert trace.coverage.is_complete


LUCIDRAINS = {
    "hc": (HyperConnections, {}, "hyper_connections"),
    "hc without tanh": (HyperConnections, {"tanh": False}, "hyper_connections"),
    "mhc v1": (MHCv1, {}, "hyper_connections_mhc"),
    "mhc v1 in the log domain": (MHCv1, {"log_domain_sinkhorn": True}, "hyper_connections_mhc"),
    "mhc v1 with three proposals": (
        MHCv1,
        {"num_dynamic_alpha_proposals": 3},
        "hyper_connections_mhc",
    ),
    "mhc v1 with three iterations": (MHCv1, {"sinkhorn_iters": 3}, "hyper_connections_mhc"),
    "mhc v1 without iterations": (MHCv1, {"sinkhorn_iters": 0}, "hyper_connections_mhc"),
    "mhc v2": (MHCv2, {}, "hyper_connections_mhc_v2"),
    "mhc v2 unconstrained": (MHCv2, {"sinkhorn_iters": 0}, "hyper_connections_mhc_v2"),
    "mhc v2 with two proposals": (
        MHCv2,
        {"num_dynamic_alpha_proposals": 2},
        "hyper_connections_mhc_v2",
    ),
}


@pytest.mark.parametrize("case", LUCIDRAINS)
def test_lucidrains_classes_close_with_m_and_not_with_its_transpose(case: str) -> None:
    connection, options, adapter = LUCIDRAINS[case]
    model = LucidrainsStack(connection, streams_last=connection is MHCv2, **options)
    trace = capture_of(model, torch.randn(2, 5, WIDTH))
    assert trace.model.adapter == adapter
    assert trace.coverage.is_complete
    assert trace.orientation.verified == "numeric"
    assert trace.orientation.error < 1e-6 < 1e-3 < trace.orientation.error_transposed


@pytest.mark.parametrize("connection", [HyperConnections, MHCv1, MHCv2])
def test_lucidrains_modules_with_a_silent_branch_return_m_times_x(connection: Any) -> None:
    """The whole update with F = 0, per site, against the matrix that the capture reports."""
    model = LucidrainsStack(connection, n_blocks=1, streams_last=connection is MHCv2)
    site = model.layers[0][0]
    torch.nn.init.zeros_(site.branch.weight)
    torch.nn.init.zeros_(site.branch.bias)
    x = torch.randn(2, 5, 4, WIDTH)
    folded = x if connection is MHCv2 else x.movedim(-2, 1).flatten(0, 1)
    with torch.no_grad(), md.capture(site) as capture:
        out = site(folded)
    out = out if connection is MHCv2 else out.unflatten(0, (2, 4)).movedim(1, -2)
    M = torch.from_numpy(capture.trace().chains[0].M[0])
    torch.testing.assert_close(
        M @ x.reshape(10, 4, WIDTH), out.reshape(10, 4, WIDTH), atol=1e-5, rtol=0
    )
    assert (M.mT @ x.reshape(10, 4, WIDTH) - out.reshape(10, 4, WIDTH)).abs().max() > 1e-2


def test_a_site_that_is_called_as_a_decorated_branch_is_still_seen() -> None:
    connection = HyperConnections(4, dim=WIDTH, layer_index=1)
    run = connection.decorate_branch(torch.tanh)
    with md.capture(connection) as capture:
        run(torch.randn(8, 3, WIDTH))
        run(torch.randn(8, 3, WIDTH))
    assert capture.trace().chains[0].M.shape == (1, 12, 4, 4)


@pytest.mark.parametrize(
    ("form", "adapter"),
    [("hc", "hyper_connections"), ("mhc", "gpt_mhc"), ("mhc_lite", "gpt_mhc_lite")],
)
def test_gpt_forms_of_the_mhc_lite_family_close_numerically(form: str, adapter: str) -> None:
    trace = capture_of(GPT(form), IDS % 32)
    assert trace.model.adapter == adapter
    assert [site.name for site in trace.sites][:3] == [
        f"transformer.h.{n}" for n in ("0.hc_attn", "0.hc_mlp", "1.hc_attn")
    ]
    assert trace.orientation.verified == "numeric"
    assert trace.orientation.error < 1e-6 < 1e-3 < trace.orientation.error_transposed


@pytest.mark.parametrize("options", [{"num_fracs": 2}, {"mix_streams_before_norm": True}])
def test_a_form_that_no_adapter_reads_is_refused_with_the_way_out(options: dict[str, Any]) -> None:
    model = LucidrainsStack(MHCv2, streams_last=True, **options)
    with pytest.raises((AdapterError, NoHyperConnectionsError), match="md.tap"):
        md.capture(model)


def test_a_custom_constraint_is_refused_and_not_replaced_by_sinkhorn() -> None:
    model = LucidrainsStack(MHCv1, residual_mix_constraint_fn=lambda logits: logits.softmax(-1))
    with pytest.raises(AdapterError, match="custom residual_mix_constraint_fn"):
        md.capture(model)


def test_two_code_bases_in_one_model_are_refused() -> None:
    model = torch.nn.ModuleList([LucidrainsStack(MHCv1), LucidrainsStack(HyperConnections)])
    with pytest.raises(
        AdapterError, match="hyper_connections and hyper_connections_mhc stand in one model"
    ):
        md.capture(model)


def test_a_tap_reads_anybodys_module_and_the_closure_checks_its_word() -> None:
    class Mix(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.R = torch.nn.Parameter(torch.randn(3, 3))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.einsum("st,bsc->btc", self.R, x) + 0.5 * torch.tanh(
                x.mean(1, keepdim=True)
            ), self.R

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(Mix() for _ in range(12))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x, _ = block(x)
            return x

    torch.manual_seed(0)
    net, x = Net(), torch.randn(5, 3, 8)
    shown = {
        word: capture_of(
            net,
            x,
            taps={
                "blocks.*": md.tap(
                    lambda module, args, output: output[1].expand(len(args[0]), 3, 3),
                    stored=word,
                    streams=lambda module, args, output: args[0],
                    H_post=lambda module, args, output: torch.full(args[0].shape[:2], 0.5),
                )
            },
        )
        for word in ("M", "M^T")
    }
    assert shown["M^T"].orientation.verified == "numeric"
    assert shown["M"].orientation.verified == "declared"
    assert shown["M"].orientation.error > 0.1
    np.testing.assert_array_equal(shown["M^T"].chains[0].M[3, 0], net.blocks[3].R.detach().T)
    assert [site.name for site in shown["M"].sites][-1] == "blocks.11"


def test_a_tap_that_returns_a_vector_is_told_so() -> None:
    with pytest.raises(md.MhcDiagError, match=r"H_res has shape \[2, 16\]"):
        capture_of(GPT("hc"), IDS % 32, taps={"transformer.wte": md.tap(lambda m, a, o: a[0])})
