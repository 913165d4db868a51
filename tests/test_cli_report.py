"""``mhc-diag report`` and ``compare`` on stored runs, from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run
from run_cases import GAIN, a_run, without_sites, worst_gain
from schemas import assert_valid


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Three runs of one training: HC grows, mHC does not, the residual model has no H_res."""
    return {
        "hc": a_run(tmp_path / "runs" / "hc", {10: 0.05, 20: 0.3, 30: 0.6}),
        "mhc": a_run(tmp_path / "runs" / "mhc", {10: 0.0, 20: 0.0, 30: 0.0}, family="mhc"),
        "residual": without_sites(tmp_path / "runs" / "residual", {10: 3.0, 30: 2.0}),
    }


def test_a_report_of_several_runs_shows_depth_and_steps(
    run: Run, runs: dict[str, Path], tmp_path: Path
) -> None:
    page = tmp_path / "r.html"
    ended = run("report", *runs.values(), "-o", page, "-o", tmp_path / "r.png")
    assert (ended.code, ended.err) == (0, f"wrote {page}\nwrote {tmp_path / 'r.png'}\n")
    text = page.read_text()
    assert "<title>Stability of hc and mhc</title>" in text
    for words in ("Over training", "Where and when", "Depth at a few steps", "Gradient norm"):
        assert words in text
    for label in ("hc: forward", "hc: backward", "mhc: forward", "residual"):
        assert label in text
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_the_verdict_of_a_report_is_that_of_the_last_steps(
    run: Run, runs: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    assert run("report", *runs.values(), "-o", path).code == 0
    document = json.loads(path.read_text())
    assert_valid(document, "comparison")
    assert document["labels"] == ["hc", "mhc"]
    assert document["rows"][GAIN]["hc"]["worst"] == worst_gain(0.6)[0]
    assert [each["analysis"]["verdict"] for each in document["analyses"]] == ["unstable", "stable"]
    assert run("report", runs["hc"], "-o", path, "--max-gain", "1e9").code == 0
    document = json.loads(path.read_text())
    assert_valid(document, "analysis")
    assert (document["source"]["step"], document["verdict"]) == (30, "stable")


def test_runs_of_equal_names_stay_apart(run: Run, tmp_path: Path) -> None:
    paths = [a_run(tmp_path / name / "hc", {1: 0.1}) for name in ("first", "second")]
    ended = run("report", *paths, "-o", tmp_path / "r.html", "--json")
    assert [entry["label"] for entry in ended.json["entries"]] == ["first/hc", "second/hc"]


def test_a_run_without_sites_alone_lends_its_loss(
    run: Run, runs: dict[str, Path], tmp_path: Path
) -> None:
    page = tmp_path / "r.html"
    assert run("report", runs["residual"], "-o", page).code == 0
    assert "<title>Stability of residual</title>" in page.read_text()
    ended = run("report", runs["residual"], "-o", tmp_path / "r.json")
    assert ended.code == 2
    assert "no source has hyper-connections" in ended.err
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("suffix", ["html", "png", "pdf", "svg", "md"])
def test_a_run_without_sites_alone_is_drawn_as_anything(
    suffix: str, run: Run, runs: dict[str, Path], tmp_path: Path
) -> None:
    assert run("report", runs["residual"], "-o", tmp_path / f"r.{suffix}").code == 0
    assert (tmp_path / f"r.{suffix}").stat().st_size > 0


@pytest.mark.parametrize("name", ["residual", "hc"])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "trace.safetensors"])
def test_what_a_run_does_not_hold_is_exit_2(
    name: str, suffix: str, run: Run, runs: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / f"r.{suffix}"
    ended = run("report", runs[name], "-o", path)
    is_held = name == "hc" and suffix != "trace.safetensors"
    assert (ended.code, path.exists()) == ((0, True) if is_held else (2, False))
    assert "bug" not in ended.err


def test_the_help_of_report_offers_no_trace(run: Run) -> None:
    ended = run("report", "--help")
    assert ".parquet" in ended.out
    assert ".trace" not in ended.out


def test_compared_runs_bring_their_histories(
    run: Run, runs: dict[str, Path], tmp_path: Path
) -> None:
    page = tmp_path / "c.html"
    assert run("compare", f"A={runs['hc']}", f"B={runs['mhc']}", "-o", page).code == 0
    text = page.read_text()
    assert "Where and when" in text
    assert "A: forward" in text


def test_steps_of_one_run_are_compared(run: Run, runs: dict[str, Path], tmp_path: Path) -> None:
    words = [f"early={runs['hc']}@10", f"late={runs['hc']}@30"]
    ended = run("compare", *words, "-o", tmp_path / "c.html", "--json")
    assert ended.code == 0
    assert_valid(ended.json, "comparison")
    assert ended.json["labels"] == ["early", "late"]
    steps = [each["analysis"]["source"]["step"] for each in ended.json["analyses"]]
    assert steps == [10, 30]
    assert ended.json["comparable"] is True  # the same tokens, by their hash
    assert (tmp_path / "c.html").read_text().count("hc: forward") > 0
    assert run("compare", f"{runs['hc']}@11", runs["hc"]).code == 2
    assert run("analyze", f"{runs['hc']}@20", "--json").json["source"]["step"] == 20


def test_an_output_never_replaces_a_file_of_a_run(run: Run, runs: dict[str, Path]) -> None:
    for name in ("run.json", "stats.jsonl"):
        path = runs["hc"] / name
        before = path.read_bytes()
        for words in (["report", runs["hc"]], ["export", runs["hc"]]):
            assert run(*words, "-o", path).code == 2
        assert run("compare", f"{runs['hc']}@10", runs["mhc"], "-o", path).code == 2
        assert path.read_bytes() == before
