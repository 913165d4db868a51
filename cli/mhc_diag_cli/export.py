"""``mhc-diag export``: runs as one long table."""

from __future__ import annotations

from typing import Annotated

import typer

from mhc_diag_cli.listing import show
from mhc_diag_cli.options import Talking
from mhc_diag_cli.stored import entry_of, histories


def export(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="[LABEL=]RUN...", help="Run folders.", show_default=False),
    ],
    *,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Name of a .parquet or .csv file."),
    ],
    id: Annotated[  # noqa: A002  the option is called --id
        list[str] | None,
        typer.Option(
            "--id",
            metavar="PATTERN",
            help="Only these metric ids and scalars, as in 'composite.*.mean'; repeatable.",
        ),
    ] = None,
    talking: Talking,
) -> None:
    """Write stored runs as one long table: run, step, site, site_name, id, value."""
    from pathlib import Path

    from mhc_diag.render import refuse_inputs
    from mhc_diag.runs.export import export_runs

    console = talking.console()
    found = histories(runs, console, ids=id)
    refuse_inputs(Path(output), [history.path for history in found])
    with console.working(f"writing {output}"):
        rows = export_runs(found, output)
    console.note(f"wrote {output}: {rows} rows")
    if console.as_json:
        show("runs", [entry_of(history) for history in found], console)
