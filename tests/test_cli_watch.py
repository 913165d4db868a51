"""``mhc-diag watch``: one frame by itself, and as many as change on a terminal."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Run
from factories import make_trace
from run_cases import GAIN, a_run, record, without_sites, worst_gain, writer_of
from schemas import assert_valid
from test_reports_terminal import shown

from mhc_diag.recorded import analysis_of_row
from mhc_diag.runs.follow import Follower
from mhc_diag_cli.app import main
from mhc_diag_reports.sparks import BARS
from mhc_diag_reports.watching import run_frame


@pytest.fixture
def hc(tmp_path: Path) -> Path:
    return a_run(tmp_path / "hc", {10: 0.05, 20: 0.3, 30: 0.6}, L=122)


def frame_at(run: Path, *, later: float = 0.0, width: int = 80) -> list[str]:
    """The frame so many seconds after the last record."""
    snapshot = Follower(run).poll()
    assert snapshot is not None
    analysis = analysis_of_row(snapshot.latest, 0) if snapshot.latest.sites else None
    frame = run_frame(snapshot, analysis, now=snapshot.times[-1] + later, width=width)
    return shown(frame, width).splitlines()


def test_without_a_terminal_one_frame_is_printed(run: Run, hc: Path) -> None:
    ended = run("watch", hc)
    assert (ended.code, ended.err) == (0, "")
    gain, site = worst_gain(0.6, L=122)
    row = next(line for line in ended.out.splitlines() if line.startswith(GAIN))
    name, number, place, trend = row.split()
    assert (name, int(place), len(trend)) == (GAIN, site, 3)
    assert float(number) == pytest.approx(gain, rel=1e-2)
    assert "step 30" in ended.out
    assert "UNSTABLE" in ended.out
    assert ended.out == run("watch", hc, "--once").out


def test_a_frame_fits_into_80_columns_and_24_lines(hc: Path) -> None:
    lines = frame_at(hc)
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert max(map(len, frame_at(hc, width=60))) <= 60


def test_the_trend_rises_with_the_gains(hc: Path) -> None:
    row = next(line for line in frame_at(hc) if line.startswith(GAIN))
    heights = [BARS.index(bar) for bar in row.split()[-1]]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1] == len(BARS) - 1
    loss = next(line for line in frame_at(hc) if line.startswith("loss"))
    assert [BARS.index(bar) for bar in loss.split()[-1]] == [7, 2, 0]


def test_the_last_record_over_depth_is_drawn(hc: Path) -> None:
    row = next(line for line in frame_at(hc) if line.startswith("composite forward"))
    assert set(row.split()[-1]) <= set(BARS)
    assert len(row.split()[-1]) == 41  # 122 sites, three to a bar


def test_limits_may_be_given(run: Run, tmp_path: Path) -> None:
    calm = a_run(tmp_path / "calm", {1: 0.05})
    assert "✓ STABLE" in run("watch", calm).out
    assert "limit at most 1.01" in run("watch", calm, "--max-gain", "1.01").out
    assert "✕ UNSTABLE" in run("watch", calm, "--max-gain", "1.01").out


def test_json_is_the_analysis_of_the_last_record(run: Run, hc: Path) -> None:
    ended = run("watch", hc, "--json")
    assert ended.code == 0
    assert_valid(ended.json, "analysis")
    assert ended.json["source"]["step"] == 30


def test_a_record_without_every_site_is_exit_2(run: Run, tmp_path: Path) -> None:
    a_run(tmp_path / "gap", {1: 0.1}, unmeasured=[2])
    ended = run("watch", tmp_path / "gap")
    assert ended.code == 2
    assert "NOT MEASURED" in ended.out


def test_a_model_without_sites_shows_its_loss(run: Run, tmp_path: Path) -> None:
    path = without_sites(tmp_path / "residual", {1: 5.0, 2: 4.0})
    ended = run("watch", path)
    assert ended.code == 0
    assert re.search(r"^loss +4\.00", ended.out, re.MULTILINE)
    assert_valid(run("watch", path, "--json").json, "error")


def test_no_run_and_no_record_are_exit_2_without_a_terminal(run: Run, tmp_path: Path) -> None:
    assert "run.json" in run("watch", tmp_path / "absent").err
    with writer_of(tmp_path / "hc", make_trace()):
        ended = run("watch", tmp_path / "hc")
    assert ended.code == 2
    assert "no recorded step yet" in ended.err


def test_the_age_of_the_last_record_is_said(tmp_path: Path) -> None:
    trace = make_trace()
    path = tmp_path / "hc"
    with writer_of(path, trace) as writer:
        for step in (1, 2, 3):
            record(writer, step, trace)
    text = (path / "stats.jsonl").read_text()
    for k, place in enumerate(re.findall(r'"time": [\d.]+', text)):
        text = text.replace(place, f'"time": {1000.0 + 60 * k}', 1)
    (path / "stats.jsonl").write_text(text)
    assert "just now, usually every 60 s; 3 records" in frame_at(path)[1]
    assert "2 min ago, usually every 60 s; 3 records" in frame_at(path, later=150)[1]
    assert "10 min ago, usually every 60 s: ended or stalled" in frame_at(path, later=600)[1]
    assert "just now" in frame_at(path, later=-50)[1]  # another machine's clock


def test_hostile_names_reach_the_terminal_clean(tmp_path: Path) -> None:
    path = a_run(tmp_path / "a\x1b[31mb", {1: 3.0})
    header = (path / "run.json").read_text()
    (path / "run.json").write_text(header.replace("transformer.h", "\\u001b[2J\\u202e"))
    assert not [c for line in frame_at(path) for c in line if c in "\x1b\u202e"]


def test_what_is_not_finite_is_shown(tmp_path: Path) -> None:
    with writer_of(tmp_path / "hc", make_trace()) as writer:
        for step, value in ((1, 1.0), (2, np.inf), (3, np.nan)):
            values = np.ma.MaskedArray([value] * 6, mask=False)
            writer.write(step, {GAIN: values}, {"loss": value})
    lines = frame_at(tmp_path / "hc")
    assert next(line for line in lines if line.startswith(GAIN)).split()[-1] == "▁∞!"
    assert next(line for line in lines if line.startswith("loss")).split()[-1] == "▁∞!"


class Screen(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_frame_is_sent_only_when_something_changed(
    hc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, trace, sent = Screen(), make_trace(L=122), []
    monkeypatch.setattr(sys, "stdout", screen)
    now = time.time()

    def sleep(seconds: float) -> None:
        assert seconds == 2.0
        sent.append(len(screen.getvalue()))
        if len(sent) == 3:
            with writer_of(hc, trace) as writer:
                record(writer, 40, trace)
        if len(sent) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        sys.modules["mhc_diag_cli.watch"], "time", SimpleNamespace(sleep=sleep, time=lambda: now)
    )
    with pytest.raises(SystemExit) as end:
        main(["watch", str(hc)])
    assert end.value.code == 0
    first, second, third, fourth, fifth = sent
    assert 0 < first == second == third < fourth == fifth
    assert "step 40" in screen.getvalue()


class Terminal:
    """A process whose stdout is a terminal of 80 columns, and what it has written so far."""

    def __init__(self, *words: str) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self.main, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "mhc_diag_cli.app", *words]
        environment = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=subprocess.PIPE, env=environment
        )
        os.close(child)
        os.set_blocking(self.main, False)
        self.seen = b""

    def read(self) -> str:
        try:
            while chunk := os.read(self.main, 65536):
                self.seen += chunk
        except OSError:  # nothing there now, or the process has ended
            return self.seen.decode(errors="replace")
        return self.seen.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        """Return when ``text`` was written; fail after a minute."""
        self.until(lambda: text in self.read())

    def until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(600):
            if is_so():
                return
            time.sleep(0.1)
        raise AssertionError(self.read())

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.main)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal("watch", str(tmp_path / "hc"), "-n", "1")
    yield opened
    opened.close()


@pytest.mark.slow
def test_a_run_is_awaited_followed_and_left_with_ctrl_c(terminal: Terminal, tmp_path: Path) -> None:
    terminal.wait_for("waiting for the run")
    trace = make_trace()
    with writer_of(tmp_path / "hc", trace) as writer:
        record(writer, 7, trace)
        terminal.wait_for("step 7")
        with (tmp_path / "hc" / "stats.jsonl").open("ab") as file:
            file.write(b'{"step": 8, "torn')
    with writer_of(tmp_path / "hc", trace) as writer:
        record(writer, 9, trace)
        terminal.wait_for("step 9")
    assert terminal.interrupt() == 0
    assert "step 8" not in terminal.read()
    assert terminal.read().endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.slow
def test_leaving_before_anything_was_seen_is_130(terminal: Terminal) -> None:
    terminal.wait_for("waiting for the run")
    assert terminal.interrupt() == 130
