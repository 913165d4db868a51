"""``mhc-diag export``: a long table of what the runs hold, and nothing else."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Run
from factories import make_trace
from run_cases import GAIN, a_run, without_sites, writer_of
from schemas import assert_valid

from mhc_diag.runs import export
from mhc_diag.runs.read import load_run, read_run

COLUMNS = ["run", "step", "site", "site_name", "id", "value"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def hc(tmp_path: Path) -> Path:
    return a_run(tmp_path / "hc", {10: 0.1, 20: 0.5})


def test_a_csv_holds_what_read_run_says(run: Run, hc: Path, tmp_path: Path) -> None:
    ended = run("export", hc, "-o", tmp_path / "hc.csv")
    wanted = read_run(hc)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"wrote {tmp_path / 'hc.csv'}: {len(wanted)} rows\n"
    rows = rows_of(tmp_path / "hc.csv")
    assert list(rows[0]) == COLUMNS
    key = lambda row: (row[0], row[2], -1 if row[1] is None else row[1])
    found = [
        (
            int(row["step"]),
            int(row["site"]) if row["site"] else None,
            row["id"],
            float(row["value"]),
        )
        for row in rows
    ]
    expected = [
        (int(step), None if pd.isna(site) else int(site), id_, float(value))
        for step, site, id_, value in wanted.itertuples(index=False)
    ]
    assert sorted(found, key=key) == sorted(expected, key=key)
    names = {row["site"]: row["site_name"] for row in rows}
    sites = load_run(hc).sites
    assert names == {"": "", **{str(site.index): site.name for site in sites}}


def test_parquet_and_csv_hold_the_same(run: Run, hc: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for suffix in ("csv", "parquet"):
        assert run("export", hc, "-o", tmp_path / f"x.{suffix}").code == 0
    left, right = pd.read_csv(tmp_path / "x.csv"), pd.read_parquet(tmp_path / "x.parquet")
    assert list(right.columns) == COLUMNS
    pd.testing.assert_frame_equal(left, right, check_dtype=False)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_gap_nan_and_infinity_stay_apart(suffix: str, run: Run, tmp_path: Path) -> None:
    with writer_of(tmp_path / "hc", make_trace(L=3)) as writer:
        values = np.ma.MaskedArray([np.nan, np.inf, 1.0], mask=[False, False, True])
        writer.write(1, {GAIN: values}, {"loss": np.nan})
        writer.write(2, {}, {})
    path = tmp_path / f"x.{suffix}"
    assert run("export", tmp_path / "hc", "-o", path, "--id", GAIN, "--id", "loss").code == 0
    if suffix == "csv":
        cells = [row["value"] for row in rows_of(path)]
        assert cells == ["nan", "nan", "inf", "", "", "", "", ""]
        return
    parquet = pytest.importorskip("pyarrow.parquet")
    column = parquet.read_table(path)["value"].to_pylist()
    assert [math.isnan(v) for v in column[:2]] == [True, True]
    assert column[2:] == [math.inf, None, None, None, None, None]


def test_several_runs_are_told_apart(run: Run, hc: Path, tmp_path: Path) -> None:
    other = a_run(tmp_path / "deep" / "hc", {5: 0.1})
    residual = without_sites(tmp_path / "residual", {1: 4.0})
    path = tmp_path / "all.csv"
    assert run("export", hc, other, f"plain={residual}", "-o", path).code == 0
    runs = [row["run"] for row in rows_of(path)]
    assert list(dict.fromkeys(runs)) == [f"{tmp_path.name}/hc", "deep/hc", "plain"]
    assert runs.count("plain") == 1
    ended = run("export", f"a={hc}", f"a={other}", "-o", path)
    assert ended.code == 2
    assert "'a' was given twice" in ended.err


def test_only_the_ids_that_are_asked_for_are_written(run: Run, hc: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    assert run("export", hc, "-o", path, "--id", "composite.*.mean", "--id", "loss").code == 0
    ids = {row["id"] for row in rows_of(path)}
    assert ids == {GAIN, "composite.backward.amax.mean", "loss"}
    assert run("export", hc, "-o", path, "--id", "lossy").code == 2


def test_a_long_run_is_written_in_pieces(
    hc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = load_run(hc)
    whole = export.export_runs([history], tmp_path / "whole.csv")
    monkeypatch.setattr(export, "_ROWS", 1)
    assert export.export_runs([history], tmp_path / "pieces.csv") == whole
    assert (tmp_path / "pieces.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    pytest.importorskip("pyarrow")
    assert export.export_runs([history], tmp_path / "pieces.parquet") == whole
    pieces = pd.read_parquet(tmp_path / "pieces.parquet")
    whole_table = pd.read_csv(tmp_path / "whole.csv")
    pd.testing.assert_frame_equal(pieces, whole_table, check_dtype=False)


def test_what_goes_wrong_leaves_the_earlier_file(
    hc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("earlier")

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(export, "_piece", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        export.export_runs([load_run(hc)], path)
    assert path.read_text() == "earlier"
    assert {each.name for each in tmp_path.iterdir()} == {"hc", "x.csv"}


def test_without_pyarrow_the_way_out_is_said(
    run: Run, hc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = run("export", hc, "-o", tmp_path / "x.parquet", "--json")
    assert ended.code == 2
    assert_valid(ended.json, "error")
    assert "pip install 'mhc-diag[parquet]'" in ended.json["do"]
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("name", ["x.xlsx", "x"])
def test_another_suffix_is_refused(name: str, run: Run, hc: Path, tmp_path: Path) -> None:
    ended = run("export", hc, "-o", tmp_path / name)
    assert ended.code == 2
    assert ".csv or .parquet" in ended.err


def test_json_says_what_was_exported(run: Run, hc: Path, tmp_path: Path) -> None:
    ended = run("export", hc, "-o", tmp_path / "x.csv", "--json", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    assert_valid(ended.json, "listing")
    assert ended.json["entries"][0]["records"] == 2


def test_a_torn_line_is_a_warning_in_plain_words(run: Run, hc: Path, tmp_path: Path) -> None:
    with (hc / "stats.jsonl").open("ab") as file:
        file.write(b'{"step": 30')
    ended = run("export", hc, "-o", tmp_path / "x.csv")
    assert ended.code == 0
    first = ended.err.splitlines()[0]
    assert first == f"warning: {hc / 'stats.jsonl'}: line 3 is torn and was left out"
