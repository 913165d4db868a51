from __future__ import annotations

import csv
import json
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import make_chain, make_trace, signed_matrices, trace_of

from mhc_diag import render
from mhc_diag.analysis import Analysis, analysis_of
from mhc_diag.comparison import Comparison, compare
from mhc_diag.errors import MissingExtraError, OptionError, OutputError
from mhc_diag.limits import gate
from mhc_diag.render import check_target, report
from mhc_diag.tracefile import load_trace

seen: list[dict[str, Any]] = []


def draw(comparison: Comparison, *, runs: Any = (), command: str = "", **gated: Any) -> bytes:
    """A renderer: notes what it was given."""
    seen.append({"labels": comparison.labels, "runs": runs, "command": command, **gated})
    return b"drawn"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renderers of .html and .png are installed, none of .pdf."""
    seen.clear()
    points = [
        EntryPoint(name=suffix, value=f"{__name__}:draw", group=render.GROUP)
        for suffix in (".html", ".png")
    ]
    monkeypatch.setattr(
        render, "entry_points", lambda group: points if group == render.GROUP else []
    )
    monkeypatch.setattr(EntryPoint, "load", lambda self: draw)


@pytest.fixture(scope="module")
def hc() -> Analysis:
    return analysis_of(make_trace(spread=0.5, source="hc.pt"), ids=[])


@pytest.fixture(scope="module")
def mhc() -> Analysis:
    return analysis_of(make_trace(family="mhc", source="mhc.pt"), ids=[])


def test_the_suffix_finds_its_renderer_and_passes_everything_on(
    tmp_path: Path, hc: Analysis, mhc: Analysis
) -> None:
    path = report([hc, mhc], tmp_path / "x.html", labels=["a", "b"], command="mhc-diag compare")
    assert path.read_bytes() == b"drawn"
    assert seen == [{"labels": ("a", "b"), "runs": (), "command": "mhc-diag compare"}]
    report(compare(hc=hc), tmp_path / "x.PNG")
    assert seen[-1]["labels"] == ("hc",)


def test_one_analysis_is_written_as_json_csv_and_parquet(tmp_path: Path, hc: Analysis) -> None:
    report(hc, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == hc.to_dict()
    report(hc, tmp_path / "a.csv")
    name = "composite.forward.amax.mean"
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [float(row[name]) for row in rows] == hc[name].tolist()
    assert "label" not in rows[0]
    pytest.importorskip("pyarrow")
    report(hc, tmp_path / "a.parquet")
    assert pd.read_parquet(tmp_path / "a.parquet")[name].tolist() == hc[name].tolist()


def test_several_analyses_stand_under_each_other_with_their_label(
    tmp_path: Path, hc: Analysis, mhc: Analysis
) -> None:
    report([hc, mhc], tmp_path / "both.csv")
    frame = pd.read_csv(tmp_path / "both.csv")
    assert frame["label"].tolist() == ["hc"] * 6 + ["mhc"] * 6
    report([hc, mhc], tmp_path / "both.json")
    assert json.loads((tmp_path / "both.json").read_text())["schema"] == "mhc-diag/comparison/1"


def test_in_a_csv_a_gap_is_empty_and_what_is_not_finite_is_a_word(tmp_path: Path) -> None:
    M = signed_matrices((4, 2, 3, 3))
    M[0], M[2, 0], M[3, 0, 0, 0] = np.nan, np.nan, np.inf
    chain = make_chain(M, measured=[False, True, True, True])
    report(analysis_of(trace_of([chain]), ids=[]), tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    first, second, *rest = [row["single.forward.norm.max"] for row in rows]
    assert (first, rest) == ("", ["nan", "inf"])
    assert float(second) > 0


@pytest.mark.parametrize("name", ["new/", "there"])
def test_a_folder_gets_report_picture_and_numbers(tmp_path: Path, hc: Analysis, name: str) -> None:
    (tmp_path / "there").mkdir()
    folder = report(hc, f"{tmp_path}/{name}")
    assert sorted(p.name for p in folder.iterdir()) == ["analysis.json", "gains.png", "report.html"]
    assert report(hc, folder) == folder  # a second time replaces its own


def test_nothing_is_written_when_one_of_the_folder_cannot_be_drawn(
    tmp_path: Path, hc: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "entry_points", lambda group: [])
    with pytest.raises(MissingExtraError, match=r"draws \.html"):
        report(hc, f"{tmp_path}/new/")
    assert not (tmp_path / "new").exists()


def test_a_missing_renderer_says_what_to_install(tmp_path: Path, hc: Analysis) -> None:
    with pytest.raises(MissingExtraError, match=r"nothing that is installed draws \.pdf"):
        report(hc, tmp_path / "x.pdf")


@pytest.mark.parametrize(
    ("name", "words"), [("x.xyz", r"'\.xyz' says no kind"), ("x", "no suffix")]
)
def test_an_unknown_suffix_names_the_known(
    tmp_path: Path, hc: Analysis, name: str, words: str
) -> None:
    with pytest.raises(OptionError, match=rf"{words}.*\.html, .*\.trace\.safetensors"):
        report(hc, tmp_path / name)


@pytest.mark.parametrize(
    "name", ["x.html", "x.PNG", "x.json", "x.csv", "x.parquet", "x.trace.safetensors", "new/", "."]
)
def test_a_target_that_can_be_written_is_let_through_and_not_touched(
    tmp_path: Path, name: str
) -> None:
    check_target(f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("x.xyz", OptionError, r"'\.xyz' says no kind of output.*\.html"),
        ("x", OptionError, "no suffix"),
        ("x.safetensors", OptionError, r"'\.safetensors' says no kind"),
        ("x.pdf", MissingExtraError, r"draws \.pdf"),
    ],
)
def test_a_target_that_cannot_be_written_is_told_beforehand(
    tmp_path: Path, name: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        check_target(tmp_path / name)


def test_a_folder_is_refused_beforehand_where_nothing_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "entry_points", lambda group: [])
    with pytest.raises(MissingExtraError, match=r"draws \.html"):
        check_target(tmp_path)


def test_an_earlier_report_is_replaced(tmp_path: Path, hc: Analysis) -> None:
    (tmp_path / "x.html").write_text("old")
    report(hc, tmp_path / "x.html")
    assert (tmp_path / "x.html").read_bytes() == b"drawn"


def test_a_trace_is_written_once_and_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    trace = make_trace()
    report(analysis_of(trace, ids=[]), path)
    assert (load_trace(str(path)).chains[0].M == trace.chains[0].M).all()
    with pytest.raises(OutputError, match="--force"):
        report(analysis_of(trace, ids=[]), path)
    other = make_trace(L=2)
    report(analysis_of(other, ids=[]), path, force=True)
    assert load_trace(str(path)).chains[0].n_sites == 2


def test_a_trace_is_of_one_source(tmp_path: Path, hc: Analysis, mhc: Analysis) -> None:
    with pytest.raises(OptionError, match="one source"):
        report([hc, mhc], tmp_path / "x.trace.safetensors")


@pytest.mark.parametrize("force", [False, True])
def test_an_input_is_never_replaced(tmp_path: Path, force: bool) -> None:
    source = tmp_path / "analysis.json"
    source.write_text("{}")
    analysis = analysis_of(make_trace(source=str(source)), ids=[])
    with pytest.raises(OutputError, match="never replaces an input"):
        report(analysis, source, force=force)
    with pytest.raises(OutputError, match="never replaces an input"):
        report(analysis, f"{tmp_path}/", force=force)
    link = tmp_path / "link.json"
    link.symlink_to(source)
    with pytest.raises(OutputError, match="never replaces an input"):
        report(analysis, link, force=force)
    assert source.read_text() == "{}"


def test_files_of_an_input_folder_stay_but_earlier_reports_there_do_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    analysis = analysis_of(make_trace(source=str(tmp_path)), ids=[])
    with pytest.raises(OutputError, match="never replaces an input"):
        report(analysis, tmp_path / "config.json")
    report(analysis, tmp_path / "analysis.json")
    report(analysis, tmp_path / "analysis.json")
    (tmp_path / "report").mkdir()
    report(analysis, f"{tmp_path}/report/")
    assert (tmp_path / "config.json").read_text() == '{"model_type": "x"}'


@pytest.mark.parametrize("end", ["", "/", "/../model"])
def test_the_folder_of_an_input_is_not_filled_with_reports(tmp_path: Path, end: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    analysis = analysis_of(make_trace(source=str(folder)), ids=[])
    with pytest.raises(OutputError, match="the folder of the input"):
        report(analysis, f"{folder}{end}")
    assert list(folder.iterdir()) == []


def test_a_folder_of_a_gate_holds_the_analysis_and_the_gate(tmp_path: Path, hc: Analysis) -> None:
    report(gate(hc), f"{tmp_path}/out/")
    schemas = {
        name: json.loads((tmp_path / "out" / f"{name}.json").read_text())["schema"]
        for name in ("analysis", "gate")
    }
    assert schemas == {name: f"mhc-diag/{name}/1" for name in schemas}


def test_a_run_that_is_drawn_is_an_input_too(tmp_path: Path, hc: Analysis) -> None:
    (tmp_path / "run.json").write_text("{}")
    run: Any = SimpleNamespace(path=str(tmp_path))
    with pytest.raises(OutputError, match="never replaces an input"):
        report(hc, tmp_path / "run.json", runs=[run])


def test_labels_of_a_comparison_are_its_own(tmp_path: Path, hc: Analysis) -> None:
    with pytest.raises(OptionError, match="labels already"):
        report(compare(hc), tmp_path / "x.json", labels=["y"])
