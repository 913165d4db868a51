"""``mhc-diag gate``: one source against limits; the exit code is the answer."""

from __future__ import annotations

from typing import Annotated

import typer

from mhc_diag_cli import outputs
from mhc_diag_cli.measuring import inputs_of, measurer
from mhc_diag_cli.options import Files, Limiting, Measuring, Talking
from mhc_diag_cli.values import bounds, gain_limit


def gate(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Checkpoint, folder, trace or run.")
    ],
    *,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail too when the gain is only held down by cancellation or averaging.",
            rich_help_panel="Limits",
        ),
    ] = False,
    measuring: Measuring,
    limiting: Limiting,
    files: Files,
    talking: Talking,
) -> None:
    """Hold one source against limits: exit 0 within, 1 broken, 2 not measured."""
    from mhc_diag.limits import gate as hold

    console = talking.console()
    outputs.check(files, inputs_of(measuring, source))
    maxima, minima = bounds("--max", limiting.max), bounds("--min", limiting.min)
    max_gain = gain_limit(limiting.max_gain)
    result = hold(
        measurer(measuring, console)(source),
        max_gain=max_gain,
        maxima=maxima,
        minima=minima,
        strict=strict,
        probe_written=measuring.probe is not None,
    )
    if not console.as_json:
        from mhc_diag_reports.terminal import gate_table

        console.show(gate_table(result))
    outputs.write(result, files, console)
    console.document(result.to_dict)
    raise typer.Exit(result.exit_code)
