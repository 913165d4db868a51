"""Writing a run: whatever happens to the writer, completed records stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_records import GAIN, MODEL, row, sites, writer

from mhc_diag.errors import OptionError, OutputError, RunError, ShapeError
from mhc_diag.runs import locking, store
from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.runs.read import load_run
from mhc_diag.runs.store import RunWriter, discard_run
from mhc_diag.trace import Site


def test_twelve_ids_are_recorded_unless_others_are_asked_for(tmp_path: Path) -> None:
    assert len(set(DEFAULT_IDS)) == 12
    with RunWriter(tmp_path / "run", sites=sites(), model=MODEL) as run:
        run.write(1, {name: np.arange(3.0) for name in DEFAULT_IDS}, {"loss": 2.0})
    assert set(load_run(tmp_path / "run").values) == set(DEFAULT_IDS)


def test_run_json_says_what_the_numbers_are(tmp_path: Path) -> None:
    orientation = {"stored": "M", "verified": "numeric", "error": 1e-8}
    writer(tmp_path, orientation=orientation).close()
    header = json.loads((tmp_path / "run.json").read_text())
    assert header["schema"] == "mhc-diag/run/1"
    assert header["model"] == MODEL
    assert header["orientation"] == orientation
    assert header["definitions"]["version"] == 1
    assert header["definitions"]["ids"][GAIN]
    assert [site["name"] for site in header["sites"]] == [f"blocks.{i}.hc_attn" for i in range(3)]
    assert header["tool"]["name"] == "mhc-diag"
    assert header["versions"]["numpy"] == np.__version__


def test_a_record_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        run.write(1, row(1.0, np.inf, np.nan), {"loss": np.float32(0.5)})
        line = json.loads((tmp_path / "stats.jsonl").read_text())
        assert line["values"] == {GAIN: [1.0, "inf", "nan"]}
        assert line["scalars"] == {"loss": 0.5}
        assert line["step"] == 1


def test_a_masked_or_missing_value_is_null(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        run.write(1, {GAIN: np.ma.MaskedArray([1.0, 5.0, 2.0], mask=[False, True, False])})
        run.write(2, {"single.forward.amax.mean": np.ones(3)})
    lines = (tmp_path / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["values"] for line in lines] == [
        {GAIN: [1.0, None, 2.0]},
        {GAIN: [None, None, None]},
    ]


def test_numbers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).standard_normal(3) * 1e-7
    with writer(tmp_path) as run:
        run.write(1, row(*numbers))
    assert load_run(tmp_path).values[GAIN][0].tolist() == numbers.tolist()


def test_a_row_of_another_length_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        with pytest.raises(ShapeError, match=r"3 sites: an array of shape \[2\]"):
            run.write(1, row(1.0, 2.0))
        assert (tmp_path / "stats.jsonl").read_bytes() == b""


def test_an_id_that_does_not_exist_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="composite.forward.amax.men"):
        writer(tmp_path / "run", ids=["composite.forward.amax.men"])
    assert not (tmp_path / "run").exists()


def test_a_run_without_sites_keeps_its_scalars(tmp_path: Path) -> None:
    with writer(tmp_path, sites=(), ids=(), model={"family": "residual"}) as run:
        run.write(1, scalars={"loss": 3.0})
    history = load_run(tmp_path)
    assert history.sites == ()
    assert history.scalars["loss"].tolist() == [3.0]


def test_a_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    first = writer(tmp_path)
    with pytest.raises(RunError, match="another writer is at work"):
        writer(tmp_path)
    with pytest.raises(RunError, match="another writer is at work"):
        discard_run(tmp_path)
    first.write(1, row(1.0, 2.0, 3.0))
    first.close()
    first.close()
    writer(tmp_path).close()


def test_a_refused_writer_lets_go_of_the_lock(tmp_path: Path) -> None:
    writer(tmp_path).close()
    with pytest.raises(RunError, match="another run"):
        writer(tmp_path, model={})
    writer(tmp_path).close()


def test_a_closed_writer_refuses_to_write(tmp_path: Path) -> None:
    run = writer(tmp_path)
    run.close()
    with pytest.raises(RunError, match="the run is closed"):
        run.write(1)


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locking, "_lock", refuse)
    with pytest.warns(RuntimeWarning, match="cannot lock files"):
        run = writer(tmp_path)
    run.write(1, row(1.0, 2.0, 3.0))
    run.close()


def test_a_full_disk_costs_one_record_and_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer(tmp_path) as run:
        run.write(1, row(1.0, 2.0, 3.0))
        real = os.write

        def half(descriptor: int, data: bytes) -> int:
            if len(data) > 20:
                return real(descriptor, data[:20])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(store.os, "write", half)
            with pytest.raises(OutputError, match="No space left on device"):
                run.write(2, row(1.0, 2.0, 3.0))
        run.write(3, row(1.0, 2.0, 3.0))
    assert load_run(tmp_path).steps.tolist() == [1, 3]


def test_records_reach_the_disk_on_a_clock_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    now = [1000.0]
    monkeypatch.setattr(store.os, "fsync", synced.append)
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    run = writer(tmp_path)
    run.write(1)
    assert not synced
    now[0] += store.SYNC_SECONDS + 1
    run.write(2)
    run.write(3)
    assert len(synced) == 1
    run.close()
    assert len(synced) == 2


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        writer(tmp_path / "file" / "run")


def test_discarding_a_run_leaves_other_files(tmp_path: Path) -> None:
    writer(tmp_path).close()
    (tmp_path / "model.pt").touch()
    discard_run(tmp_path)
    discard_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


KILLED = """
import sys
import numpy as np
from mhc_diag.runs.store import RunWriter
from mhc_diag.trace import Site

run = RunWriter(
    sys.argv[1],
    sites=[Site(index=i, chain="main", name=f"s{i}") for i in range(200)],
    model={},
    ids=["single.forward.amax.mean"],
)
step = 0
while True:
    step += 1
    run.write(step, {"single.forward.amax.mean": np.full(200, step / 7)}, {"loss": 1 / step})
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kill_9_loses_no_completed_record_and_the_run_goes_on(tmp_path: Path) -> None:
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(50)]
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        completed = max(int(line) for line in said if line.endswith("\n"))
        stats = tmp_path / "stats.jsonl"
        stats.write_bytes(stats.read_bytes() + b'{"step": 10')  # as if killed in mid-write
        with RunWriter(
            tmp_path,
            sites=[Site(index=i, chain="main", name=f"s{i}") for i in range(200)],
            model={},
            ids=["single.forward.amax.mean"],
        ):
            history = load_run(tmp_path)
        assert set(range(1, completed + 1)) <= set(history.steps.tolist())
        at = history.steps.tolist().index(completed)
        assert (history.values["single.forward.amax.mean"][at] == completed / 7).all()
