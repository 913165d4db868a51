"""Hugging Face folders and shards with an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mhc_diag.checkpoints import detect, inspect_file, open_checkpoint
from mhc_diag.errors import CheckpointError

STATE = {f"layers.{index}.w": torch.full((2, 3), float(index)) for index in range(4)}
CONFIG = {"hc_mult": 4, "rms_norm_eps": 1e-6}


def index_of(files: dict[str, str]) -> str:
    return json.dumps({"metadata": {"total_size": 96}, "weight_map": files})


def sharded(folder: Path, *, config: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(STATE)}
    for shard in set(files.values()):
        save_file({name: STATE[name] for name in STATE if files[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(index_of(files))
    if config:
        (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def assert_same(path: Path, kind: str) -> None:
    assert detect(path) == kind
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == kind
        assert set(checkpoint.tensors) == set(STATE)
        for name, tensor in STATE.items():
            np.testing.assert_array_equal(checkpoint.read(name), tensor.numpy())


def test_a_sharded_folder_is_read_with_its_settings(tmp_path: Path) -> None:
    assert_same(sharded(tmp_path / "m"), "hf-folder")
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint.config == CONFIG
        assert checkpoint.size == sum(f.stat().st_size for f in tmp_path.glob("m/*.safetensors"))


def test_shards_without_settings_and_the_index_itself_are_read(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m", config=False)
    assert_same(folder, "sharded-safetensors")
    assert_same(folder / "model.safetensors.index.json", "sharded-safetensors")
    (folder / "model.safetensors.index.json").unlink()
    assert_same(folder, "sharded-safetensors")


def test_reading_from_shards_keeps_no_file_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with open_checkpoint(sharded(tmp_path / "m")) as checkpoint:
        for name in checkpoint.tensors:
            checkpoint.read(name)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors"])
def test_a_folder_with_one_file_is_read(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert_same(tmp_path, "hf-folder")


def test_torch_shards_with_and_without_index_are_read(tmp_path: Path) -> None:
    names = list(STATE)
    files = {name: f"pytorch_model-0000{1 + i // 2}-of-00002.bin" for i, name in enumerate(names)}
    for shard in set(files.values()):
        torch.save({n: STATE[n] for n in names if files[n] == shard}, tmp_path / shard)
    (tmp_path / "config.json").write_text("{}")
    assert_same(tmp_path, "hf-folder")
    (tmp_path / "pytorch_model.bin.index.json").write_text(index_of(files))
    assert_same(tmp_path, "hf-folder")


def test_a_model_saved_by_transformers_is_read_back_exactly(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16}
    model = LlamaForCausalLM(
        LlamaConfig(**settings, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    )
    model.bfloat16()
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.config["model_type"] == "llama"
        for name, tensor in model.state_dict().items():
            np.testing.assert_array_equal(checkpoint.read(name), tensor.float().numpy())


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", "a\0b"]
)
def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, shard: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index_of({"w": shard}))
    with pytest.raises(CheckpointError, match="outside the folder"):
        open_checkpoint(tmp_path)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "a" / "b" / "m")
    shard = folder / "model-00001-of-00002.safetensors"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link to .*elsewhere.*, outside the folder"):
        open_checkpoint(folder)


def test_the_links_of_a_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "models--x" / "snapshots" / "abc")
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(Path("../../blobs") / str(number))
    assert_same(folder, "hf-folder")


def test_a_link_without_index_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "m"
    folder.mkdir(parents=True)
    save_file(STATE, tmp_path / "secret")
    (folder / "model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="outside the folder"):
        open_checkpoint(folder)


def test_a_missing_shard_and_a_missing_tensor_are_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"'model-00002-of-00002\.safetensors' is missing"):
        open_checkpoint(folder)
    save_file({"layers.1.w": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor 'layers\.3\.w' of the index is missing"):
        open_checkpoint(folder)


def test_shards_that_are_numbered_and_incomplete_are_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model-00001-of-00003.safetensors")
    with pytest.raises(CheckpointError, match="1 of its 3 shards"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file(STATE, tmp_path / f"model-0000{number}-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="stands in two shards"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("index", "match"),
    [
        ('{"weight_map": {}}', "no table of tensors"),
        ('{"weight_map": 3}', "no table of tensors"),
        ('{"weight_map": {"w": 3}}', "names no file"),
        ("[]", "JSON but no object"),
        ("{", "not valid JSON"),
        ("", "the file is empty"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, index: str, match: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(tmp_path)


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{'hc_mult': 4}")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("names", "kind", "match"),
    [
        ([".metadata", "__0_0.distcp"], "dcp", "torch.distributed.checkpoint"),
        (["_METADATA", "manifest.ocdbt"], "orbax", "Orbax"),
        (["mp_rank_00_model_states.pt"], "deepspeed", "mp_rank_00"),
        (["run.json", "stats.jsonl"], "run", "a recorded run"),
    ],
)
def test_folders_of_other_kinds_are_named(
    tmp_path: Path, names: list[str], kind: str, match: str
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert detect(tmp_path) == kind
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(tmp_path)


def test_a_folder_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it holds nothing"):
        open_checkpoint(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"it holds notes\.txt"):
        open_checkpoint(tmp_path)


def test_an_inspection_states_the_facts_and_reads_no_tensor(tmp_path: Path) -> None:
    save_file({**STATE, "b": torch.ones(10**5).bfloat16()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    facts = inspect_file(tmp_path).to_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert facts.pop("bytes_read") < 2000
    assert facts == {
        "path": str(tmp_path),
        "format": "hf-folder",
        "size": (tmp_path / "model.safetensors").stat().st_size,
        "tensors": 5,
        "tensor_bytes": 4 * 24 + 2 * 10**5,
        "dtypes": {"bfloat16": 1, "float32": 4},
        "config": CONFIG,
        "step": None,
        "foreign_globals": [],
        "notes": [],
    }


def test_a_shard_of_another_kind_says_which(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="old format"):
        open_checkpoint(tmp_path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="git-lfs"):
        open_checkpoint(tmp_path)


def test_a_config_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "m"
    folder.mkdir(parents=True)
    save_file(STATE, folder / "model.safetensors")
    (tmp_path / "secret").write_text("{}")
    (folder / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"'config\.json' is a link to"):
        open_checkpoint(folder)
