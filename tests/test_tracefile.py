"""Traces on disk: the same back, readable with safetensors alone, never half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models import GPT
from safetensors import safe_open
from safetensors.numpy import save_file

import mhc_diag as md
from mhc_diag.errors import CheckpointError, OutputError, ShapeError
from mhc_diag.tracefile import load_trace, save_trace

IDS = torch.arange(32).reshape(2, 16)


@pytest.fixture
def trace() -> md.Trace:
    model = GPT("mhc")
    with torch.no_grad(), md.capture(model) as capture:
        model(IDS)
    return capture.trace()


def test_a_trace_comes_back_as_it_was(trace: md.Trace, tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    trace.save(path)
    back = load_trace(path)
    for field in ("M", "H_pre", "H_post", "gram", "logits"):
        np.testing.assert_array_equal(
            getattr(back.chains[0], field), getattr(trace.chains[0], field)
        )
    assert back.sites == trace.sites
    for part in ("model", "orientation", "probe", "coverage", "identity"):
        assert getattr(back, part) == getattr(trace, part)
    assert back.source.format == "trace"
    assert back.chains[0].measured == trace.chains[0].measured


def test_safetensors_alone_reads_the_documented_names(trace: md.Trace, tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    trace.save(path)
    with safe_open(str(path), framework="numpy") as file:
        assert set(file.keys()) == {
            f"main/{name}" for name in ("M", "H_pre", "H_post", "G", "logits")
        }
        assert file.get_tensor("main/G").shape == (6, 32, 5, 5)
        assert json.loads(file.metadata()["mhc_diag"])["schema"] == "mhc-diag/trace/1"


def test_an_existing_trace_stays_unless_forced(trace: md.Trace, tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--force"):
        trace.save(path)
    assert path.read_bytes() == b"mine"
    trace.save(path, force=True)
    assert load_trace(path).sites == trace.sites
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error_and_leaves_nothing(trace: md.Trace, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Choose a folder that exists"):
        save_trace(trace, tmp_path / "nowhere" / "x.trace.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_unknown_tensors_are_ignored(trace: md.Trace, tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    trace.save(path)
    with safe_open(str(path), framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        metadata = file.metadata()
    save_file(tensors | {"main/later": np.zeros(2)}, path, metadata=metadata)
    assert load_trace(path).sites == trace.sites


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        (None, "no key 'mhc_diag'"),
        ({"mhc_diag": "{"}, "header is damaged"),
        ({"mhc_diag": '{"schema": "mhc-diag/trace/9"}'}, "schema is 'mhc-diag/trace/9'"),
        ({"mhc_diag": '{"schema": "mhc-diag/trace/1"}'}, "header is damaged"),
        ({"mhc_diag": "[]"}, "header is damaged"),
    ],
)
def test_a_damaged_trace_is_a_clear_error(
    tmp_path: Path, metadata: dict[str, str] | None, match: str
) -> None:
    path = tmp_path / "x.trace.safetensors"
    save_file({"main/M": np.zeros((1, 1, 2, 2))}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=match):
        load_trace(path)


def test_a_truncated_or_missing_trace_is_a_clear_error(trace: md.Trace, tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    trace.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="as a trace"):
        load_trace(path)
    with pytest.raises(CheckpointError, match="as a trace"):
        load_trace(tmp_path / "missing.trace.safetensors")


def test_a_chain_refuses_arrays_that_do_not_fit_its_matrices() -> None:
    site = md.Site(index=0, chain="main", name="a")
    with pytest.raises(ShapeError, match=r"M has shape \[1, 2, 3, 4\]"):
        md.Chain(name="main", sites=(site,), M=np.zeros((1, 2, 3, 4)), measured=(True,))
    with pytest.raises(ShapeError, match=r"H_pre has shape \[1, 2, 4\]"):
        md.Chain(
            name="main",
            sites=(site,),
            M=np.zeros((1, 2, 3, 3)),
            measured=(True,),
            H_pre=np.zeros((1, 2, 4)),
        )
    with pytest.raises(ShapeError, match="'measured' has 2 entries"):
        md.Chain(name="main", sites=(site,), M=np.zeros((1, 2, 3, 3)), measured=(True, False))


def test_identities_name_each_part_that_differs(trace: md.Trace) -> None:
    other = md.load_trace  # the functions are public names
    assert callable(other)
    from dataclasses import replace

    changed = replace(trace.identity, tokens=5, inputs="other")
    assert trace.identity.differences(trace.identity) == ()
    assert [one.split(":")[0] for one in trace.identity.differences(changed)] == [
        "inputs",
        "tokens",
    ]
