"""numpy archives: stored and compressed, row- and column-major, never objects."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mhc_diag.checkpoints import detect, open_checkpoint
from mhc_diag.errors import CheckpointError


def member(header: str, data: bytes = bytes(8)) -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_array_is_read_bit_for_bit(tmp_path: Path, save: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"h.{kind}": (rng.normal(size=(3, 4, 5)) * 9).astype(kind)
        for kind in ("f8", "f4", "i8", "i4", "i2", "i1", "u8", "u1", "c8", "c16", "?")
    }
    arrays["columns"] = np.asfortranarray(rng.normal(size=(3, 4, 5)))
    arrays["scalar"], arrays["empty"] = np.array(2.5), np.ones((0, 3))
    save(tmp_path / "x.npz", **arrays, step=np.array(12))
    assert detect(tmp_path / "x.npz") == "npz"
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        assert checkpoint.format == "npz"
        assert checkpoint.step == 12
        assert list(checkpoint.tensors) == [*arrays, "step"]
        for name, array in arrays.items():
            value = checkpoint.read(name)
            assert value.dtype == array.dtype
            assert value.shape == array.shape
            assert value.tobytes() == array.tobytes()
            assert checkpoint.tensors[name].nbytes == array.nbytes


def test_half_precision_is_widened(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.array([1, 2], dtype=np.float16))
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        assert checkpoint.tensors["w"].dtype == "float16"
        assert checkpoint.read("w").dtype == np.float32


def test_arrays_of_objects_and_text_are_noted_and_never_unpickled(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        w=np.ones(2),
        objects=np.array([{}, None], dtype=object),
        text=np.array(["a"]),
        big=np.ones(2, dtype=">f4"),
    )
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.notes == ("not read, no numbers: objects.npy, text.npy, big.npy",)


def test_a_file_of_objects_alone_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", objects=np.array([{}, None], dtype=object))
    with pytest.raises(CheckpointError, match="no arrays of numbers"):
        open_checkpoint(tmp_path / "x.npz")


def test_reading_one_array_reads_its_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", large=np.zeros(10**6), small=np.ones(2))
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        before = checkpoint.bytes_read
        checkpoint.read("small")
        assert checkpoint.bytes_read == before + 16
        assert before < 200_000


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2**9,)}", "no valid header"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", "needs 12 bytes, 8 are"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "no valid header"),
        (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**58},)}}", "needs .* 8 are"),
        ("{'descr': '<f4', 'fortran_order': False}", "no valid header"),
        ("{'descr': '<zz', 'fortran_order': False, 'shape': (2,)}", "no arrays of numbers"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", "no arrays of"),
        (f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000},)}}", "valid shape"),
        ("{'a': " + "(" * 5000 + "}", "no valid header"),
        ("x" * 20_000, "no valid header"),
    ],
    ids=lambda value: value[:60],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: str, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(archive(tmp_path / "x.npz", w=member(header)))


def test_an_array_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        stream = io.BytesIO()
        np.save(stream, np.zeros(9 * 2**20))
        file.writestr("w.npy", stream.getvalue())
    with pytest.raises(CheckpointError, match="unpacks from .* bytes to"):
        open_checkpoint(tmp_path / "x.npz")


def test_an_array_packed_by_another_method_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("w.npy", member("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"))
    with pytest.raises(CheckpointError, match="packed by method 12"):
        open_checkpoint(tmp_path / "x.npz")


def test_compressed_bytes_that_end_early_are_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, size=20_000).astype(float)
    np.savez_compressed(tmp_path / "x.npz", w=values)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[len(data) // 2 : -200] = b"\xff" * len(data[len(data) // 2 : -200])
    (tmp_path / "x.npz").write_bytes(data)
    with (
        open_checkpoint(tmp_path / "x.npz") as checkpoint,
        pytest.raises(CheckpointError, match="compressed array"),
    ):
        checkpoint.read("w")
