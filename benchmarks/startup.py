"""How long a static analysis waits before it measures: ``python benchmarks/startup.py``.

The peer is what the command cannot do without: ``python -c 'import numpy, typer, rich.table'``.
Both run in fresh processes, one after the other in turn, so that a busy machine slows both; the
median of each, their difference and their ratio are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BARE = [sys.executable, "-c", "import numpy, typer, rich.table"]
# What an installed package has: compiled modules. One thread: threads would only wait here.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
ENVIRONMENT["OMP_NUM_THREADS"] = "1"
COMMAND = str(Path(sys.executable).with_name("mhc-diag"))
CASES = {
    "analyze examples/hc.pt": [COMMAND, "analyze", str(ROOT / "examples" / "hc.pt")],
    "inspect examples/hc.pt": [COMMAND, "inspect", str(ROOT / "examples" / "hc.pt")],
    "--help": [COMMAND, "--help"],
}


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - start


def main() -> None:
    """Run every case in turn with the peer, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for command in (BARE, *CASES.values()):
        seconds(command)  # the first run fills the caches
    times: dict[str, list[float]] = {name: [] for name in ("bare imports", *CASES)}
    for _ in range(rounds):
        times["bare imports"].append(seconds(BARE))
        for name, command in CASES.items():
            times[name].append(seconds(command))
    bare = statistics.median(times["bare imports"])
    print(f"{'command':<24} {'median s':>9} {'above s':>9} {'ratio':>6}   ({rounds} rounds)")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<24} {median:9.3f} {median - bare:9.3f} {median / bare:6.2f}")


if __name__ == "__main__":
    main()
