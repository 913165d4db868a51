"""``mhc-diag analyze``: one source, a table and a verdict."""

from __future__ import annotations

from typing import Annotated

import typer

from mhc_diag_cli import outputs
from mhc_diag_cli.measuring import inputs_of, measurer
from mhc_diag_cli.options import Files, Limiting, Measuring, Talking


def analyze(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Checkpoint, folder, trace or run.")
    ],
    *,
    measuring: Measuring,
    limiting: Limiting,
    files: Files,
    talking: Talking,
) -> None:
    """Measure one checkpoint, folder, trace or run: table and verdict.

    Exit 0 once every site is measured, whatever the verdict.
    """
    console = talking.console()
    outputs.check(files, inputs_of(measuring, source))
    analysis = measurer(measuring, console, limiting=limiting)(source)
    if not console.as_json:
        from mhc_diag_reports.terminal import analysis_table

        console.show(analysis_table(analysis))
    outputs.write(analysis, files, console)
    console.document(analysis.to_dict)
    if analysis.verdict == "not_measured":
        raise typer.Exit(2)
