"""Damaged files: whatever happens to their bytes, the only error is a CheckpointError."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mhc_diag.checkpoints import open_checkpoint
from mhc_diag.checkpoints.inert import InertPickleError
from mhc_diag.checkpoints.plain import load_plain
from mhc_diag.checkpoints.unpickle import unpickle
from mhc_diag.errors import CheckpointError

FORMATS = ("pt", "module", "safetensors", "npz", "packed")


@cache
def original(kind: str) -> bytes:
    """A small good file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        state = {"a.w": torch.ones(3, 4).T, "a.v": torch.ones(5).bfloat16()}
        if kind == "pt":
            extra = {"args": argparse.Namespace(n=4), "config": {"a": (1, 2.5)}, "step": 3}
            torch.save({"model": state, **extra}, path)
        elif kind == "module":
            torch.save(torch.nn.Linear(3, 4), path)
        elif kind == "safetensors":
            save_file({name: value.contiguous() for name, value in state.items()}, path)
        elif kind == "npz":
            np.savez(path, w=np.ones((3, 4)), step=np.array(3))
        else:
            np.savez_compressed(path, w=np.ones((3, 4)), step=np.array(3))
        return path.read_bytes()


def read_everything(data: bytes) -> None:
    """Open, list and read; a CheckpointError is the only thing that may happen."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        with contextlib.suppress(CheckpointError), open_checkpoint(path) as checkpoint:
            for name, info in checkpoint.tensors.items():
                with contextlib.suppress(CheckpointError):
                    assert checkpoint.read(name).shape == info.shape
        with contextlib.suppress(CheckpointError):
            load_plain(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_good_files_open(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    path.write_bytes(original(kind))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_anywhere_gives_a_checkpoint_error(tmp_path: Path, kind: str) -> None:
    data = original(kind)
    path = tmp_path / "cut"
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        with pytest.raises(CheckpointError, match="read the checkpoint"):
            open_checkpoint(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_flipped_bytes_give_a_checkpoint_error_or_other_values(
    data: st.DataObject, kind: str
) -> None:
    content = bytearray(original(kind))
    places = st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        content[place] = byte
    read_everything(bytes(content))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_spliced_bytes_give_a_checkpoint_error_or_other_values(
    data: st.DataObject, kind: str
) -> None:
    content = original(kind)
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(start + 40, len(content))))
    read_everything(content[:start] + data.draw(st.binary(max_size=40)) + content[end:])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_no_trouble(data: bytes) -> None:
    read_everything(data)


OPCODES = [bytes([code]) for code in b"(.012}])lutebasdqhr\x81\x85\x86\x87\x88\x89\x8f\x90\x91"]
OPCODES += [bytes([code]) for code in b"\x92\x93\x94RQNoK\x00\x01"]
OPCODES += [b"cbuiltins\neval\n", b"X\x01\x00\x00\x00a", b"ctorch._utils\n_rebuild_tensor_v2\n"]
OPCODES += [b"ccollections\nOrderedDict\n", b"c_codecs\nencode\n", b"ctorch\nFloatStorage\n"]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(OPCODES), max_size=60))
def test_any_sequence_of_opcodes_is_followed_or_refused(parts: list[bytes]) -> None:
    with contextlib.suppress(InertPickleError):
        value, names = unpickle(b"".join(parts) + b".")
        assert type(value).__module__ in {"builtins", "mhc_diag.checkpoints.inert"}
        assert not callable(value)
        assert all(name.isprintable() for name in names)


def test_static_reading_imports_neither_torch_nor_pandas(tmp_path: Path) -> None:
    for kind in ("pt", "safetensors", "npz"):
        (tmp_path / kind).write_bytes(original(kind))
    code = (
        "import sys\n"
        "from mhc_diag.checkpoints import inspect_file, open_checkpoint\n"
        "import mhc_diag.checkpoints.plain\n"
        "for path in sys.argv[1:]:\n"
        "    inspect_file(path)\n"
        "    with open_checkpoint(path) as checkpoint:\n"
        "        [checkpoint.read(name) for name in checkpoint.tensors]\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'safetensors', 'transformers'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)\n"
    )
    paths = [str(tmp_path / kind) for kind in ("pt", "safetensors", "npz")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
