"""safetensors files against the safetensors library, and headers that lie."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mhc_diag.checkpoints import detect, open_checkpoint
from mhc_diag.errors import CheckpointError

TYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
    torch.complex64,
)
GOOD = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def write(path: Path, header: Any, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_every_element_type_is_read_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {str(t): (torch.randn(3, 4, dtype=torch.float64) * 3).to(t) for t in TYPES}
    save_file({**state, "empty": torch.ones(0, 3), "scalar": torch.tensor(2.0)}, tmp_path / "x")
    with open_checkpoint(tmp_path / "x") as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.size == (tmp_path / "x").stat().st_size
        assert checkpoint.tensors["empty"].shape == (0, 3)
        assert checkpoint.read("empty").shape == (0, 3)
        assert checkpoint.read("scalar") == 2
        for name, tensor in state.items():
            wide = tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
            value = checkpoint.read(name)
            assert f"torch.{checkpoint.tensors[name].dtype}" == name
            assert value.dtype == wide.numpy().dtype
            assert value.tobytes() == wide.numpy().tobytes()


def test_wrapper_prefixes_are_stripped(tmp_path: Path) -> None:
    save_file({"_orig_mod.h.0.w": torch.ones(2)}, tmp_path / "x")
    with open_checkpoint(tmp_path / "x") as checkpoint:
        assert list(checkpoint.tensors) == ["h.0.w"]
        assert checkpoint.step is None
        assert checkpoint.config == {}


def test_only_what_is_read_is_loaded_from_a_file_of_a_gigabyte(tmp_path: Path) -> None:
    header = {
        "large": {"dtype": "BF16", "shape": [2**19, 2**10], "data_offsets": [8, 2**30 + 8]},
        "small": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    path = write(tmp_path / "x", header, struct.pack("<2f", 1, 2))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**30)
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("small"), [1, 2])
        assert checkpoint.bytes_read < 2000


def test_a_trace_is_recognised_and_not_opened_as_a_checkpoint(tmp_path: Path) -> None:
    save_file({"main/M": torch.ones(1)}, tmp_path / "x", metadata={"mhc_diag": "{}"})
    assert detect(tmp_path / "x") == "trace"
    with pytest.raises(CheckpointError, match="it is a trace"):
        open_checkpoint(tmp_path / "x")


def test_a_file_with_a_list_or_holes_in_its_data_is_read(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}
    with open_checkpoint(write(tmp_path / "x", header, struct.pack("<2f", 1, 2))) as checkpoint:
        assert checkpoint.read("w") == [2]


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"data_offsets": [0, 9]}, "ends at byte"),
        ({"data_offsets": [8, 16]}, "ends at byte"),
        ({"data_offsets": [0, 2**63]}, "no valid data_offsets"),
        ({"data_offsets": [0, 4]}, "needs 8 bytes, 4 declared"),
        ({"data_offsets": [8, 0]}, "no valid data_offsets"),
        ({"data_offsets": [-8, 0]}, "no valid data_offsets"),
        ({"data_offsets": [0]}, "no valid data_offsets"),
        ({"data_offsets": "ab"}, "no valid data_offsets"),
        ({"data_offsets": [0.0, 8.0]}, "no valid data_offsets"),
        ({"shape": [2**62]}, "needs .* bytes, 8 declared"),
        ({"shape": [2**62] * 60}, "needs .* bytes, 8 declared"),
        ({"shape": [1] * 65}, "no valid shape"),
        ({"shape": [-1, -2]}, "no valid shape"),
        ({"shape": [True, 2]}, "no valid shape"),
        ({"shape": None}, "no valid shape"),
        ({"dtype": "F128"}, "unknown type 'F128'"),
        ({"dtype": ["F32"]}, "unknown type"),
    ],
    ids=str,
)
def test_an_entry_that_lies_is_refused(tmp_path: Path, entry: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(write(tmp_path / "x", {"w": {**GOOD["w"], **entry}}))


def test_tensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    header = {**GOOD, "v": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}
    with pytest.raises(CheckpointError, match="tensor 'v' overlaps"):
        open_checkpoint(write(tmp_path / "x", header))


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b'{"w": 1}', "tensor 'w' is no object"),
        (b'{"w": {}, "w": {}}', "a key stands twice"),
        (b'{"__metadata__": 3}', "no table of strings"),
        (b'{"__metadata__": {"a": 3}}', "no table of strings"),
        (b"{", "not valid JSON"),
        (b"{\xff}", "not valid JSON"),
        (b'{"a":' + b"[" * 200_000, "nested too deeply"),
        (b'{"a":' + b"9" * 10_000 + b"}", "not valid JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_broken_header_is_refused(tmp_path: Path, header: bytes, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(write(tmp_path / "x", header))


@pytest.mark.parametrize("length", [9, 100, 2**31, 2**63, 2**64 - 256])
def test_a_header_length_beyond_the_file_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b"{}" + bytes(6))
    with pytest.raises(CheckpointError, match="header declares|not valid JSON"):
        open_checkpoint(tmp_path / "x")


def test_a_header_larger_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", 2**30) + b"{")
    os_size = 2**30 + 100
    with (tmp_path / "x").open("r+b") as file:
        file.truncate(os_size)
    with pytest.raises(CheckpointError, match="the limit is"):
        open_checkpoint(tmp_path / "x")


def test_types_that_numpy_cannot_hold_are_listed_and_refused_when_read(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F4", "shape": [4, 4], "data_offsets": [0, 8]}}
    with open_checkpoint(write(tmp_path / "x", header)) as checkpoint:
        assert checkpoint.tensors["w"].dtype == "float4_e2m1"
        assert checkpoint.tensors["w"].nbytes == 8
        with pytest.raises(CheckpointError, match="type float4_e2m1 cannot be read"):
            checkpoint.read("w")
