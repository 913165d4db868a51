"""load_plain: a checkpoint as plain values and torch tensors, without running anything."""

from __future__ import annotations

import argparse
import dataclasses
import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mhc_diag.checkpoints.plain import load_plain
from mhc_diag.errors import CheckpointError


class Kind(enum.Enum):
    MHC = "mhc"


@dataclasses.dataclass
class Config:
    n_streams: int = 4
    kind: Kind = Kind.MHC


class Attributes(dict[str, Any]):
    pass


def loaded(tmp_path: Path, value: Any) -> dict[str, Any]:
    torch.save(value, tmp_path / "x.pt")
    return load_plain(tmp_path / "x.pt")


def test_a_trainers_checkpoint_comes_back_as_torch_load_gives_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    plain = loaded(
        tmp_path,
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "n": [1, (2.5, "x")]},
    )
    reference = torch.load(tmp_path / "x.pt", weights_only=True)
    assert plain["n"] == reference["n"]
    assert list(plain) == list(reference)
    assert list(plain["model"]) == list(reference["model"])
    for name, tensor in reference["model"].items():
        assert plain["model"][name].dtype == tensor.dtype
        assert torch.equal(plain["model"][name], tensor)
    moments, expected = plain["optimizer"]["state"][0], reference["optimizer"]["state"][0]
    assert torch.equal(moments["exp_avg"], expected["exp_avg"])
    assert plain["optimizer"]["param_groups"] == reference["optimizer"]["param_groups"]
    model.load_state_dict(plain["model"])


def test_views_share_their_storage_and_changes_never_reach_the_file(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    plain = loaded(tmp_path, {"a": base, "b": base.T, "c": base[1:, ::2], "e": base[:0]})
    before = (tmp_path / "x.pt").read_bytes()
    assert torch.equal(plain["b"], base.T)
    assert torch.equal(plain["c"], base[1:, ::2])
    assert plain["e"].shape == (0, 4)
    plain["a"][1, 0] = 99
    assert plain["b"][0, 1] == 99
    assert plain["c"][0, 0] == 99
    assert (tmp_path / "x.pt").read_bytes() == before


def test_foreign_objects_become_what_is_known_about_them(tmp_path: Path) -> None:
    plain = loaded(
        tmp_path,
        {
            "w": torch.ones(1),
            "args": argparse.Namespace(lr=1e-3, inner=argparse.Namespace(x=1)),
            "config": Config(),
            "attributes": Attributes(a=1),
            "dtype": torch.bfloat16,
            "device": torch.device("cpu"),
            "size": torch.Size([2, 3]),
            "path": Path("a/b"),
            "number": np.float64(2.5),
            "array": np.ones(2),
            "class": Config,
            "set": {1},
            7: None,
        },
    )
    plain.pop("w")
    assert plain.pop("array") == "<numpy.core.multiarray._reconstruct, not executed>".replace(
        "core", "_core" if np.__version__ >= "2" else "core"
    )
    assert plain.pop("class").endswith(".Config")
    assert plain == {
        "args": {"lr": 1e-3, "inner": {"x": 1}},
        "config": {"n_streams": 4, "kind": "mhc"},
        "attributes": {"a": 1},
        "dtype": torch.bfloat16,
        "device": "cpu",
        "size": (2, 3),
        "path": "a/b",
        "number": 2.5,
        "set": [1],
        7: None,
    }


def test_a_pickled_module_becomes_its_state_dict(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.LayerNorm(4)))
    for value in (loaded(tmp_path, model), loaded(tmp_path, {"m": model})["m"]):
        assert list(value) == list(model.state_dict())
        assert all(torch.equal(value[name], tensor) for name, tensor in model.state_dict().items())


def test_other_formats_give_tensors_by_name(tmp_path: Path) -> None:
    state = {"module.w": torch.ones(2, 3).bfloat16(), "f8": torch.ones(3).to(torch.float8_e5m2)}
    save_file(state, tmp_path / "model.safetensors")
    np.savez_compressed(tmp_path / "x.npz", w=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    plain = load_plain(tmp_path / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in plain.items()} == {
        name: tensor.dtype for name, tensor in state.items()
    }
    assert torch.equal(plain["module.w"], state["module.w"])
    assert torch.equal(
        load_plain(tmp_path / "x.npz")["w"], torch.arange(6.0).reshape(2, 3).double()
    )


def test_a_folder_gives_model_and_config(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"hc_mult": 4}')
    plain = load_plain(tmp_path)
    assert plain["config"] == {"hc_mult": 4}
    assert torch.equal(plain["model"]["w"], torch.ones(2))


def test_a_file_whose_top_level_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="top level is no mapping"):
        loaded(tmp_path, [torch.ones(1)])
