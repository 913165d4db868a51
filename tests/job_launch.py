"""Starts the ranks of a job as processes of their own, and reads what they left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 240.0
"""After so long all ranks are stopped."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What the ranks of one launch did."""

    folder: Path
    world: int
    codes: tuple[int, ...]
    """Exit codes."""
    printed: tuple[str, ...]

    def run(self, name: str) -> Path:
        """The run folder of a job that went well on all ranks."""
        for rank, said in enumerate(self.said(name)):
            assert "error" not in said, f"rank {rank}: {said['error']}"
        return self.folder / name

    def said(self, name: str) -> list[dict[str, Any]]:
        """What each rank reported of a job."""
        answers = []
        for rank in range(self.world):
            path = self.folder / f"{name}.{rank}.json"
            assert path.exists(), f"rank {rank} did not come through:\n{self.printed[rank]}"
            answers.append(json.loads(path.read_text()))
            assert "crash" not in answers[-1], f"rank {rank}:\n{answers[-1].get('crash')}"
        return answers


def launch(folder: Path, world: int, names: Sequence[str]) -> Launched:
    """Run the jobs one after another in ``world`` processes."""
    script = Path(__file__).with_name("distributed_jobs.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script] + [str(word) for word in (rank, world, folder, *names)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(rank + 1)},
        )
        for rank in range(world)
    ]
    try:
        printed = tuple(one.communicate(timeout=SECONDS)[0] for one in processes)
    finally:
        for one in processes:
            one.kill()
    codes = tuple(one.returncode for one in processes)
    return Launched(folder=folder, world=world, codes=codes, printed=printed)
