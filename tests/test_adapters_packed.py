"""Relatives of DeepSeek-V4 that are not installed here, against a restatement by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from family_models import (
    DeepseekV4HyperConnection,
    DeepseekV41HyperConnection,
    HcPre,
    PackedStack,
    capture_of,
    static_of,
)
from models import WIDTH

from mhc_diag.adapters.modules import find_sites, parameters_by_role
from mhc_diag.adapters.registry import adapter_named
from mhc_diag.errors import AdapterError

PACKED = {
    "deepseek_v4": (DeepseekV4HyperConnection, ("attn_hc", "ffn_hc")),
    "deepseek_v41": (DeepseekV41HyperConnection, ("attn_hc", "ffn_hc")),
    "torchtitan": (HcPre, ("hc_attn_pre", "hc_ffn_pre")),
}


@pytest.mark.parametrize("name", PACKED)
def test_relatives_of_deepseek_v4_close_with_m_and_not_with_its_transpose(name: str) -> None:
    connection, halves = PACKED[name]
    model = PackedStack(connection, halves)
    trace = capture_of(model, torch.randn(2, 5, WIDTH))
    assert trace.model.adapter == name
    assert trace.coverage.is_complete
    assert [site.sublayer for site in trace.sites[:2]] == ["attn", "mlp"]
    assert trace.orientation.verified == "numeric"
    assert trace.orientation.error < 1e-6 < 1e-2 < trace.orientation.error_transposed


@pytest.mark.parametrize("name", PACKED)
def test_relatives_of_deepseek_v4_are_read_from_parameters(name: str, tmp_path: Path) -> None:
    connection, halves = PACKED[name]
    model = PackedStack(connection, halves)
    config = {} if name == "torchtitan" else {"model_type": name}
    trace = static_of(tmp_path, model, config)
    assert trace.model.adapter == name
    assert trace.coverage.is_complete
    for index, site in enumerate(find_sites(model)):
        with torch.no_grad():
            first, post, comb = site.module(torch.zeros(1, 1, 4, WIDTH))
        np.testing.assert_allclose(trace.chains[0].M[index], comb[0].mT, atol=2e-6)
        np.testing.assert_allclose(trace.chains[0].H_post[index], post[0], atol=1e-6)
        if name == "deepseek_v4":
            np.testing.assert_allclose(trace.chains[0].H_pre[index], first[0], atol=1e-6)


def test_the_single_pass_reports_no_read_rather_than_one_at_the_wrong_site() -> None:
    model = PackedStack(*PACKED["deepseek_v41"])
    assert capture_of(model, torch.randn(2, 5, WIDTH)).chains[0].H_pre is None


def test_the_floor_that_torchtitan_leaves_out_makes_another_matrix() -> None:
    model = PackedStack(*PACKED["torchtitan"])
    site = find_sites(model)[0]
    P = parameters_by_role(site.adapter, site.module)
    P["bias"] = 5 * P["bias"]
    settings = {"sinkhorn_iters": 20, "eps": 1e-6, "rms_norm_eps": 1e-6}
    floored = adapter_named("deepseek_v4").maps(P, None, 4, settings)
    bare = site.adapter.maps(P, None, 4, settings)
    assert (floored.H_res - bare.H_res).abs().max() > 1e-3


def test_without_a_configuration_the_relatives_with_the_same_names_are_not_guessed_at(
    tmp_path: Path,
) -> None:
    model = PackedStack(*PACKED["deepseek_v41"])
    with pytest.raises(AdapterError, match="deepseek_v41 and deepseek_v4 and glm5_next alike"):
        static_of(tmp_path, model)
    chosen = static_of(tmp_path, model, adapter="deepseek_v41")
    np.testing.assert_array_equal(
        chosen.chains[0].M, static_of(tmp_path, model, adapter="deepseek_v4").chains[0].M
    )
