"""The zoo's models through their adapters: live, static, and against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import mhc_diag as md
from mhc_diag.adapters.modules import find_sites, parameters_by_role
from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.static import static_trace
from mhc_diag.zoo.models import ZooConfig, ZooModel, save_checkpoint

IDS = torch.arange(32).reshape(2, 16)
ADAPTERS = {"hc": "zoo_hc", "mhc": "zoo_mhc", "mhc-lite": "zoo_mhc_lite"}


def stirred(connection: str) -> ZooModel:
    torch.manual_seed(0)
    model = ZooModel(ZooConfig(connection=connection, n_blocks=3, width=16, n_heads=2, context=16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "hc_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("connection", ADAPTERS)
def test_the_zoo_closes_with_m_as_it_is(connection: str) -> None:
    model = stirred(connection)
    with torch.no_grad(), md.capture(model) as capture:
        model(IDS)
    trace = capture.trace()
    assert trace.model.adapter == ADAPTERS[connection]
    assert trace.orientation.stored == "M"
    assert trace.orientation.verified == "numeric"
    assert trace.orientation.error < 1e-6 < 1e-4 < trace.orientation.error_transposed
    assert trace.chains[0].gram.shape == (6, 32, 5, 5)
    assert np.isfinite(trace.chains[0].gram).all()


@pytest.mark.parametrize("connection", ADAPTERS)
def test_the_family_formula_reproduces_the_zoo_module(connection: str) -> None:
    model = stirred(connection)
    site = find_sites(model)[3]
    assert site.adapter is not None
    x = torch.randn(2, 5, 4, 16)
    with torch.no_grad():
        read, H_res, H_post = site.module(x)
        P = parameters_by_role(site.adapter, site.module)
        maps = site.adapter.maps(P, x, 4, {"sinkhorn_iters": 20})
    torch.testing.assert_close(maps.H_res, H_res, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.H_post, H_post, atol=1e-5, rtol=0)
    torch.testing.assert_close((maps.H_pre.unsqueeze(-1) * x).sum(-2), read, atol=1e-4, rtol=0)


@pytest.mark.parametrize("connection", ADAPTERS)
def test_a_zoo_checkpoint_gives_the_module_at_zero_input(connection: str, tmp_path: Path) -> None:
    model = stirred(connection)
    path = save_checkpoint(tmp_path / "zoo.pt", model, step=7)
    with open_checkpoint(path) as checkpoint:
        trace = static_trace(checkpoint)
    assert trace.model.adapter == ADAPTERS[connection]
    assert trace.source.step == 7
    assert trace.coverage.is_complete
    if connection == "mhc":
        assert trace.model.settings["sinkhorn_iters"].source == "config"
    for index, site in enumerate(find_sites(model)):
        with torch.no_grad():
            _, H_res, H_post = site.module(torch.zeros(1, 1, 4, 16))
        np.testing.assert_allclose(trace.chains[0].M[index, 0], H_res[0, 0], atol=1e-6)
        np.testing.assert_allclose(trace.chains[0].H_post[index, 0], H_post[0, 0], atol=1e-6)
