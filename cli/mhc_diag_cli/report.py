"""``mhc-diag report``: stored runs, depth x training steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mhc_diag_cli import outputs
from mhc_diag_cli.listing import show
from mhc_diag_cli.options import Files, Talking
from mhc_diag_cli.values import labelled

if TYPE_CHECKING:
    from mhc_diag.runs.read import RunHistory


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="[LABEL=]RUN...", help="Run folders.", show_default=False),
    ],
    *,
    files: Files,
    talking: Talking,
) -> None:
    """Draw stored runs with -o, depth x training steps, and say what they hold."""
    from mhc_diag.comparison import Comparison
    from mhc_diag.runs.read import load_run

    console = talking.console()
    named = labelled(runs)
    outputs.check(files, [path for _, path in named])
    with console.working("reading the runs"):
        histories = [load_run(path, label=label or None) for label, path in named]
    nothing_else = Comparison(labels=(), analyses=(), differences=(), rows={})
    outputs.write(nothing_else, files, console, runs=histories)
    show("runs", [_entry(history) for history in histories], console)
    if not files.output:
        console.note("nothing was drawn: name a file, as in -o report.html")


def _entry(history: RunHistory) -> dict[str, Any]:
    """What a run holds."""
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
