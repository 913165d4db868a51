"""Which part of a torch file holds the weights, the settings and the step."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import assert_same, network, save
from torch import nn

from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.errors import CheckpointError


def test_a_nanogpt_checkpoint_gives_its_model_its_settings_and_its_step(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    path = save(
        tmp_path,
        {
            "model": {f"_orig_mod.{name}": value for name, value in model.state_dict().items()},
            "optimizer": optimizer.state_dict(),
            "model_args": {"n_layer": 12, "bias": False, "dropout": 0.0},
            "iter_num": 4000,
            "best_val_loss": torch.tensor(3.1),
            "config": {"n_layer": 99, "dataset": "openwebtext", "betas": (0.9, 0.95)},
        },
    )
    assert_same(path, model.state_dict())
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "torch-zip"
        assert checkpoint.size == path.stat().st_size
        assert checkpoint.step == 4000
        assert checkpoint.config == {
            "n_layer": 12,
            "bias": False,
            "dropout": 0.0,
            "iter_num": 4000,
            "dataset": "openwebtext",
            "betas": [0.9, 0.95],
        }
        assert checkpoint.foreign_globals == ()
        assert checkpoint.notes == ()


def test_a_flat_state_dict_keeps_its_order_and_names(tmp_path: Path) -> None:
    model = network()
    assert_same(save(tmp_path, model.state_dict()), model.state_dict())


@pytest.mark.parametrize(
    "keys",
    [("state_dict",), ("model_state_dict",), ("module",), ("a", "b"), ("a", "model", "module")],
)
def test_a_state_dict_is_found_under_any_key(tmp_path: Path, keys: tuple[str, ...]) -> None:
    state = network().state_dict()
    value: Any = state
    for key in keys:
        value = {key: value, "epoch": 3, "metric": torch.tensor(0.5)}
    assert_same(save(tmp_path, value), dict(state))


def test_an_optimizer_under_any_name_is_never_taken_for_the_model(tmp_path: Path) -> None:
    state = {"w.a": torch.ones(2)}
    moments = {index: {"exp_avg": torch.ones(2), "step": torch.tensor(1.0)} for index in range(9)}
    adam = {"state": moments, "param_groups": [{"params": list(range(9))}]}
    path = save(tmp_path, {"d_adam": adam, "optimizer_states": [adam], "weights": state})
    assert_same(path, state)
    assert_same(save(tmp_path, {**state, "optimizer": adam, "rng_state": torch.ones(4)}), state)


def test_a_file_of_optimizer_states_alone_is_refused(tmp_path: Path) -> None:
    adam = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"params": [0]}]}
    with pytest.raises(CheckpointError, match="holds no tensors of a model"):
        open_checkpoint(save(tmp_path, adam))


def test_the_model_wins_over_its_average_and_the_rival_is_named(tmp_path: Path) -> None:
    model, average = {"w.a": torch.zeros(2)}, {"w.a": torch.ones(2), "w.decay": torch.ones(1)}
    path = save(tmp_path, {"ema": average, "model": model})
    assert_same(path, model)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.notes == ("weights are taken from 'model', not from 'ema'",)


def test_two_unknown_state_dicts_keep_their_keys_in_the_names(tmp_path: Path) -> None:
    path = save(tmp_path, {"encoder": {"a.w": torch.zeros(2)}, "decoder": {"a.w": torch.ones(3)}})
    assert_same(path, {"encoder.a.w": torch.zeros(2), "decoder.a.w": torch.ones(3)})


def test_a_tree_with_a_part_called_net_loses_none_of_its_parts(tmp_path: Path) -> None:
    path = save(tmp_path, {"params": {"net": {"w": torch.zeros(2)}, "head": {"w": torch.ones(1)}}})
    assert_same(path, {"net.w": torch.zeros(2), "head.w": torch.ones(1)})


def test_metrics_beside_a_state_dict_are_left_out_and_noted(tmp_path: Path) -> None:
    path = save(tmp_path, {"model": {"w.a": torch.zeros(2)}, "metrics": {"loss": torch.ones(1)}})
    assert_same(path, {"w.a": torch.zeros(2)})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.notes == ("weights are taken from 'model', not from 'metrics'",)


def test_nested_trees_and_lists_give_dotted_names(tmp_path: Path) -> None:
    value = {"layers": [{"hc": torch.zeros(2)}, {"hc": torch.ones(2)}], "head": {0: torch.ones(1)}}
    assert_same(
        save(tmp_path, value),
        {"layers.0.hc": torch.zeros(2), "layers.1.hc": torch.ones(2), "head.0": torch.ones(1)},
    )


def test_wrapper_prefixes_are_stripped_anywhere_in_a_name(tmp_path: Path) -> None:
    value = torch.ones(2)
    path = save(
        tmp_path,
        {
            "module._orig_mod.h.0._checkpoint_wrapped_module.hc._fsdp_wrapped_module.w": value,
            "h.mhc_module.w": value,
            "h.module": value,
        },
    )
    assert_same(path, {"h.0.hc.w": value, "h.mhc_module.w": value, "h.module": value})


def test_two_names_that_differ_in_a_wrapper_alone_are_both_kept(tmp_path: Path) -> None:
    state = {"h.w": torch.zeros(2), "module.h.w": torch.ones(2)}
    assert_same(save(tmp_path, state), state)


class Settings:
    def __init__(self) -> None:
        self.n_streams = 4
        self.hidden = torch.ones(3)


@dataclasses.dataclass
class Config:
    sinkhorn_iters: int = 20
    name: str = "mhc"


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(2), persistent=False)
        self.register_buffer("scale", torch.ones(1))


def test_a_whole_pickled_module_gives_its_state_dict(tmp_path: Path) -> None:
    model = nn.Sequential(network(), Tied())
    path = save(tmp_path, model)
    assert_same(path, model.state_dict())
    with open_checkpoint(path) as checkpoint:
        assert "torch.nn.modules.linear.Linear" in checkpoint.foreign_globals
        assert any(name.endswith(".Tied") for name in checkpoint.foreign_globals)


def test_a_module_inside_a_dict_is_found(tmp_path: Path) -> None:
    model = network()
    path = save(tmp_path, {"net": nn.DataParallel(model), "step": 12})
    assert_same(path, dict(model.state_dict()))


def test_a_namespace_and_a_dataclass_are_read_as_settings_and_named(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        {
            "model": {"w.a": torch.ones(2)},
            "args": argparse.Namespace(hc_mult=4, lr=1e-3, iteration=5),
            "config": Config(),
            "iteration": 700,
            "extra": Settings(),
        },
    )
    with open_checkpoint(path) as checkpoint:
        assert dict(checkpoint.config) == {
            "hc_mult": 4,
            "lr": 1e-3,
            "iteration": 5,
            "sinkhorn_iters": 20,
            "name": "mhc",
        }
        assert checkpoint.step == 700
        names = checkpoint.foreign_globals
    assert names[0] == "argparse.Namespace"
    assert [name.rpartition(".")[2] for name in names] == ["Namespace", "Config", "Settings"]


@pytest.mark.parametrize(
    ("value", "step"),
    [
        ({"step": 5, "iter_num": 6}, 5),
        ({"global_step": torch.tensor(11)}, 11),
        ({"iteration": np.int64(13)}, 13),
        ({"epoch": 3}, None),
        ({"step": True}, None),
        ({"step": -1}, None),
        ({"step": 2.5}, None),
    ],
)
def test_the_step_is_taken_from_the_usual_keys(
    tmp_path: Path, value: dict[str, Any], step: int | None
) -> None:
    with open_checkpoint(save(tmp_path, {"model": {"w.a": torch.ones(1)}, **value})) as checkpoint:
        assert checkpoint.step == step
