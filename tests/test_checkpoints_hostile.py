"""Files that are damaged, lie or carry a payload: a reason, nothing run, little read."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import STORAGE, one, pickled_tensor, refused, text, torch_file

from mhc_diag.checkpoints import inert, open_checkpoint, tree, unpickle
from mhc_diag.checkpoints.plain import load_plain
from mhc_diag.errors import CheckpointError


def test_the_hand_made_file_is_a_good_one(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "x.pt", one(b"w", pickled_tensor()))
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("w"), [1, 2])


class Payload:
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def payloads(mark: Path) -> dict[str, Payload]:
    """Objects that touch ``mark`` when they are unpickled."""
    return {
        "evil": Payload(os.system, f"touch {mark}"),
        "worse": Payload(eval, f"__import__('pathlib').Path({str(mark)!r}).touch()"),
        "worst": Payload(getattr, Payload(__import__, "os"), "system"),
    }


CALLED = (
    f"{os.system.__module__}.system",
    "builtins.eval",
    "builtins.getattr",
    "builtins.__import__",
)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_payload_is_named_and_never_runs(tmp_path: Path, protocol: int) -> None:
    path, mark = tmp_path / "x.pt", tmp_path / "ran"
    torch.save({"model": {"w.a": torch.ones(2)}, **payloads(mark)}, path, pickle_protocol=protocol)
    with open_checkpoint(path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("w.a"), [1, 1])
        assert checkpoint.foreign_globals == CALLED
    assert load_plain(path)["worst"] == "<builtins.getattr, not executed>"
    assert not mark.exists()
    with path.open("rb") as file:
        torch.load(file, weights_only=False)
    assert mark.exists()  # so the payload was a real one


@pytest.mark.parametrize("protocol", [0, 1])
def test_a_payload_of_an_old_protocol_never_runs(tmp_path: Path, protocol: int) -> None:
    value, names = unpickle.unpickle(pickle.dumps(payloads(tmp_path / "ran"), protocol))
    assert names == CALLED
    assert {type(part) for part in value.values()} == {inert.Opaque}
    assert not (tmp_path / "ran").exists()


def test_attributes_with_magic_names_stay_entries_of_a_record() -> None:
    body = b"\x80\x02c__main__\nTricky\n)\x81}X\x09\x00\x00\x00__class__K\x01sb."
    value, names = unpickle.unpickle(body)
    assert type(value) is inert.Opaque
    assert value.state == {"__class__": 1}
    assert names == ("__main__.Tricky",)


def test_names_of_classes_cannot_carry_terminal_escapes() -> None:
    _, names = unpickle.unpickle(b"c\x1b[31mred\nx\n.")
    assert names == ("?[31mred.x",)


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        ({"offset": 1}, "reaches to byte 12 of a storage of 8"),
        ({"shape": (3,)}, "reaches to byte 12 of a storage of 8"),
        ({"stride": (2,)}, "reaches to byte 12 of a storage of 8"),
        ({"count": 3}, "declares 12 bytes and has 8"),
        ({"count": 2**62}, "declares .* bytes and has 8"),
        ({"shape": (2**40,)}, "reaches to byte"),
        ({"shape": (2**40,), "stride": (0,)}, "expands a storage of 8 bytes"),
        ({"shape": (2**62,) * 60, "stride": (0,) * 60}, "expands a storage of 8 bytes"),
        ({"shape": (2**62, 2**62), "stride": (2**62, 2**62)}, "reaches to byte"),
        ({"shape": (1,) * 65, "stride": (1,) * 65}, "no valid shape or stride"),
        ({"shape": (-1,)}, "no valid shape or stride"),
        ({"stride": (-1,)}, "no valid shape or stride"),
        ({"offset": -1}, "unknown way"),
        ({"shape": (2, 1)}, "unknown way"),
        ({"shape": (2.0,)}, "no valid shape or stride"),
        ({"shape": (2**70,)}, "no valid shape or stride"),
        ({"pid": STORAGE.replace(b"storagec", b"storagEc")}, "unknown way"),
        ({"pid": STORAGE.replace(b"FloatStorage", b"FloatStorag3")}, "unknown way"),
        ({"pid": STORAGE.replace(b"0X", b"7X", 1)}, "storage '7' of a tensor is missing"),
    ],
    ids=str,
)
def test_a_tensor_that_lies_about_its_bytes_is_refused(
    tmp_path: Path, tensor: dict[str, Any], match: str
) -> None:
    body = one(b"w", pickled_tensor(**tensor))
    refused(torch_file(tmp_path / "x.pt", body), match)


def test_an_empty_tensor_of_gigantic_shape_is_refused_when_read(tmp_path: Path) -> None:
    body = one(b"w", pickled_tensor(shape=(0, 2**62, 2**62), stride=(1, 1, 1)))
    path = torch_file(tmp_path / "x.pt", body)
    with (
        open_checkpoint(path) as checkpoint,
        pytest.raises(CheckpointError, match="cannot be made"),
    ):
        checkpoint.read("w")


def test_a_deflated_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    body = one(b"w", pickled_tensor(shape=(2**24,), count=2**24))
    path = torch_file(
        tmp_path / "x.pt", body, storage=bytes(2**26), compression=zipfile.ZIP_DEFLATED
    )
    refused(path, "is compressed")


def test_a_record_whose_two_sizes_differ_is_refused(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "x.pt", one(b"w", pickled_tensor(count=4, shape=(4,))))
    data = path.read_bytes()
    place = data.rindex(b"x/data/0") - 46 + 24
    path.write_bytes(data[:place] + struct.pack("<I", 16) + data[place + 4 :])
    refused(path, "is compressed|two different sizes")


def test_two_records_of_one_name_are_refused(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "x.pt", one(b"w", pickled_tensor()))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/data/0", bytes(8))
    refused(path, "two records named 'x/data/0'")


def test_two_pickles_in_one_archive_are_refused(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "x.pt", one(b"w", pickled_tensor()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y/data.pkl", b"N.")
    refused(path, r"2 records named data\.pkl")


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    body = one(b"w", pickled_tensor())
    refused(torch_file(tmp_path / "x.pt", body, byteorder=b"big"), "big-endian")


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "damaged"),
        (b"0", "damaged"),
        (b"t", "damaged"),
        (b"h\x07", "damaged"),
        (b"r\xff\xff\xff\xff", "damaged"),
        (b"Ns", "damaged"),
        (b"NNNs", "no dict"),
        (b"}(Nu", "no dict"),
        (b"NNa", "no list"),
        (b"}]Ns", "no plain value"),
        (b"\x85", "stack too short"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", "damaged"),
        (b"\x8b\xff\xff\xff\x7f", "damaged"),
        (b"T\xff\xff\xff\x7f", "damaged"),
        (b"I" + b"9" * 100_000 + b"\n", "damaged"),
        (b"NPx\n", "PERSID"),
        (b"NQ", "storage is described"),
        (b"\x97", "NEXT_BUFFER"),
        (b"NN\x93", "named by something"),
        (b"\xff", "damaged"),
    ],
    ids=repr,
)
def test_a_broken_pickle_is_refused_with_its_reason(
    tmp_path: Path, body: bytes, match: str
) -> None:
    refused(torch_file(tmp_path / "x.pt", body), rf"data\.pkl cannot be followed: .*{match}")


@pytest.mark.parametrize(
    ("opening", "closing"), [(b"]", b"a"), (b"", b"\x85")], ids=["list", "tuple"]
)
def test_deep_nesting_is_refused(tmp_path: Path, opening: bytes, closing: bytes) -> None:
    depth = 50_000
    tensor = pickled_tensor()
    body = b"}X\x01\x00\x00\x00w" + opening * depth + tensor + closing * depth + b"s"
    path = torch_file(tmp_path / "x.pt", body)
    refused(path, "nested deeper than 100 levels")
    with pytest.raises(CheckpointError, match="nested deeper than 100 levels"):
        load_plain(path)


def test_a_deeply_nested_key_is_refused_without_being_hashed(tmp_path: Path) -> None:
    body = b"}N" + b"\x85" * 100_000 + b"Ns"
    refused(torch_file(tmp_path / "x.pt", body), "no plain value")


def test_a_tree_that_multiplies_by_sharing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_NODES", 20_000)
    body = b"}" + b"X\x01\x00\x00\x00w" + pickled_tensor() + b"sq\x00"
    for level in range(30):
        entries = b"".join(
            b"X\x01\x00\x00\x00" + key + b"h" + bytes([level]) for key in (b"a", b"b")
        )
        body += b"0}(" + entries + b"uq" + bytes([level + 1])
    refused(torch_file(tmp_path / "x.pt", body), "more than 20000 values")


def test_a_tree_that_contains_itself_is_read(tmp_path: Path) -> None:
    body = b"}q\x00X\x01\x00\x00\x00w" + pickled_tensor() + b"sX\x02\x00\x00\x00meh\x00s"
    path = torch_file(tmp_path / "x.pt", body)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
    loaded = load_plain(path)
    assert loaded["me"] is loaded


def test_a_pickle_of_endless_steps_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 1000)
    with pytest.raises(inert.InertPickleError, match="more than 1000 steps"):
        unpickle.unpickle(b"N0" * 1000 + b"N.")


def test_keys_made_to_collide_are_refused() -> None:
    with pytest.raises(inert.InertPickleError, match="no plain value"):
        unpickle.unpickle(pickle.dumps({2**61 - 1: 0}))
    with pytest.raises(inert.InertPickleError, match="keys are tuples"):
        unpickle.unpickle(pickle.dumps({(number, 0): 0 for number in range(10_001)}))


def test_every_opcode_of_the_language_is_known_or_refused() -> None:
    acted = unpickle._PUSH | set(unpickle._CONSTANTS) | set(unpickle._ACTIONS)
    left = {opcode.name for opcode in pickletools.opcodes} - acted
    assert left == {"PROTO", "FRAME", "STOP", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER"}
    assert acted <= {opcode.name for opcode in pickletools.opcodes}


def test_a_container_chain_without_end_stops(tmp_path: Path) -> None:
    body = one(b"w.a", pickled_tensor())
    for _ in range(20):
        body = one(b"model", body)
    with open_checkpoint(torch_file(tmp_path / "x.pt", body)) as checkpoint:
        assert next(iter(checkpoint.tensors)).endswith("w.a")


def test_calls_that_copy_the_same_text_again_and_again_are_cut() -> None:
    start = text(b"x" * 2**20) + b"q\x00" + text(b"latin1") + b"q\x01c_codecs\nencode\nq\x02"
    with pytest.raises(inert.InertPickleError, match="copy more than"):
        unpickle.unpickle(start + b"h\x02h\x00h\x01\x86R" * 300 + b".")


def test_attributes_that_are_copied_again_and_again_are_cut() -> None:
    entries = b"".join(text(b"%d" % number) + b"N" for number in range(10_000))
    start = b"}(" + entries + b"uq\x00cfoo\nBar\nq\x01"
    with pytest.raises(inert.InertPickleError, match="copy more than"):
        unpickle.unpickle(start + b"h\x01)R" + b"h\x00b" * 300 + b".")


def test_a_path_of_endless_parts_is_not_joined() -> None:
    start = text(b"x" * 2**20) + b"q\x00cpathlib\nPosixPath\n("
    value, _ = unpickle.unpickle(start + b"h\x00" * 1000 + b"tR.")
    assert isinstance(value, inert.Opaque)


def test_names_of_endless_length_are_refused(tmp_path: Path) -> None:
    long = b"x" * 600
    refused(torch_file(tmp_path / "x.pt", text(long) + text(long) + b"\x93"), "a class has a name")
    body = one(long, one(long, pickled_tensor()))
    refused(torch_file(tmp_path / "x.pt", body), "a tensor's name would have more than 1000")


def test_kinds_of_tensors_without_a_stand_in_are_noted(tmp_path: Path) -> None:
    sparse = torch.eye(2).to_sparse()
    torch.save({"w": torch.ones(1), "s": sparse}, tmp_path / "x.pt")
    with open_checkpoint(tmp_path / "x.pt") as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.notes == (
            "tensors of these kinds are not read: torch._utils._rebuild_sparse_tensor",
        )
