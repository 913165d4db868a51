"""``mhc-diag gate``: the exit code is the answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from factories import make_chain, make_trace, trace_of
from run_cases import a_run
from schemas import assert_valid

from mhc_diag.analysis import analysis_of
from mhc_diag.limits import beside_of, gate
from mhc_diag_reports.gated import gate_rows
from mhc_diag_reports.texts import MISSING


@pytest.fixture
def calm(tmp_path: Path) -> Path:
    """A projected model whose gains are 1."""
    path = tmp_path / "calm.trace.safetensors"
    make_trace(family="mhc").save(str(path))
    return path


@pytest.fixture
def held_down(tmp_path: Path) -> Path:
    """One site with row sums 1 and entries of 10: amax 1, norm 20."""
    path = tmp_path / "held.trace.safetensors"
    M = np.array([[10.0, -9.0], [-9.0, 10.0]])[None, None]
    trace_of([make_chain(M)], family="hc").save(str(path))
    return path


@pytest.mark.parametrize(("limit", "code"), [("1.1", 0), ("0.9", 1)])
def test_the_exit_code_follows_the_limit(limit: str, code: int, run: Run, calm: Path) -> None:
    ended = run("gate", calm, "--max-gain", limit)
    assert ended.code == code
    assert ("PASSED" if code == 0 else "FAILED") in ended.out
    assert ended.err == ""


def test_the_document_is_a_gate(run: Run, calm: Path) -> None:
    ended = run("gate", calm, "--max-gain", "0.9", "--json")
    assert ended.code == 1
    assert_valid(ended.json, "gate")
    assert ended.json["status"] == "failed"
    assert ended.json["exit"] == 1
    assert {result["passed"] for result in ended.json["results"]} == {False}


def test_without_a_limit_the_default_holds(run: Run, calm: Path) -> None:
    document = run("gate", calm, "--json").json
    assert document["limits"] == {"composite.*.amax.mean": {"max": 2.0}}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--max", "single.forward.norm.max=1.5"], 0),
        (["--max", "single.forward.norm.max=0.5"], 1),
        (["--min", "composite.forward.amin.min=0.5"], 0),
        (["--min", "composite.forward.amin.min=1.5"], 1),
        (["--max", "single.*.norm.max=1.5", "--min", "composite.forward.amin.min=1.5"], 1),
    ],
)
def test_limits_on_single_ids(words: list[str], code: int, run: Run, calm: Path) -> None:
    assert run("gate", calm, *words).code == code


def test_what_cancellation_holds_down_is_a_warning_and_strict_a_failure(
    run: Run, held_down: Path
) -> None:
    passed = run("gate", held_down, "--max-gain", "2", "--json")
    assert passed.code == 0
    assert "MHC109" in {finding["rule"] for finding in passed.json["findings"]}
    assert run("gate", held_down, "--max-gain", "2", "--strict").code == 1


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_breaks_every_limit(broken: float, run: Run, tmp_path: Path) -> None:
    M = np.tile(np.eye(3), (2, 1, 1, 1))
    M[1, 0, 0, 0] = broken
    path = tmp_path / "x.trace.safetensors"
    trace_of([make_chain(M)], family="mhc").save(str(path))
    assert run("gate", path, "--max-gain", "1e300").code == 1


def test_a_reference_point_is_inconclusive_unless_it_was_asked_for(
    run: Run, checkpoints: dict[str, Path]
) -> None:
    words = ["gate", checkpoints["hc"], "--max-gain", "1e6"]
    ended = run(*words, "--json")
    assert (ended.code, ended.json["status"]) == (2, "inconclusive")
    assert run(*words, "--probe", "static").code == 0
    assert run(*words, "--probe", "isotropic", "--tokens", "3").code == 0


def test_an_incomplete_measurement_is_exit_2_even_within_the_limit(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "x.trace.safetensors"
    make_trace(family="mhc", unmeasured=[1]).save(str(path))
    ended = run("gate", path, "--max-gain", "1000", "--json")
    assert (ended.code, ended.json["status"]) == (2, "not_measured")
    assert_valid(ended.json, "gate")
    assert run("gate", path, "--max-gain", "1000", "--allow-partial").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--max-gain", "nan"],
        ["--max-gain", "-1"],
        ["--max-gain", "0"],
        ["--max-gain", "inf"],
        ["--max-gain", "much"],
        ["--max", "composite.forward.amax=2"],
        ["--max", "composite.forward.amax.mean"],
        ["--min", "composite.forward.amin.min=nan"],
    ],
)
def test_a_limit_that_could_not_break_is_exit_2(words: list[str], run: Run, calm: Path) -> None:
    ended = run("gate", calm, *words)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1


def test_nothing_found_is_never_a_pass(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("gate", checkpoints["residual"], "--max-gain", "1000", "--json")
    assert ended.code == 2
    assert_valid(ended.json, "error")


@pytest.mark.parametrize(("limit", "word"), [("1.1", "PASSED"), ("0.9", "FAILED")])
def test_the_files_of_a_gate_hold_its_answer(
    limit: str, word: str, run: Run, calm: Path, tmp_path: Path
) -> None:
    paths = {suffix: tmp_path / f"a.{suffix}" for suffix in ("json", "md", "html", "svg")}
    outputs = [word for path in paths.values() for word in ("-o", path)]
    printed = run("gate", calm, "--max-gain", limit, *outputs, "--json").json
    assert json.loads(paths["json"].read_text()) == printed
    assert paths["md"].read_text().splitlines()[0][5:].startswith(f"{word}: ")
    page = paths["html"].read_text()
    assert f"GATE {word}" in page
    assert page.index(f"GATE {word}") < page.index('aria-label="Verdicts"')
    assert f"at most {limit}" in page
    assert word in paths["svg"].read_text()


def test_an_inconclusive_gate_says_so_in_its_page(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    words = ["gate", checkpoints["hc"], "--max-gain", "1e6", "-o", tmp_path / "a.html"]
    assert run(*words).code == 2
    assert "GATE INCONCLUSIVE" in (tmp_path / "a.html").read_text()


def test_what_a_run_did_not_record_beside_the_limit_is_said(run: Run, tmp_path: Path) -> None:
    path = a_run(tmp_path / "run", {1: 0.1})
    ended = run("gate", path, "--max-gain", "1e6", "-o", tmp_path / "g.md")
    rows = {line.split()[0]: line for line in ended.out.splitlines() if line.split()}
    document = run("gate", path, "--max-gain", "1e6", "--json").json
    assert_valid(document, "gate")
    for way in ("forward", "backward"):
        assert f"composite.{way}.norm.mean" not in rows
        assert rows[f"composite.{way}.norm.max"].split()[1:] != []
        assert f"`composite.{way}.norm.max`" in (tmp_path / "g.md").read_text()
        assert document["beside"][f"composite.{way}.norm.max"]["worst"] > 1.0


def test_an_id_without_any_stand_in_is_not_recorded(run: Run, tmp_path: Path) -> None:
    trace = make_trace()
    ids = ["composite.forward.amax.mean", "composite.backward.amax.mean"]
    result = gate(analysis_of(trace))
    kept = {name: result.analysis.summary[name] for name in ids}
    bare = replace(result, beside=beside_of(replace(result.analysis, summary=kept)))
    rows = {row.id: row for row in gate_rows(bare)}
    assert rows["composite.forward.norm.mean"].sign == "not recorded"
    assert rows["composite.backward.amax.max"].value == MISSING
