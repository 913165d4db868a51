"""Following a run that grows: what is new is read, what is torn waits, nothing is read twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from factories import make_trace
from run_cases import GAIN, a_run, record, without_sites, worst_gain, writer_of

from mhc_diag.errors import RunError
from mhc_diag.recorded import analysis_of_row
from mhc_diag.runs.follow import Follower, Snapshot
from mhc_diag.runs.store import discard_run


def looked(follower: Follower) -> Snapshot:
    snapshot = follower.poll()
    assert snapshot is not None
    return snapshot


def test_a_run_is_waited_for_until_it_has_a_record(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "hc")
    assert follower.poll() is None
    trace = make_trace(spread=0.1)
    with writer_of(tmp_path / "hc", trace) as writer:
        assert follower.poll() is None
        record(writer, 5, trace, {"loss": 2.0})
        assert looked(follower).steps == (5,)


def test_the_worst_values_are_those_of_the_whole_analysis(tmp_path: Path) -> None:
    spreads = {10: 0.05, 20: 0.3, 30: 0.2}
    run = a_run(tmp_path / "hc", spreads, auxiliary_sites=2)
    snapshot = looked(Follower(run))
    gains = {step: worst_gain(spread, auxiliary_sites=2) for step, spread in spreads.items()}
    assert snapshot.steps == (10, 20, 30)
    assert snapshot.worst[GAIN] == tuple(value for value, _ in gains.values())
    now = snapshot.now[GAIN]
    assert now is not None
    assert (now.value, now.site) == gains[30]
    assert snapshot.scalars == {"grad_norm": (1.0, 1.0, 1.0), "loss": (1.0, 0.5, 10.0 / 30)}
    assert (snapshot.is_whole, snapshot.n_damaged) == (True, 0)


def test_the_last_record_can_be_analysed(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {10: 0.01, 20: 2.0})
    analysis = analysis_of_row(looked(Follower(run)).latest, 0)
    assert (analysis.source.step, analysis.verdict) == (20, "unstable")


def test_while_nothing_is_new_the_same_snapshot_is_given(tmp_path: Path) -> None:
    follower = Follower(a_run(tmp_path / "hc", {10: 0.1}))
    assert looked(follower) is looked(follower)


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {10: 0.1})
    follower = Follower(run)
    first = looked(follower)
    stats = run / "stats.jsonl"
    with stats.open("r+b") as file:  # the same file, its first record made unreadable
        file.write(b"?" * (stats.stat().st_size - 1))
    trace = make_trace(spread=0.1)
    with writer_of(run, trace) as writer:
        record(writer, 20, trace)
    second = looked(follower)
    assert second.steps == (10, 20)
    assert second.worst[GAIN][0] == first.worst[GAIN][0]
    assert second.n_damaged == 0


def test_a_torn_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {10: 0.1, 20: 0.1})
    stats = run / "stats.jsonl"
    whole = stats.read_bytes()
    cut = whole.index(b"\n") + 100
    stats.write_bytes(whole[:cut])
    follower = Follower(run)
    assert looked(follower).steps == (10,)
    with stats.open("ab") as file:
        file.write(whole[cut:])
    assert looked(follower).steps == (10, 20)
    assert looked(follower).n_damaged == 0


def test_a_torn_line_that_a_resumed_run_cuts_off_is_no_record(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {10: 0.1})
    with (run / "stats.jsonl").open("ab") as file:
        file.write(b'{"step": 20, "time": 1.0, "scal')
    follower = Follower(run)
    assert looked(follower).steps == (10,)
    trace = make_trace(spread=0.1)
    with writer_of(run, trace) as writer:
        record(writer, 30, trace)
    assert looked(follower).steps == (10, 30)
    assert looked(follower).n_damaged == 0


def test_a_damaged_line_is_counted(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {10: 0.1, 20: 0.1})
    lines = (run / "stats.jsonl").read_bytes().splitlines(keepends=True)
    (run / "stats.jsonl").write_bytes(lines[0] + b"{}\n" + lines[1])
    assert looked(Follower(run)).n_damaged == 1
    assert looked(Follower(run)).steps == (10, 20)


def test_after_going_back_to_a_checkpoint_the_abandoned_steps_are_left_out(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {10: 0.1, 20: 0.2, 30: 0.3})
    trace = make_trace(spread=0.05)
    with writer_of(run, trace) as writer:
        record(writer, 20, trace)
    snapshot = looked(Follower(run))
    assert snapshot.steps == (10, 20)
    assert snapshot.latest.steps.tolist() == [20]
    assert snapshot.worst[GAIN][1] == worst_gain(0.05)[0]


def test_a_run_that_is_replaced_is_followed_from_its_beginning(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {10: 0.1, 20: 0.1})
    follower = Follower(run)
    assert len(looked(follower).latest.sites) == 6
    discard_run(run)
    assert follower.poll() is None
    a_run(run, {1: 0.1, 2: 0.1, 3: 0.1}, L=4)
    snapshot = looked(follower)
    assert snapshot.steps == (1, 2, 3)
    assert len(snapshot.latest.sites) == 4


def test_a_run_that_is_replaced_between_two_looks_is_noticed(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {10: 0.1})
    follower = Follower(run)
    looked(follower)
    discard_run(run)
    a_run(run, dict.fromkeys(range(1, 9), 0.1), L=4)
    assert looked(follower).steps == tuple(range(1, 9))


def test_nan_is_worse_than_infinity_and_a_gap_is_a_gap(tmp_path: Path) -> None:
    trace = make_trace(spread=0.1)
    values = np.ma.MaskedArray([1.0, np.inf, np.nan, 2.0, 1.0, 1.0], mask=[False] * 6)
    with writer_of(tmp_path / "hc", trace) as writer:
        writer.write(1, {GAIN: values})
        writer.write(2, {})
    follower = Follower(tmp_path / "hc")
    snapshot = looked(follower)
    first, second = snapshot.worst[GAIN]
    assert np.isnan(first)  # type: ignore[arg-type]  # a number, or the test fails
    assert second is None
    assert snapshot.now[GAIN] is None


def test_of_a_very_long_file_the_end_is_read(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", dict.fromkeys(range(1, 21), 0.1))
    size = (run / "stats.jsonl").stat().st_size
    follower = Follower(run, first_bytes=size // 4)
    snapshot = looked(follower)
    assert snapshot.steps[-1] == 20
    assert 14 < snapshot.steps[0] < 19
    assert (snapshot.is_whole, snapshot.n_damaged) == (False, 0)
    trace = make_trace(spread=0.1)
    with writer_of(run, trace) as writer:
        record(writer, 21, trace)
    assert looked(follower).steps == (*snapshot.steps, 21)


def test_a_run_without_sites_has_its_scalars(tmp_path: Path) -> None:
    snapshot = looked(Follower(without_sites(tmp_path / "residual", {1: 5.0, 2: np.nan})))
    assert snapshot.worst == {}
    assert snapshot.scalars["loss"][0] == 5.0
    assert np.isnan(snapshot.scalars["loss"][1])  # type: ignore[arg-type]  # as above


def test_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="it is no folder"):
        Follower(tmp_path / "file").poll()
    run = a_run(tmp_path / "hc", {1: 0.1})
    (run / "run.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(RunError, match="has schema 'other'"):
        Follower(run).poll()
