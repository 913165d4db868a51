"""``mhc-diag demo``: four small models trained, compared and gated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mhc_diag_cli import outputs
from mhc_diag_cli.console import Console
from mhc_diag_cli.options import Files, Talking

if TYPE_CHECKING:
    from rich.progress import TaskID

    from mhc_diag.zoo.demo import DemoResult, Progress


def demo(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Where models, runs and report go.")
    ] = "demo-report",
    *,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Training steps of each model.")
    ] = 150,
    seed: Annotated[int, typer.Option(metavar="N", help="Of weights and batches.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the runs of an earlier demo.")
    ] = False,
    talking: Talking,
) -> None:
    """Train a residual, an HC, an mHC and an mHC-lite model; report and gate them.

    They learn text that every Python installation has: nothing is downloaded.
    """
    from mhc_diag.zoo.demo import run_demo

    console = talking.console()
    with _monitor(console) as seen:
        result = run_demo(output, steps=steps, seed=seed, on_progress=seen, force=force)
    _conclude(result, output, console)


def _conclude(result: DemoResult, output: str, console: Console) -> None:
    """The report of all four, and the gate on each that has H_res."""
    from mhc_diag.comparison import compare
    from mhc_diag.limits import gate
    from mhc_diag.runs.read import load_run

    together = compare(*result.analyses.values(), labels=list(result.analyses))
    runs = [load_run(model.run, label=model.label) for model in result.models]
    gates = {label: gate(analysis) for label, analysis in result.analyses.items()}
    if not console.as_json:
        from rich.text import Text

        from mhc_diag_reports.terminal import comparison_table

        lines = [
            Text(f"gate {label}: {each.status} (exit {each.exit_code})")
            for label, each in gates.items()
        ]
        console.show(comparison_table(together), "", *lines)
    target = f"{output.rstrip('/')}/"
    outputs.write(together, Files(output=[target]), console, runs=runs)
    for model in result.models:
        console.note(f"kept {model.checkpoint} and {model.run}")
    console.note(f"open {Path(output) / 'report.html'}")
    console.document(together.to_dict)


@contextlib.contextmanager
def _monitor(console: Console) -> Iterator[Callable[[Progress], None] | None]:
    """A bar per model with its loss and its latest composite gain; None where none is shown."""
    if not console.shows_progress:
        with console.working("training"):
            yield None
        return
    import sys

    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.2f}  gain {task.fields[gain]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=RichConsole(file=sys.stderr)) as bars:
        tasks: dict[str, TaskID] = {}

        def seen(now: Progress) -> None:
            if now.label not in tasks:
                tasks[now.label] = bars.add_task(now.label, total=now.steps, loss=now.loss, gain="")
            gain = "-" if now.gain is None else f"{now.gain:.3g}"
            bars.update(tasks[now.label], completed=now.step, loss=now.loss, gain=gain)

        yield seen
