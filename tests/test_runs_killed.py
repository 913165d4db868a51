"""kill -9 at random moments, two hundred times: no completed record is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from mhc_diag.runs.layout import DEFAULT_IDS, RUN
from mhc_diag.runs.read import load_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="writers are forked, not started anew"),
]

KILLS, PER_RUN, SITES = 200, 4, 122
NURSERY = f"""
import os, sys
import numpy as np
from mhc_diag.runs.store import RunWriter
from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.trace import Site

SITES = [Site(index=i, chain="main", name=f"blocks.{{i}}.hc") for i in range({SITES})]

def write(path, first):
    log = os.open(path + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = RunWriter(path, sites=SITES, model={{"family": "hc"}})
    for step in range(first, 10**9):
        values = {{name: np.full({SITES}, float(step)) for name in DEFAULT_IDS}}
        writer.write(step, values, {{"loss": step / 2}})
        os.write(log, b"%d\\n" % step)

with RunWriter(sys.argv[1], sites=SITES, model={{"family": "hc"}}) as warm:
    warm.write(0, {{}}, {{}})  # what is imported late is imported once
print("ready", flush=True)
for line in sys.stdin:
    path, first = line.rstrip("\\n").rsplit(" ", 1)
    child = os.fork()
    if child == 0:
        write(path, int(first))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def completed(path: Path) -> list[int]:
    """Steps whose write returned before the writer was killed."""
    log = path.with_name(f"{path.name}.log")
    return [int(step) for step in log.read_text().split()] if log.exists() else []


def test_two_hundred_kills_lose_no_completed_record(tmp_path: Path) -> None:
    chance = random.Random(20260806)
    command = [sys.executable, "-c", NURSERY, str(tmp_path / "warm")]
    n_completed = 0
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        assert nursery.stdout.readline() == "ready\n"
        for number in range(KILLS):
            path = tmp_path / f"run{number // PER_RUN}"
            first = 1_000_000 * (number % PER_RUN)
            nursery.stdin.write(f"{path} {first}\n")
            child = int(nursery.stdout.readline())
            time.sleep(chance.uniform(0.0, 0.04))
            os.kill(child, signal.SIGKILL)
            assert nursery.stdout.readline() == "gone\n"
        nursery.stdin.close()
    for number in range(KILLS // PER_RUN):
        path = tmp_path / f"run{number}"
        steps = completed(path)
        n_completed += len(steps)
        if not (path / RUN).exists():
            assert steps == []  # killed each time before the run was begun
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is torn and was left out")
            history = load_run(path)
        kept = set(history.steps.tolist())
        assert kept >= set(steps)
        assert len(kept - set(steps)) <= PER_RUN  # written, and killed before it was said
        for name in DEFAULT_IDS:
            whole = np.broadcast_to(history.steps[:, None], (len(history.steps), SITES))
            np.testing.assert_array_equal(np.ma.asarray(history.values[name]), whole)
        assert history.scalars["loss"].tolist() == (history.steps / 2).tolist()
    assert n_completed > KILLS  # most writers were in the middle of their work
