"""What is no checkpoint, or not a whole one: it is named, with a way out."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoint_files import refused

from mhc_diag.checkpoints import detect, open_checkpoint, unpickle
from mhc_diag.errors import CheckpointError


def test_a_missing_file_and_an_address_say_so(tmp_path: Path) -> None:
    refused(tmp_path / "x.pt", "No such file")
    refused(tmp_path / ("x" * 5000), "File name too long")
    refused(tmp_path / "a\0b", "null")
    with pytest.raises(CheckpointError, match="addresses are not read"):
        open_checkpoint("hf://org/name")


def test_an_empty_file_a_pipe_and_a_locked_file_say_so(tmp_path: Path) -> None:
    (tmp_path / "x.pt").touch()
    refused(tmp_path / "x.pt", "the file is empty")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no regular file")
    refused(tmp_path / "x.pt" / "y", "Not a directory")


@pytest.mark.parametrize(
    ("content", "kind", "match"),
    [
        (b"hello\nworld, this is no checkpoint\n", "text", "a text file"),
        ("ä" * 2000, "text", "a text file"),
        (b"<!DOCTYPE html><html>sign in</html>", "html", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "lfs-pointer", "git-lfs"),
        (b'{"a": 1}', "json", "JSON file without a weight_map"),
        (b"{" * 100_000, "text", "a text file"),
        (b"GGUF\x03\0\0\0", "gguf", "GGUF"),
        (b"\x93NUMPY\x01\0", "npy", "numpy array without names"),
        (b"\x89HDF\r\n\x1a\n", "hdf5", "HDF5"),
        (b"\x1f\x8b\x08\0", "gzip", "gzip"),
        (pickle.dumps({"a": 1}), "pickle", "bare pickle"),
        (bytes(range(1, 200)), "unknown", "no format that we know"),
        (b"\0", "unknown", "no format that we know"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_what_is_no_checkpoint_is_named(
    tmp_path: Path, content: bytes | str, kind: str, match: str
) -> None:
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / "x.pt").write_bytes(data)
    assert detect(tmp_path / "x.pt") == kind
    refused(tmp_path / "x.pt", match)


def test_old_torch_files_say_how_to_convert_them(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    error = refused(tmp_path / "x.pt", "old format")
    assert "weights_only=True" in error.do


def test_a_torchscript_program_and_another_zip_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:  # as torch.jit.save writes it
        for name in ("data.pkl", "constants.pkl", "code/__torch__/m.py", "version"):
            archive.writestr(f"x/{name}", b"N.")
    refused(tmp_path / "x.pt", "TorchScript")
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "y.pt", "zip archive without")


def test_a_file_cut_short_says_so(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "x.pt", "as in a file cut short")


def test_a_file_that_shrinks_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "x.pt")
    with open_checkpoint(tmp_path / "x.pt") as checkpoint:
        os.truncate(tmp_path / "x.pt", 100)
        with pytest.raises(CheckpointError, match="ended at byte"):
            checkpoint.read("w")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"config": {"a": 1}}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "holds no tensors of a model")
    torch.save(torch.ones(2), tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "holds no tensors of a model")


def test_a_huge_setting_is_left_out_of_the_configuration(tmp_path: Path) -> None:
    value = {"model": {"w.a": torch.ones(1)}, "text": "x" * 10**6, "n": 4, "big": 10**5000}
    torch.save({**value, "list": [0] * 200_000}, tmp_path / "x.pt")
    with open_checkpoint(tmp_path / "x.pt") as checkpoint:
        assert checkpoint.config == {"n": 4}


def test_one_text_named_by_many_settings_does_not_multiply(tmp_path: Path) -> None:
    text = "x" * 90_000
    torch.save(
        {"model": {"w.a": torch.ones(1)}, "args": dict.fromkeys(range(1000), text)},
        tmp_path / "x.pt",
    )
    with open_checkpoint(tmp_path / "x.pt") as checkpoint:
        assert sum(map(len, checkpoint.config.values())) < 10_000_000


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"N.")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.pt").write_bytes(data)
    refused(tmp_path / "x.pt", "is encrypted")


def test_an_odd_escape_in_a_name_gives_no_warning() -> None:
    assert unpickle.unpickle(b"cfoo\\.\nBar\n.")[1] == ("foo\\..Bar",)
