"""Going on with a run: behind its records, only as the same run, never over a damaged one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_records import GAIN, MODEL, row, sites, writer

from mhc_diag.errors import RunError
from mhc_diag.runs.read import load_run


def test_a_resumed_run_goes_on_behind_its_records(tmp_path: Path) -> None:
    for steps in ([1, 2], [2, 3]):
        with writer(tmp_path) as run:
            for step in steps:
                run.write(step, row(step, 0.0, steps[0]))
    history = load_run(tmp_path)
    assert history.steps.tolist() == [1, 2, 3]
    assert history.values[GAIN][:, 2].tolist() == [1.0, 2.0, 2.0]  # the later record of step 2
    assert len((tmp_path / "stats.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("torn", [b'{"step": 9, "sca', b"\0" * 200_000, b'{"step": 9}'])
def test_a_resumed_run_cuts_off_a_torn_line_and_nothing_else(tmp_path: Path, torn: bytes) -> None:
    with writer(tmp_path) as run:
        run.write(1, row(1.0, 2.0, 3.0))
    stats = tmp_path / "stats.jsonl"
    whole = stats.read_bytes()
    stats.write_bytes(whole + torn)
    with writer(tmp_path) as run:
        assert stats.read_bytes() == whole
        run.write(2, row(4.0, 5.0, 6.0))
    assert load_run(tmp_path).steps.tolist() == [1, 2]


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    writer(tmp_path).close()
    (tmp_path / "stats.jsonl").write_bytes(b"x" * 100_000)
    writer(tmp_path).close()
    assert (tmp_path / "stats.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {**MODEL, "width": 64}}, "model width is 32 there, 64 here"),
        ({"sites": sites(4)}, "3 sites there, 4 here"),
        ({"ids": ["single.forward.amax.mean"]}, r"ids\[0\] is 'composite.forward.amax.mean' there"),
        ({"orientation": {"stored": "M^T"}}, "stored orientation is 'M' there, 'M\\^T' here"),
    ],
    ids=["model", "sites", "ids", "orientation"],
)
def test_a_run_of_another_model_is_never_touched(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with writer(tmp_path, orientation={"stored": "M"}) as run:
        run.write(1, row(1.0, 2.0, 3.0))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match=f"it holds another run: {message}"):
        writer(tmp_path, **{"orientation": {"stored": "M"}, **changes})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_measurement_noise_of_the_orientation_does_not_make_another_run(tmp_path: Path) -> None:
    writer(tmp_path, orientation={"stored": "M", "error": 1e-8}).close()
    first = (tmp_path / "run.json").read_bytes()
    writer(tmp_path, orientation={"stored": "M", "error": 2e-8}).close()
    assert (tmp_path / "run.json").read_bytes() == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "run.json is not JSON"),
        ('{"schema": "x/1"}', "has schema 'x/1'"),
        ('{"schema": "mhc-diag/run/1", "definitions": []}', "'definitions' of run.json is damaged"),
        (
            '{"schema": "mhc-diag/run/1", "definitions": {},'  # noqa: ISC004  one string
            ' "orientation": {}, "model": {}, "sites": []}',
            "run.json names no ids",
        ),
    ],
    ids=["torn", "foreign", "wrong type", "no ids"],
)
def test_a_damaged_header_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=message):
        writer(tmp_path)


def test_records_without_a_header_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "stats.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(RunError, match=r"it has stats.jsonl but no run.json"):
        writer(tmp_path)
    assert (tmp_path / "stats.jsonl").read_text() == '{"step": 1}\n'
