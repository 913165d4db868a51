"""Writing torch files and holding what was read against what was saved, bit for bit."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.errors import CheckpointError

EIGHTS = (
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
)
WIDENED = {torch.float16, torch.bfloat16, *EIGHTS}


def expected(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    wide = tensor.float() if tensor.dtype in WIDENED else tensor
    return wide.detach().contiguous().numpy()


def assert_same(path: Path, state: dict[str, torch.Tensor]) -> None:
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == list(state)
        for name, tensor in state.items():
            info, value = checkpoint.tensors[name], checkpoint.read(name)
            assert info.shape == tuple(tensor.shape)
            assert info.dtype == str(tensor.dtype).removeprefix("torch.")
            assert info.nbytes == tensor.numel() * tensor.element_size()
            reference = expected(tensor)
            assert value.dtype == reference.dtype
            assert value.shape == reference.shape
            assert value.tobytes() == reference.tobytes()


def save(tmp_path: Path, value: Any, name: str = "x.pt") -> Path:
    torch.save(value, tmp_path / name)
    return tmp_path / name


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Sequential(nn.Linear(5, 2)))


def refused(path: Path, match: str) -> CheckpointError:
    """Opening ``path`` fails for the reason ``match`` without taking much memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=match) as caught:
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert str(path.parent) in str(caught.value)
    assert caught.value.do
    return caught.value


STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQ"
)


def pickled_tensor(
    *,
    offset: int = 0,
    shape: tuple[Any, ...] = (2,),
    stride: tuple[Any, ...] = (1,),
    count: int = 2,
    pid: bytes = STORAGE,
) -> bytes:
    """The opcodes of one tensor as torch writes it; ``count`` elements of storage "0"."""

    def value(item: Any) -> bytes:
        if isinstance(item, tuple):
            return b"(" + b"".join(value(part) for part in item) + b"t"
        return pickle.dumps(item, 2)[2:-1]

    storage = pid.replace(b"K%c", value(count))
    sizes = value(offset) + value(shape) + value(stride)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + sizes + b"\x89ccollections\n"
        b"OrderedDict\n)RtR"
    )


def torch_file(
    path: Path,
    body: bytes,
    *,
    storage: bytes = b"\0\0\x80?\0\0\0@",
    compression: int = zipfile.ZIP_STORED,
    **records: bytes,
) -> Path:
    """A torch zip around the pickle ``body`` (without PROTO and STOP) and one storage."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("x/data/0", storage)
        for name, data in records.items():
            archive.writestr(f"x/{name}", data)
    return path


def one(name: bytes, tensor: bytes) -> bytes:
    """A dict of one entry."""
    return b"}X" + struct.pack("<I", len(name)) + name + tensor + b"s"


def text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content
