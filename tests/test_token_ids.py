"""Token ids from files, text and chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mhc_diag import token_ids
from mhc_diag.errors import OptionError
from mhc_diag.loading import load_inputs

IDS = np.arange(6).reshape(2, 3)


def write_ids(folder: Path, kind: str, content: Any = IDS) -> Path:
    path = folder / f"ids.{kind}"
    if kind == "npy":
        np.save(path, content)
    elif kind == "pt":
        torch.save(torch.as_tensor(np.asarray(content)), path)
    else:
        path.write_text(json.dumps(np.asarray(content).tolist()), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["npy", "pt", "json"])
def test_token_ids_of_every_kind_of_file_are_the_same_inputs(kind: str, tmp_path: Path) -> None:
    inputs = load_inputs(str(write_ids(tmp_path, kind)))
    assert inputs.args[0].dtype == torch.int64
    assert inputs.args[0].tolist() == IDS.tolist()
    assert inputs.is_data
    reference = load_inputs(str(write_ids(tmp_path, "npy", IDS.astype(np.uint16))))
    assert inputs.description == reference.description
    assert inputs.description.startswith("sha256:")


def test_other_ids_have_another_description(tmp_path: Path) -> None:
    first = load_inputs(str(write_ids(tmp_path, "npy", IDS))).description
    assert load_inputs(str(write_ids(tmp_path, "npy", IDS + 1))).description != first
    assert load_inputs(str(write_ids(tmp_path, "npy", IDS.reshape(3, 2)))).description != first


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=9))
def test_ids_survive_the_way_whatever_their_size(ids: list[int]) -> None:
    assert token_ids.checked([ids], "ids").tolist() == [ids]


def test_a_mapping_with_input_ids_counts_as_them(tmp_path: Path) -> None:
    path = tmp_path / "batch.json"
    path.write_text('{"input_ids": [[5, 6]], "attention_mask": [[1, 1]]}', encoding="utf-8")
    assert load_inputs(str(path)).args[0].tolist() == [[5, 6]]
    path.write_text('{"tokens": [[5, 6]]}', encoding="utf-8")
    with pytest.raises(OptionError, match="a mapping without 'input_ids'"):
        load_inputs(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.arange(4), r"its shape is \[4\]\. Give whole numbers of shape \[B, S\]"),
        (np.zeros((1, 2, 3), int), r"its shape is \[1, 2, 3\]"),
        (np.zeros((0, 4), int), r"its shape is \[0, 4\]"),
        (np.ones((2, 2)), "it holds float64 values, not whole numbers"),
        (np.ones((2, 2), bool), "it holds bool values"),
        (np.array([[0, -1]]), "id -1 is outside the vocabulary"),
        (np.array([[0, 9]]), r"id 9 is outside the vocabulary\. The model knows ids 0 to 8"),
        (np.array([[0, 2**63]], dtype=np.uint64), f"id {2**63} is outside the vocabulary"),
    ],
)
def test_what_is_no_token_ids_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = write_ids(tmp_path, "npy", content)
    with pytest.raises(OptionError, match=message):
        load_inputs(str(path), vocab_size=9)


def test_sequences_of_different_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ragged.json"
    path.write_text("[[1, 2], [3]]", encoding="utf-8")
    with pytest.raises(OptionError, match="the sequences differ in length"):
        load_inputs(str(path))


@pytest.mark.parametrize("kind", ["npy", "pt", "json"])
def test_a_damaged_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"ids.{kind}"
    path.write_bytes(b"\x80nonsense")
    with pytest.raises(OptionError, match=rf"it cannot be read as \.{kind}"):
        load_inputs(str(path))


def test_pickled_code_in_inputs_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    torch.save(Payload(), tmp_path / "evil.pt")
    np.save(tmp_path / "evil.npy", np.array([Payload()], dtype=object))
    for name in ("evil.pt", "evil.npy"):
        with pytest.raises(OptionError, match="it cannot be read as"):
            load_inputs(str(tmp_path / name))
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["npy", "pt", "json"])
def test_a_missing_file_is_named(kind: str) -> None:
    with pytest.raises(OptionError, match=rf"'absent\.{kind}': there is no such file"):
        load_inputs(f"absent.{kind}")


def test_random_ids_follow_the_seed_and_say_that_they_are_no_data() -> None:
    first = load_inputs("random:3x5", seed=1, vocab_size=11)
    ids = first.args[0]
    assert tuple(ids.shape) == (3, 5)
    assert 0 <= int(ids.min()) <= int(ids.max()) < 11
    assert not first.is_data
    assert "not data" in first.description
    assert torch.equal(load_inputs("random:3x5", seed=1, vocab_size=11).args[0], ids)
    other = load_inputs("random:3x5", seed=2, vocab_size=11)
    assert not torch.equal(other.args[0], ids)
    assert other.description != first.description


@pytest.mark.parametrize(
    "spec", ["random:", "random:3", "random:0x5", "random:-1x5", "random:3x5x2"]
)
def test_random_ids_need_two_sizes(spec: str) -> None:
    with pytest.raises(OptionError, match=r"that is no shape\. Write random:BxS"):
        load_inputs(spec, vocab_size=11)


def test_random_ids_need_a_vocabulary() -> None:
    with pytest.raises(OptionError, match="does not say how many token ids it knows"):
        load_inputs("random:3x5")


def test_unknown_inputs_are_explained() -> None:
    with pytest.raises(OptionError, match=r"none of the inputs that can be read\. Give \.npy"):
        load_inputs("words.csv")


def test_text_needs_a_tokenizer(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("hello", encoding="utf-8")
    with pytest.raises(OptionError, match="text needs a tokenizer, and a checkpoint file has none"):
        load_inputs(str(text))
