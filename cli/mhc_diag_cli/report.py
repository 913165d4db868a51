"""``mhc-diag report``: stored runs, depth x training steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mhc_diag.errors import OptionError
from mhc_diag_cli import outputs
from mhc_diag_cli.listing import show
from mhc_diag_cli.measuring import limits
from mhc_diag_cli.options import Files, Limiting, RunFiles, Talking
from mhc_diag_cli.stored import entry_of, histories
from mhc_diag_cli.values import labelled

if TYPE_CHECKING:
    from mhc_diag.comparison import Comparison
    from mhc_diag.rules.records import Limit
    from mhc_diag.runs.read import RunHistory


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="[LABEL=]RUN...", help="Run folders.", show_default=False),
    ],
    *,
    limiting: Limiting,
    drawn: RunFiles,
    talking: Talking,
) -> None:
    """Draw stored runs with -o, depth x training steps, and say what they hold.

    The verdict is that of each run's last step.
    """
    console = talking.console()
    files = Files(output=drawn.output)
    _refuse_traces(drawn)
    outputs.check(files, [path for _, path in labelled(runs)])
    bounds = limits(limiting)
    found = histories(runs, console)
    outputs.write(_last_steps(found, bounds), files, console, runs=found)
    show("runs", [entry_of(history) for history in found], console)
    if not files.output:
        console.note("nothing was drawn: name a file, as in -o report.html")


def _refuse_traces(drawn: RunFiles) -> None:
    """A run holds readings; what they were read from is gone.

    Raises:
        OptionError: a trace is asked for.
    """
    from mhc_diag.render import TRACE_SUFFIX

    for name in drawn.output or ():
        if name.endswith(TRACE_SUFFIX):
            came = "a run holds readings, and a trace holds matrices"
            do = "Analyze one of the run's checkpoints and write its trace."
            raise OptionError(f"write {name!r}", came, do)


def _last_steps(found: Sequence[RunHistory], bounds: dict[str, Limit] | None) -> Comparison:
    """The last step of each run that has any; a run without sites lends its loss alone."""
    from mhc_diag.comparison import Comparison, compare
    from mhc_diag.recorded import analysis_of_row

    analyses = {
        history.label: analysis_of_row(history, -1, limits=bounds)
        for history in found
        if history.sites and len(history.steps)
    }
    if not analyses:
        return Comparison(labels=(), analyses=(), differences=(), rows={})
    return compare(*analyses.values(), labels=list(analyses))
