"""Reading a run: only what is asked for, and nothing left out without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mhc_diag.errors import OptionError, RunError
from mhc_diag.runs.read import RunHistory, load_run, read_run
from mhc_diag.runs.store import RunWriter
from mhc_diag.trace import Site

FORWARD, BACKWARD = "composite.forward.amax.mean", "composite.backward.amax.mean"


def row(*numbers: float) -> Any:
    return np.ma.MaskedArray(numbers, mask=[number == -1 for number in numbers])


def grid(history: RunHistory, name: str) -> Any:
    return history.values[name]  # noqa: PD011  a mapping of ours, no frame


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Steps 10, 20, 30 of two sites; step 20 twice, site 1 unmeasured at 30."""
    sites = [Site(index=i, chain="main", name=f"blocks.{i}.hc", layer=i) for i in range(2)]
    path = tmp_path / "my run"
    with RunWriter(path, sites=sites, model={"family": "hc"}, ids=[FORWARD, BACKWARD]) as writer:
        writer.write(10, {FORWARD: row(1, 2), BACKWARD: row(3, 4)}, {"loss": 5.0, "lr": 0.1})
        writer.write(20, {FORWARD: row(0, 0), BACKWARD: row(0, 0)}, {"loss": 0.0})
        writer.write(30, {FORWARD: row(9, -1), BACKWARD: row(np.inf, np.nan)}, {"loss": np.nan})
        writer.write(20, {FORWARD: row(6, 7), BACKWARD: row(8, 9)}, {"loss": 4.0})
    return path


def test_a_history_holds_steps_in_order_and_the_last_record_of_each(run: Path) -> None:
    history = load_run(run)
    assert history.label == "my run"
    assert history.path == str(run)
    assert history.model == {"family": "hc"}
    assert [site.name for site in history.sites] == ["blocks.0.hc", "blocks.1.hc"]
    assert history.steps.tolist() == [10, 20, 30]
    assert grid(history, FORWARD).tolist() == [[1, 2], [6, 7], [9, None]]
    np.testing.assert_array_equal(grid(history, BACKWARD).data[2], [np.inf, np.nan])
    assert not grid(history, BACKWARD).mask.any()
    np.testing.assert_array_equal(history.scalars["loss"], [5, 4, np.nan])
    np.testing.assert_array_equal(history.scalars["lr"], [0.1, np.nan, np.nan])


def test_a_long_table_has_a_row_per_step_site_and_id(run: Path) -> None:
    frame = read_run(run)
    assert list(frame.columns) == ["step", "site", "id", "value"]
    assert [str(frame[name].dtype) for name in ("step", "site", "value")] == [
        "int64",
        "Int64",
        "float64",
    ]
    assert len(frame) == 3 * (2 * 2 + 2)
    assert frame["step"].is_monotonic_increasing
    wide = frame[frame["id"] == FORWARD].pivot_table(index="step", columns="site", values="value")
    assert wide.loc[20].tolist() == [6, 7]
    assert wide.loc[10].tolist() == [1, 2]
    loss = frame[frame["id"] == "loss"]
    assert loss["site"].isna().all()
    assert loss["value"].tolist()[:2] == [5, 4]


def test_only_what_is_asked_for_is_read(run: Path) -> None:
    frame = read_run(run, ids=["loss", "composite.b*"], sites=["blocks.1.hc"], steps=[10, 20, 99])
    assert list(frame.itertuples(index=False, name=None)) == [
        (10, pd.NA, "loss", 5.0),
        (10, 1, BACKWARD, 4.0),
        (20, pd.NA, "loss", 4.0),
        (20, 1, BACKWARD, 9.0),
    ]


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (range(15, 25), [20]),
        (slice(20, None), [20, 30]),
        (slice(None, 30), [10, 20]),
        (slice(10, None, 20), [10, 30]),
        ({30}, [30]),
        ([], []),
    ],
    ids=repr,
)
def test_steps_can_be_chosen(run: Path, steps: Any, wanted: list[int]) -> None:
    assert load_run(run, steps=steps).steps.tolist() == wanted


def test_sites_can_be_chosen_by_index_and_stay_in_order(run: Path) -> None:
    history = load_run(run, sites=[1, "blocks.0.hc"])
    assert [site.index for site in history.sites] == [0, 1]
    assert grid(load_run(run, sites=[1]), FORWARD).tolist() == [[2], [7], [None]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": ["composite.forward.amax.men"]}, f"Did you mean '{FORWARD}'"),
        ({"ids": ["grad*"]}, "Recorded: .*, loss"),
        ({"sites": [2]}, "has 2 sites, 'blocks.0.hc' to 'blocks.1.hc'"),
        ({"sites": ["blocks.7.hc"]}, "site 'blocks.7.hc'"),
    ],
    ids=["id", "pattern", "index", "name"],
)
def test_what_the_run_does_not_have_is_said(
    run: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        load_run(run, **options)


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 40, "time": 1.0, "scal', b'{"step": 40, "scalars": {}, "values": {}}'],
    ids=["in the middle", "before the newline"],
)
def test_a_torn_last_line_is_left_out_with_a_warning_that_names_it(run: Path, torn: bytes) -> None:
    with (run / "stats.jsonl").open("ab") as file:
        file.write(torn)
    with pytest.warns(UserWarning, match=r"stats.jsonl: line 5 is torn and was left out"):
        history = load_run(run)
    assert history.steps.tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0",
        b"[1]",
        b'{"step": 40}',
        b'{"step": 40, "scalars": {}, "values": {"x": [1]}}',
        b'{"step": 40, "scalars": {}, "values": {"x": [1, "?"]}}',
        b'{"step": 40, "scalars": {"loss": {}}, "values": {}}',
        b"\xff\xfe",
    ],
    ids=["zeros", "list", "short", "other sites", "word", "nested", "bytes"],
)
def test_a_damaged_line_is_left_out_with_a_warning_that_names_it(run: Path, line: bytes) -> None:
    with (run / "stats.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.warns(UserWarning, match=r"stats.jsonl: line 5 is damaged and was left out"):
        history = load_run(run)
    assert history.steps.tolist() == [10, 20, 30]


def test_a_run_is_readable_while_it_is_written(tmp_path: Path) -> None:
    with RunWriter(tmp_path, sites=(), model={}, ids=()) as writer:
        assert load_run(tmp_path).steps.tolist() == []
        writer.write(1, scalars={"loss": 1.0})
        assert load_run(tmp_path).scalars["loss"].tolist() == [1.0]


def test_an_empty_run_gives_an_empty_table_of_the_same_form(tmp_path: Path) -> None:
    RunWriter(tmp_path, sites=(), model={}, ids=()).close()
    frame = read_run(tmp_path)
    assert frame.empty
    assert list(frame.columns) == ["step", "site", "id", "value"]


def test_a_folder_that_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run.json: No such file.*A run is a folder with run.json"):
        load_run(tmp_path)


def test_a_run_that_lost_its_records_is_said(run: Path) -> None:
    (run / "stats.jsonl").unlink()
    with pytest.raises(RunError, match=r"stats.jsonl: No such file"):
        load_run(run)


def test_a_header_with_damaged_sites_is_said(run: Path) -> None:
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"index"', '"place"'))
    with pytest.raises(RunError, match="its list of sites is damaged"):
        load_run(run)
