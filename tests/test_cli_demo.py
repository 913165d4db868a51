"""``mhc-diag demo`` and ``mhc-diag report``, on few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run
from schemas import assert_valid

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a demonstration of three steps leaves, report apart."""
    from mhc_diag.zoo.demo import run_demo

    target = tmp_path_factory.mktemp("demo")
    run_demo(target, steps=3)
    return target


def test_the_demo_leaves_models_runs_and_a_report(run: Run, tmp_path: Path) -> None:
    ended = run("demo", "-o", tmp_path / "out", "--steps", "2")
    assert ended.code == 0
    for label in ("HC", "mHC", "mHC-lite"):
        assert f"gate {label}: " in ended.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"report.html", "hc.pt", "mhc.pt", "mhc_lite.pt", "residual.pt", "runs"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "residual" in page
    assert "mhc-diag demo" in page
    again = run("demo", "-o", tmp_path / "out", "--steps", "2", "--json")
    assert again.code == 2
    assert_valid(again.json, "error")
    forced = run("demo", "-o", tmp_path / "out", "--steps", "2", "--force", "--json", "--quiet")
    assert (forced.code, forced.err) == (0, "")
    assert_valid(forced.json, "comparison")


def test_stored_runs_become_a_report(run: Run, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "runs.html"
    ended = run("report", f"first={folder}/runs/hc", f"{folder}/runs/mhc", "-o", page)
    assert (ended.code, ended.err) == (0, f"wrote {page}\n")
    names = [line for line in ended.out.splitlines() if not line.startswith(" ")]
    assert names == ["first", "mhc"]
    assert "first" in page.read_text()


def test_a_report_as_json_is_one_object(run: Run, folder: Path, tmp_path: Path) -> None:
    ended = run("report", f"{folder}/runs/hc", "-o", tmp_path / "runs.html", "--json")
    assert ended.code == 0
    assert_valid(ended.json, "listing")
    (entry,) = ended.json["entries"]
    assert (entry["label"], entry["first_step"], entry["last_step"]) == ("hc", 1, 3)
    assert entry["sites"] == 24


def test_without_a_file_the_runs_are_only_listed(run: Run, folder: Path) -> None:
    ended = run("report", f"{folder}/runs/hc")
    assert ended.code == 0
    assert "-o report.html" in ended.err


def test_a_folder_that_is_no_run_is_exit_2(run: Run, folder: Path, tmp_path: Path) -> None:
    ended = run("report", folder, "-o", tmp_path / "x.html")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1


def test_a_run_is_never_replaced_by_its_report(run: Run, folder: Path) -> None:
    before = (folder / "runs" / "hc" / "run.json").read_bytes()
    ended = run("report", f"{folder}/runs/hc", "-o", f"{folder}/runs/hc/run.json")
    assert ended.code == 2
    assert (folder / "runs" / "hc" / "run.json").read_bytes() == before


@pytest.mark.parametrize(("words", "step"), [([], 3), (["--step", "1"], 1)])
def test_a_step_of_a_run_is_analyzed(words: list[str], step: int, run: Run, folder: Path) -> None:
    ended = run("analyze", folder / "runs" / "hc", *words, "--json")
    assert ended.code == 0
    assert_valid(ended.json, "analysis")
    assert (ended.json["source"]["format"], ended.json["source"]["step"]) == ("run", step)


def test_a_step_that_was_not_recorded_is_exit_2(run: Run, folder: Path) -> None:
    assert run("analyze", folder / "runs" / "hc", "--step", "7").code == 2
