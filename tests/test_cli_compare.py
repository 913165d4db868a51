"""``mhc-diag compare``."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run
from factories import make_trace
from schemas import assert_valid


def test_two_sources_stand_side_by_side(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("compare", checkpoints["hc"], checkpoints["mhc"])
    assert (ended.code, ended.err) == (0, "")
    head = next(line for line in ended.out.splitlines() if line.startswith("worst over sites"))
    assert head.split()[-2:] == ["hc", "mhc"]


def test_labels_come_from_the_command_line_or_from_the_path(
    run: Run, checkpoints: dict[str, Path]
) -> None:
    words = [f"before={checkpoints['hc']}", checkpoints["mhc"]]
    document = run("compare", *words, "--json").json
    assert_valid(document, "comparison")
    assert document["labels"] == ["before", "mhc"]
    assert document["comparable"] is True


def test_one_source_that_cannot_be_measured_is_exit_2_and_the_others_are_shown(
    run: Run, checkpoints: dict[str, Path]
) -> None:
    words = [f"A={checkpoints['hc']}", "B=absent.pt", f"C={checkpoints['mhc']}"]
    ended = run("compare", *words)
    assert ended.code == 2
    assert "composite.forward.amax.mean" in ended.out
    assert ended.err.startswith("mhc-diag: ")
    assert ended.err.count("No such file") == 1
    assert "No such file" not in ended.out
    assert "B: ∅ NOT MEASURED" in ended.out
    in_json = run("compare", *words, "--json")
    assert in_json.err == ""
    document = in_json.json
    assert_valid(document, "comparison")
    assert document["labels"] == ["A", "C"]
    assert [failure["label"] for failure in document["failed"]] == ["B"]


def test_a_single_source_that_is_left_is_shown(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("compare", checkpoints["hc"], "absent.pt", "--json")
    assert ended.code == 2
    assert ended.json["labels"] == ["hc"]


def test_when_nothing_can_be_measured_the_first_error_is_shown(run: Run) -> None:
    ended = run("compare", "absent.pt", "gone.pt", "--json")
    assert ended.code == 2
    assert_valid(ended.json, "error")
    assert "absent.pt" in ended.json["asked"]


def test_an_incomplete_source_is_exit_2_and_shown(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "x.trace.safetensors"
    make_trace(unmeasured=[0]).save(str(path))
    ended = run("compare", checkpoints["hc"], path, "--json")
    assert ended.code == 2
    verdicts = [entry["analysis"]["verdict"] for entry in ended.json["analyses"]]
    assert verdicts[1] == "not_measured"


@pytest.mark.parametrize(
    "words",
    [["hc.pt"], ["a=x.pt", "a=y.pt"], ["a=", "b.pt"], []],
    ids=["one", "same", "empty", "none"],
)
def test_a_command_line_that_says_too_little_is_exit_2(words: list[str], run: Run) -> None:
    ended = run("compare", *words)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1


def test_different_probes_are_named(run: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    make_trace().save(str(path))
    document = run("compare", checkpoints["hc"], path, "--json").json
    assert document["comparable"] is False
    assert any("static" in sentence for sentence in document["differences"])


def test_a_report_of_two_is_written(run: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    words = [f"HC={checkpoints['hc']}", checkpoints["mhc"], "-o", tmp_path / "two.html"]
    assert run("compare", *words).code == 0
    assert "HC" in (tmp_path / "two.html").read_text()


def test_no_source_is_replaced(run: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    make_trace().save(str(path))
    before = path.read_bytes()
    ended = run("compare", checkpoints["hc"], f"B={path}", "-o", path, "--force")
    assert ended.code == 2
    assert path.read_bytes() == before
