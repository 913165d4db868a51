"""The zoo's language models: shapes, the propagation rule inside a block, checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mhc_diag.errors import ModelError, OutputError
from mhc_diag.zoo.models import (
    CONNECTIONS,
    ConnectionKind,
    StreamBlock,
    ZooConfig,
    ZooModel,
    build,
    load_checkpoint,
    propagate,
    save_checkpoint,
)

STREAMED = [kind for kind in CONNECTIONS if kind != "residual"]


def small(connection: ConnectionKind, *, seed: int = 0) -> ZooModel:
    torch.manual_seed(seed)
    config = ZooConfig(connection=connection, n_blocks=2, width=8, n_heads=2, context=16)
    model = ZooModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids(length: int = 10) -> torch.Tensor:
    return torch.randint(256, (3, length), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_model_gives_one_row_of_logits_per_byte(connection: ConnectionKind) -> None:
    assert small(connection)(ids()).shape == (3, 10, 256)


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_position_does_not_see_what_comes_after_it(connection: ConnectionKind) -> None:
    model, before = small(connection), ids()
    after = before.clone()
    after[:, 6:] = (after[:, 6:] + 1) % 256
    assert torch.allclose(model(before)[:, :6], model(after)[:, :6], atol=1e-5)
    assert not torch.allclose(model(before)[:, 6:], model(after)[:, 6:], atol=1e-2)


def test_propagation_multiplies_rows_as_destinations() -> None:
    x = torch.tensor([[10.0], [1.0]])[None, None]  # two streams of width one
    H_res = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    H_post = torch.tensor([0.5, -1.0])[None, None]
    after = propagate(x, H_res, H_post, torch.tensor([[[100.0]]]))
    assert after.flatten().tolist() == [12 + 50, 34 - 100]


@pytest.mark.parametrize("connection", STREAMED)
def test_a_block_is_two_sites_of_the_propagation_rule(connection: ConnectionKind) -> None:
    block = small(connection).blocks[1]
    assert isinstance(block, StreamBlock)
    x = torch.randn(2, 5, 4, 8, generator=torch.Generator().manual_seed(6))
    wanted = x
    for site, branch in ((block.hc_attn, block.attn), (block.hc_mlp, block.mlp)):
        branch_input, H_res, H_post = site(wanted)
        assert not torch.allclose(H_res, H_res.mT, atol=1e-3)
        f = branch(branch_input)
        wanted = torch.stack(
            [
                sum(H_res[..., i, j, None] * wanted[:, :, j] for j in range(4))
                + H_post[..., i, None] * f
                for i in range(4)
            ],
            dim=2,
        )
    assert torch.allclose(block(x), wanted, atol=1e-5)


def test_an_hc_model_at_its_start_is_the_residual_model_four_times() -> None:
    """H_res = I, H_post = 1 and equal streams: each stream is x + F(x); the final norm undoes 4."""
    torch.manual_seed(0)
    hc = ZooModel(ZooConfig(connection="hc", n_blocks=2, width=8, n_heads=2))
    residual = ZooModel(ZooConfig(connection="residual", n_blocks=2, width=8, n_heads=2))
    shared = {name: v for name, v in hc.state_dict().items() if ".hc_" not in name}
    residual.load_state_dict(shared)
    with torch.no_grad():  # the norm's epsilon is not scaled by 4
        hc.token.weight.mul_(50)
        residual.token.weight.mul_(50)
    assert torch.allclose(hc(ids()), residual(ids()), atol=1e-5)


def test_parameter_names_are_the_documented_ones() -> None:
    sites = ("blocks.0.hc_attn", "blocks.0.hc_mlp", "blocks.1.hc_attn", "blocks.1.hc_mlp")
    packed = ("norm.weight", "phi.weight", "bias", "alpha_pre", "alpha_post", "alpha_res")
    parts = ("pre", "post", "res")
    hc = ("norm.weight", *(f"{kind}_{p}" for kind in ("static", "dynamic", "scale") for p in parts))
    for connection, names in (("hc", hc), ("mhc", packed), ("mhc-lite", packed)):
        found = {name for name in small(connection).state_dict() if ".hc_" in name}
        assert found == {f"{site}.{name}" for site in sites for name in names}
    assert not [name for name in small("residual").state_dict() if "hc_" in name]


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_checkpoint_comes_back_to_the_bit(connection: ConnectionKind, tmp_path: Path) -> None:
    model = small(connection)
    path = save_checkpoint(tmp_path / "model.pt", model, step=7)
    again = load_checkpoint(path)
    assert again.config == model.config
    assert list(again.state_dict()) == list(model.state_dict())
    assert torch.equal(again(ids()), model(ids()))
    raw = torch.load(path, weights_only=True)
    assert raw["step"] == 7
    assert raw["config"] == asdict(model.config)


def test_a_checkpoint_of_somebody_else_is_refused() -> None:
    with pytest.raises(ModelError, match=r"it has the keys \['state_dict'\]"):
        build({"state_dict": {}})


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    content = torch.load(save_checkpoint(tmp_path / "a.pt", small("hc"), step=0), weights_only=True)
    content["config"]["width"] = 16
    with pytest.raises(ModelError, match="size mismatch"):
        build(content)


def test_a_checkpoint_is_not_written_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        save_checkpoint(tmp_path / "no" / "a.pt", small("hc"), step=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"connection": "frac"}, "residual, hc, mhc, mhc-lite"), ({"n_heads": 3}, "3 heads")],
    ids=["connection", "heads"],
)
def test_a_config_that_cannot_be_built_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ZooConfig(**{"connection": "hc", **change})  # type: ignore[arg-type]  # the point


@pytest.mark.slow
@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_model_is_one_graph_for_the_compiler(connection: ConnectionKind) -> None:
    torch._dynamo.reset()
    model = small(connection)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(ids()), model(ids()), atol=1e-5)
