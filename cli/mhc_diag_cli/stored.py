"""Run folders named on the command line, read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhc_diag_cli.console import Console
from mhc_diag_cli.values import labelled

if TYPE_CHECKING:
    from mhc_diag.comparison import Comparison
    from mhc_diag.runs.read import RunHistory


def histories(
    texts: Sequence[str], console: Console, *, ids: Sequence[str] | None = None
) -> list[RunHistory]:
    """Read each ``[LABEL=]RUN``; runs without a label are called by their folders, all different.

    Raises:
        OptionError: the same label twice, or an id that a run does not have.
        RunError: no run folder, or one that is damaged.
    """
    named = labelled(texts)
    return [
        read_run(path, label, console, ids=ids)
        for label, (_, path) in zip(_labels(named), named, strict=True)
    ]


def histories_behind(comparison: Comparison, console: Console) -> list[RunHistory]:
    """The whole of each run of which a comparison shows a step, under the same label.

    A run of which it shows several steps is called by its folder.
    """
    labels: dict[str, str | None] = {}
    for label, analysis in zip(comparison.labels, comparison.analyses, strict=True):
        if analysis.source.format == "run":
            path = analysis.source.path
            labels[path] = None if path in labels else label
    return [read_run(path, label, console) for path, label in labels.items()]


def run_and_step(source: str) -> tuple[str, int | None]:
    """Split ``RUN@STEP``; any other source is whole, and no step was said."""
    path, at, step = source.rpartition("@")
    if at and step.isdecimal() and not Path(source).exists() and is_run(path):
        return path, int(step)
    return source, None


def read_run(
    path: str, label: str | None, console: Console, *, ids: Sequence[str] | None = None
) -> RunHistory:
    """One run; lines that were left out are told as any warning is."""
    from mhc_diag.runs.read import load_run

    with console.working(f"reading {path}"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_run(path, label=label, ids=ids)
    for each in caught:
        console.warn(str(each.message))
    return found


def _labels(named: Sequence[tuple[str, str]]) -> list[str]:
    from mhc_diag.comparison import default_labels
    from mhc_diag.trace import Source

    paths = [str(Path(path).resolve()) for _, path in named]
    defaults = default_labels([Source(path=path, format="run") for path in paths])
    return [label or short for (label, _), short in zip(named, defaults, strict=True)]


def is_run(path: str) -> bool:
    """Whether a path is a run folder."""
    return (Path(path) / "run.json").is_file()


def entry_of(history: RunHistory) -> dict[str, Any]:
    """What a run holds, as an entry of ``listing/1``."""
    steps = history.steps.tolist()
    return {
        "label": history.label,
        "path": history.path,
        "records": len(steps),
        "first_step": steps[0] if steps else None,
        "last_step": steps[-1] if steps else None,
        "sites": len(history.sites),
        "ids": list(history.values),
        "scalars": list(history.scalars),
    }
