"""Damaged headers of traces: a CheckpointError that says what is damaged, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_trace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file

import mhc_diag as md
from mhc_diag.analysis import analysis_of
from mhc_diag.errors import CheckpointError
from mhc_diag.trace import Setting
from mhc_diag.tracefile import load_trace

Key = str | int


def whole(folder: Path) -> Path:
    path = folder / "whole.trace.safetensors"
    setting = {"sinkhorn_iters": Setting(value=20, source="option")}
    make_trace(L=3, T=2, n=2, settings=setting, auxiliary_sites=2, unmeasured=[1]).save(str(path))
    return path


def header_of(path: Path) -> dict[str, Any]:
    with safe_open(str(path), framework="numpy") as file:
        return json.loads(file.metadata()["mhc_diag"])


def rewritten(path: Path, header: Any, **tensors: Any) -> Path:
    """The same trace under another header, with other tensors beside its own."""
    with safe_open(str(path), framework="numpy") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(held | tensors, path, metadata={"mhc_diag": text})
    return path


def places(value: Any) -> Iterator[tuple[Key, ...]]:
    """The way to every part of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield (key,)
        if isinstance(part, dict | list):
            yield from ((key, *deeper) for deeper in places(part))


def put(header: Any, way: tuple[Key, ...], value: Any) -> Any:
    *before, last = way
    for key in before:
        header = header[key]
    header[last] = value


@pytest.mark.parametrize(
    ("way", "value", "words"),
    [
        (("model", "settings"), [], r"model\.settings is \[\]"),
        (("coverage", "expected"), "4", r"coverage\.expected is '4'"),
        (("coverage", "expected"), True, r"coverage\.expected is True"),
        (("coverage", "measured"), 99, "99 of 5 sites"),
        (("coverage", "skipped"), {}, r"coverage\.skipped is {}"),
        (("model", "family"), "nonsense", r"model\.family is 'nonsense'"),
        (("model", "family"), [], r"model\.family is \[\]"),
        (("model", "settings", "sinkhorn_iters", "source"), "guess", "source is 'guess'"),
        (("model", "precision", "applied"), "float7", "applied precision 'float7'"),
        (("model", "width"), 6.5, r"model\.width is 6\.5"),
        (("probe", "kind"), "nonsense", r"probe\.kind is 'nonsense'"),
        (("probe", "tokens"), -1, "a count below 0"),
        (("probe", "seed"), float("nan"), r"probe\.seed is nan"),
        (("orientation", "stored"), "H", r"orientation\.stored is 'H'"),
        (("orientation", "error"), 10**400, r"orientation\.error is 1000"),
        (("orientation", "verified"), "yes", r"orientation\.verified is 'yes'"),
        (("source",), [], "TypeError"),
        (("source", "extra"), 1, r"fields \['extra'\]"),
        (("chains",), [], r"chains \[\]"),
        (("chains", 1, "name"), "main", r"chain 'main' with 2 sites: M has shape"),
        (("chains", 0, "auxiliary"), "no", "auxiliary is 'no'"),
        (("chains", 0, "measured", 0), 1, r"measured\[0\] is 1"),
        (("chains", 0, "measured"), [], "'measured' has 0 entries"),
        (("chains", 0, "sites", 1, "index"), 77, "site 1 has the index 77"),
        (("chains", 0, "sites", 1, "chain"), "other", "names another chain"),
        (("chains", 0, "sites", 1, "sublayer"), "nose", r"sublayer is 'nose'"),
        (("chains", 0, "sites", 1, "name"), "\ud800", "surrogates"),
    ],
)
def test_each_damage_is_named(tmp_path: Path, way: tuple[Key, ...], value: Any, words: str) -> None:
    path = whole(tmp_path)
    header = header_of(path)
    put(header, way, value)
    with pytest.raises(CheckpointError, match=rf"its header is damaged \(.*{words}"):
        load_trace(rewritten(path, header))


def test_a_trace_that_is_whole_is_still_read(tmp_path: Path) -> None:
    path = whole(tmp_path)
    read = load_trace(rewritten(path, header_of(path)))
    assert read.model.settings["sinkhorn_iters"] == Setting(value=20, source="option")
    assert [site.index for site in read.sites] == [0, 1, 2, 3, 4]
    assert analysis_of(read, allow_partial=True).coverage.skipped[0].why


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "3", "null", '"' + "x" * 10_000 + '"'])
def test_what_is_no_header_is_damaged(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match="header is damaged") as caught:
        load_trace(rewritten(whole(tmp_path), text))
    assert len(str(caught.value)) < 400


def test_tensors_of_another_type_are_damage_and_unknown_ones_are_not_even_read(
    tmp_path: Path,
) -> None:
    path = whole(tmp_path)
    header, content = header_of(path), path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    for name, is_ours in (("main/later", False), ("main/H_pre", True)):
        table = entries | {
            name: {"dtype": "BF16", "shape": [2], "data_offsets": [len(content) - 8 - length] * 2}
        }
        table[name]["data_offsets"][1] += 4
        text = json.dumps(table).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :] + bytes(4))
        if is_ours:
            with pytest.raises(CheckpointError, match="as a trace"):
                load_trace(path)
        else:
            assert load_trace(path).sites[0].name == header["chains"][0]["sites"][0]["name"]
    rewrite = tmp_path / "bool.trace.safetensors"
    tensors = {"main/M": np.ones((3, 2, 2, 2), dtype=bool), "mtp0/M": np.ones((2, 2, 2, 2))}
    rewrite.write_bytes(save(tensors, metadata={"mhc_diag": json.dumps(header)}))
    with pytest.raises(CheckpointError, match="main/M is of type bool"):
        load_trace(rewrite)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = whole(tmp_path_factory.mktemp("traces"))
    return path, header_of(path)


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "tokens", "main", "\ud800", 10**400, -1, 0, [], {}, [[]], {"": None}]),
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_nothing_but_a_checkpoint_error_escapes(
    original: tuple[Path, dict[str, Any]], data: st.DataObject
) -> None:
    path, intact = original
    header = json.loads(json.dumps(intact))
    for _ in range(data.draw(st.integers(1, 2))):
        way = data.draw(st.sampled_from(sorted(places(header), key=str)))
        *before, last = way
        parent = header
        for key in before:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[last] = data.draw(leaves)
        else:
            del parent[last]
        if not header:
            break
    try:
        trace = load_trace(rewritten(path, header))
    except CheckpointError:
        return
    assert isinstance(trace, md.Trace)
    analysis_of(trace, ids=[], allow_partial=True).to_json()  # what is read can be measured
