"""``mhc-diag sweep``: the checkpoints of one training run become a run folder."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhc_diag.errors import OptionError, OutputError
from mhc_diag_cli.console import Console, print_error
from mhc_diag_cli.listing import show
from mhc_diag_cli.measuring import wishes_of
from mhc_diag_cli.options import Measuring, Talking
from mhc_diag_cli.stored import entry_of

if TYPE_CHECKING:
    from mhc_diag.runs.plan import Planned


def sweep(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[STEP=]SOURCE...",
            help="Checkpoints, or folders of checkpoints. The step is the file's own, that of "
            "trainer_state.json, or the last number in the name.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="RUN", help="Run folder, new or to go on with.")
    ],
    jobs: Annotated[
        int, typer.Option(min=-1, metavar="N", help="Processes; -1 for all cores.")
    ] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Begin the run anew; its records are deleted.")
    ] = False,
    measuring: Measuring,
    talking: Talking,
) -> None:
    """Measure the checkpoints of one training run, and record them as a run.

    Steps that the run holds already are not measured again.
    """
    from mhc_diag.pipeline import Wishes
    from mhc_diag.runs.plan import plan_sweep
    from mhc_diag.runs.store import discard_run
    from mhc_diag.sweep import sweep_checkpoints

    if measuring.step is not None:
        raise OptionError("sweep with --step", "every checkpoint has its own", "Leave it out.")
    console = talking.console()
    wishes = wishes_of(measuring)
    planned = plan_sweep(sources, None if force else output)
    _require_apart(output, planned)
    _say(planned, console)
    if force:
        discard_run(output)
    with _progress(console, sum(not each.is_recorded for each in planned)) as seen:
        result = sweep_checkpoints(
            planned,
            output,
            wishes=Wishes(**wishes),
            jobs=jobs,
            allow_partial=measuring.allow_partial,
            on_done=seen,
        )
    _conclude(output, console)
    for each in result.failed:
        print_error(f"mhc-diag: {each.asked}: {each.came}. {each.do}")
    if result.failed:
        raise typer.Exit(2)


def _require_apart(output: str, planned: Sequence[Planned]) -> None:
    """A run is not written into the folder of a checkpoint, which would then look like a run.

    Raises:
        OutputError: it would be.
    """
    inputs = {Path(each.path).resolve() for each in planned}
    if Path(output).resolve() in inputs:
        raise OutputError(
            f"record a run in {output!r}",
            "it is one of the checkpoints",
            "Choose another folder.",
        )


def _say(planned: Sequence[Planned], console: Console) -> None:
    """The plan: which file is which step, and why."""
    for each in planned:
        there = ", recorded already" if each.is_recorded else ""
        console.note(f"step {each.step:>8}  {each.path}  ({each.origin}{there})")


@contextlib.contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar with the number of checkpoints that are done; None where none is shown."""
    if not (console.shows_progress and total):
        with console.working("measuring"):
            yield None
        return
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=RichConsole(file=sys.stderr)) as bars:
        task = bars.add_task("measuring", total=total)

        def seen(step: int) -> None:
            bars.update(task, advance=1, description=f"step {step}")

        yield seen


def _conclude(output: str, console: Console) -> None:
    """The run as it now is: one frame as 'watch' shows it, or an entry of a listing."""
    from mhc_diag.runs.read import load_run

    if console.as_json:
        show("runs", [entry_of(load_run(output))], console)
        return
    from mhc_diag_cli.watch import frame_of

    console.show(frame_of(output))
