"""What a record costs: append time, memory and size over many recorded steps.

    python benchmarks/run_store.py [--records 10000] [--sites 122]

Beside ours: the same line of JSON by a bare ``file.write`` and flush, which is the floor for
any store that keeps a readable line per step.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.runs.read import load_run
from mhc_diag.runs.store import RunWriter
from mhc_diag.trace import Site


def peak_megabytes() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--sites", type=int, default=122)
    options = parser.parse_args()
    sites = [Site(index=i, chain="main", name=f"layers.{i}.hc") for i in range(options.sites)]
    generator = np.random.default_rng(0)
    rows = {
        name: np.ma.MaskedArray(generator.lognormal(size=options.sites), mask=False)
        for name in DEFAULT_IDS
    }
    with tempfile.TemporaryDirectory() as folder:
        ours, memory = [], []
        with RunWriter(Path(folder) / "run", sites=sites, model={"family": "mhc"}) as writer:
            for step in range(options.records):
                started = time.perf_counter()
                writer.write(step, rows, {"loss": 1.0, "grad_norm": 2.0})
                ours.append(time.perf_counter() - started)
                if step in (options.records // 10, options.records - 1):
                    memory.append(peak_megabytes())
        stats = Path(folder) / "run" / "stats.jsonl"
        line = stats.open(encoding="utf-8").readline()
        floor = []
        with (Path(folder) / "floor").open("w", encoding="utf-8") as file:
            record = json.loads(line)
            for _ in range(min(1000, options.records)):
                started = time.perf_counter()
                file.write(json.dumps(record) + "\n")
                file.flush()
                floor.append(time.perf_counter() - started)
        size = stats.stat().st_size
        started = time.perf_counter()
        steps = len(load_run(Path(folder) / "run").steps)
        reading = time.perf_counter() - started
    print(f"{options.records} records of {options.sites} sites and {len(DEFAULT_IDS)} ids")
    median, slow = np.median(ours) * 1e3, np.quantile(ours, 0.99) * 1e3
    print(f"  append: median {median:.3f} ms, p99 {slow:.3f} ms")
    print(f"  over a bare json.dumps and write: {np.median(ours) / np.median(floor):.2f}")
    print(f"  peak memory after a tenth {memory[0]:.0f} MB, at the end {memory[1]:.0f} MB")
    print(
        f"  {size / options.records / 1e3:.1f} kB per record; {steps} steps read in {reading:.2f} s"
    )


if __name__ == "__main__":
    main()
