"""Torch files as trainers write them, every tensor against torch.load, bit for bit."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import EIGHTS, assert_same, save
from torch import nn

from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.errors import CheckpointError

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WHOLES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
NEWER = (torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.complex128)


@pytest.mark.parametrize("dtype", FLOATS + WHOLES + NEWER, ids=str)
def test_every_element_type_is_read_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    value = (torch.randn(4, 7, dtype=torch.float64) * 3).to(dtype)
    assert_same(save(tmp_path, {"a.w": value, "a.b": value[0]}), {"a.w": value, "a.b": value[0]})


@pytest.mark.parametrize("dtype", EIGHTS, ids=str)
def test_all_256_codes_of_a_one_byte_float_agree_with_torch(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(dtype)
    with open_checkpoint(save(tmp_path, {"w": codes})) as checkpoint:
        value = checkpoint.read("w")
    np.testing.assert_array_equal(value, codes.float().numpy())
    assert value.dtype == np.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_all_65536_codes_of_a_two_byte_float_keep_their_bits(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    codes = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    with open_checkpoint(save(tmp_path, {"w": codes})) as checkpoint:
        value = checkpoint.read("w")
    np.testing.assert_array_equal(value, codes.float().numpy())
    numbers = ~np.isnan(value)  # a quiet and a signalling NaN are both NaN
    assert value[numbers].tobytes() == codes.float().numpy()[numbers].tobytes()


def test_tied_sliced_transposed_and_empty_tensors_are_read_right(tmp_path: Path) -> None:
    base = torch.arange(60.0).reshape(3, 4, 5)
    state = {
        "whole.a": base,
        "tied.a": base,
        "slice.a": base[1:, 2, ::2],
        "transposed.a": base.permute(2, 0, 1),
        "scalar.a": base[1, 1, 1],
        "empty.a": base[:0],
        "expanded.a": base[0, 0, :1].expand(6),
        "bf.a": base[0].bfloat16().T,
    }
    assert_same(save(tmp_path, {"model": state}), state)


def test_parameters_buffers_and_tensors_with_attributes_are_tensors(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(2))
    marked = nn.Parameter(torch.ones(3))
    marked.kind = "marked"  # type: ignore[attr-defined]
    state = {"a.p": parameter, "a.m": marked, "a.b": nn.Buffer(torch.zeros(2))}
    assert_same(save(tmp_path, {"params": state}), state)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_followed(tmp_path: Path, protocol: int) -> None:
    state = OrderedDict({"a.w": torch.ones(2), "a.v": torch.zeros(3).bfloat16()})
    path = tmp_path / "x.pt"
    extra = {"set": {1, 2}, "frozen": frozenset({3}), "raw": b"\x00\xff", "big": 10**30}
    torch.save({"model": state, "x": extra}, path, pickle_protocol=protocol)
    assert_same(path, dict(state))


def test_only_what_is_read_is_loaded_from_a_file_of_300_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    sparse_torch_zip(path, 300 * 2**20)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.size > 300 * 2**20
        assert list(checkpoint.tensors) == ["large", "small"]
        before = checkpoint.bytes_read
        np.testing.assert_array_equal(checkpoint.read("small"), [1.0, 2.0])
        assert before < 5000
        assert checkpoint.bytes_read == before + 8


def test_a_slice_of_a_large_storage_reads_the_slice(tmp_path: Path) -> None:
    path = save(tmp_path, {"w.a": torch.arange(100_000.0)[40_000:40_010]})
    with open_checkpoint(path) as checkpoint:
        before = checkpoint.bytes_read
        assert checkpoint.read("w.a")[0] == 40_000
        assert checkpoint.bytes_read == before + 40


def test_a_name_that_is_not_there_is_answered_by_the_nearest(tmp_path: Path) -> None:
    with (
        open_checkpoint(save(tmp_path, {"layer.weight": torch.ones(1)})) as checkpoint,
        pytest.raises(CheckpointError, match=r"Did you mean 'layer\.weight'"),
    ):
        checkpoint.read("layer.weigth")


def test_a_closed_checkpoint_cannot_be_read(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(tmp_path, {"w": torch.ones(1)}))
    checkpoint.close()
    with pytest.raises(CheckpointError, match="it is closed"):
        checkpoint.read("w")


class _Storage:
    """Pickles as torch pickles a storage: through its persistent id."""

    def __init__(self, key: str, count: int) -> None:
        self.pid = ("storage", torch.FloatStorage, key, "cpu", count)


class _Tensor:
    def __init__(self, key: str, count: int) -> None:
        self.args: tuple[Any, ...] = (_Storage(key, count), 0, (count,), (1,), False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.args


def sparse_torch_zip(path: Path, size: int) -> None:
    """A torch file with one tensor of ``size`` bytes that takes no room on the disk."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return obj.pid if isinstance(obj, _Storage) else None

    with (path.parent / "data.pkl").open("wb") as file:
        Pickler(file, 2).dump({"large": _Tensor("0", size // 4), "small": _Tensor("1", 2)})
    records: list[tuple[bytes, bytes | int]] = [
        (b"x/data.pkl", (path.parent / "data.pkl").read_bytes()),
        (b"x/data/0", size),
        (b"x/data/1", np.array([1, 2], dtype="<f4").tobytes()),
    ]
    directory = b""
    with path.open("wb") as file:
        for name, data in records:
            crc = 0 if isinstance(data, int) else zlib.crc32(data)
            length = data if isinstance(data, int) else len(data)
            common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, crc, length, length, len(name), 0)
            start = file.tell()
            file.write(b"PK\x03\x04" + common + name)
            if isinstance(data, int):
                file.seek(data, 1)
            else:
                file.write(data)
            directory += b"PK\x01\x02\x14\x00" + common + struct.pack("<HHHII", 0, 0, 0, 0, start)
            directory += name
        start = file.tell()
        file.write(directory)
        count = len(records)
        file.write(
            b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), start, 0)
        )
