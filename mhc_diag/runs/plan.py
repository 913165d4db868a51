"""Which checkpoints a sweep measures, and as which steps; nothing is measured here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mhc_diag.checkpoints.detect import detect
from mhc_diag.checkpoints.steps import STATE, step_of
from mhc_diag.errors import CheckpointError, OptionError
from mhc_diag.runs.layout import RUN
from mhc_diag.runs.read import load_run

_KINDS = frozenset({"torch-zip", "safetensors", "sharded-safetensors", "hf-folder", "npz", "trace"})
"""What a folder of checkpoints is searched for."""
_GIVEN = re.compile(r"(\d{1,15})=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One checkpoint of a sweep."""

    path: str
    step: int
    origin: str
    """Where the step stands: in the file, in trainer_state.json, in a name, or given."""
    is_recorded: bool = False
    """Whether the run holds that step already."""


def plan_sweep(sources: Iterable[str], run_dir: str | Path | None) -> tuple[Planned, ...]:
    """Find the step of every checkpoint.

    Args:
        sources: checkpoints, ``STEP=checkpoint``, or folders that hold checkpoints.
        run_dir: the run that will hold them; steps that it holds already are marked. None for a
            run that begins anew.

    Returns:
        By ascending step; a checkpoint that was named twice stands there once.

    Raises:
        CheckpointError: a source that is not there, or a folder without checkpoints.
        OptionError: no source, a checkpoint without a step, or two of one step.
        RunError: the run folder is damaged.
    """
    done = frozenset[int]()
    if run_dir is not None and (Path(run_dir) / RUN).exists():
        done = frozenset(load_run(run_dir, ids=()).steps.tolist())
    found: dict[int, Planned] = {}
    seen: set[Path] = set()
    for path, given in _expanded(sources):
        real = Path(path).resolve()
        if real in seen:
            continue
        seen.add(real)
        step, origin = (given, "given") if given is not None else _step(path)
        if step in found:
            other = found[step]
            raise OptionError(
                f"sweep {path!r}",
                f"it is of step {step} ({origin}), and so is {other.path!r} ({other.origin})",
                "Leave one of them out, or say which is which: STEP=FILE.",
            )
        found[step] = Planned(path=path, step=step, origin=origin, is_recorded=step in done)
    if not found:
        raise OptionError("sweep", "no checkpoint was given", "Name one or more.")
    return tuple(found[step] for step in sorted(found))


def _expanded(sources: Iterable[str]) -> Iterator[tuple[str, int | None]]:
    """Each checkpoint with the step that was given for it; folders of checkpoints opened."""
    for text in sources:
        given = None if Path(text).exists() else _GIVEN.fullmatch(text)
        path, step = (text, None) if given is None else (given[2], int(given[1]))
        if Path(path).is_file():  # a damaged one fails when it is measured, alone
            yield path, step
            continue
        try:
            detect(path)
        except CheckpointError:
            inside = _inside(Path(path)) if step is None else []
            if not inside:
                raise
            yield from ((each, None) for each in inside)
        else:
            yield path, step


def _inside(folder: Path) -> list[str]:
    """The checkpoints in a folder that is none itself."""
    if not folder.is_dir():
        return []
    return [str(path) for path in sorted(folder.iterdir()) if _is_checkpoint(path)]


def _is_checkpoint(path: Path) -> bool:
    try:
        return detect(path) in _KINDS
    except CheckpointError:  # a log, an empty folder: a search passes over them
        return False


def _step(path: str) -> tuple[int, str]:
    found = step_of(path)
    if found is None:
        raise OptionError(
            f"sweep {path!r}",
            f"its training step is not known: no step in the file, no {STATE} beside it, "
            "no number in its name",
            "Say it: STEP=FILE.",
        )
    return found
