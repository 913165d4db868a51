"""What one rank does; started by job_launch.py, one process per rank."""

from __future__ import annotations

import json
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import jobs_that_fail
import jobs_that_work
import torch
import torch.distributed as dist
from job_registry import JOBS

import mhc_diag as md
from mhc_diag.runs import joint

assert jobs_that_fail.__doc__  # importing them fills JOBS
assert jobs_that_work.__doc__


def watch_gathers() -> list[list[int]]:
    """Per recorded step, how many tokens each rank that sent matrices sent."""
    gathered: list[list[int]] = []
    real = joint.gather

    def watched(part: Any) -> Any:
        parts = real(part)
        if parts is not None:
            gathered.append([p.trace.chains[0].n_tokens for p in parts if p.trace is not None])
        return parts

    joint.gather = watched
    return gathered


def count_exchanges() -> list[str]:
    """Names of the object collectives that are called, and those that run inside a hook."""
    called: list[str] = []
    for name in ("gather_object", "all_gather_object", "broadcast_object_list"):
        real = getattr(dist, name)

        def counted(*args: Any, _real: Any = real, _name: str = name, **kwargs: Any) -> Any:
            frames = traceback.extract_stack()
            inside = any(one.name in {"_call_impl", "forward"} for one in frames)
            called.append(f"{_name} in forward" if inside else _name)
            return _real(*args, **kwargs)

        setattr(dist, name, counted)
    return called


def main() -> None:
    rank, world, folder, *names = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=int(rank),
        world_size=int(world),
        timeout=timedelta(seconds=60),
    )
    called, gathered = count_exchanges(), watch_gathers()
    for name in names:
        called.clear()
        gathered.clear()
        said: dict[str, Any] = {}
        try:
            said["answer"] = JOBS[name](Path(folder) / name)
        except md.errors.MhcDiagError as error:
            said["error"] = [type(error).__name__, str(error)]
        except Exception:  # noqa: BLE001  told to the test
            said["crash"] = traceback.format_exc()
        said |= {"called": list(called), "gathered": list(gathered)}
        Path(folder, f"{name}.{rank}.json").write_text(json.dumps(said))
        if "crash" in said:
            break
        dist.barrier()
    if not any(name.endswith("dies") for name in names):
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
