"""The options that commands share, as records (see :mod:`mhc_diag_cli.grouping`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from mhc_diag_cli.console import Console

_MEASURE, _LIMITS, _OUTPUT = "What is measured", "Limits", "Output"


class ProbeName(StrEnum):
    """What the matrices are measured on."""

    static = "static"
    isotropic = "isotropic"
    tokens = "tokens"


@dataclass(frozen=True, kw_only=True)
class Talking:
    """How the command talks; all commands have these."""

    json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_OUTPUT),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Only results and errors.", rich_help_panel=_OUTPUT),
    ] = False
    no_progress: Annotated[
        bool,
        typer.Option("--no-progress", help="No progress display.", rich_help_panel=_OUTPUT),
    ] = False
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Show where an error arose.", rich_help_panel=_OUTPUT),
    ] = False

    def console(self) -> Console:
        """The console that these options ask for."""
        return Console(as_json=self.json, quiet=self.quiet, no_progress=self.no_progress)


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files to write besides the terminal's table."""

    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write .html .png .pdf .svg .json .csv .parquet .md or .trace.safetensors, by its "
            "suffix; repeatable. A folder ('DIR/') gets report.html, pictures and analysis.json.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    force: Annotated[
        bool,
        typer.Option("--force", help="Let -o replace a trace.", rich_help_panel=_OUTPUT),
    ] = False


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Files to write of stored runs, which hold readings and no matrices."""

    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write .html .png .pdf .svg or .md, or the last step as .json .csv .parquet; "
            "repeatable. A folder ('DIR/') gets report.html, pictures and the last step.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is measured, and on what."""

    probe: Annotated[
        ProbeName | None,
        typer.Option(
            help="tokens: a real forward pass (needs a model and --inputs); static: parameters "
            "only, zero dynamic input; isotropic: seeded random streams. Default: tokens with a "
            "model and inputs, else static.",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:CALLABLE",
            help="Called with the checkpoint as a mapping; returns the model, weights loaded.",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|MODULE:CALLABLE",
            help="Token ids in .npy .pt .json, text in .txt, 'random:BxS', or a callable that "
            "returns the model's arguments.",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Tokens to measure, drawn by --seed.", rich_help_panel=_MEASURE
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(metavar="N", help="Seed of everything drawn.", rich_help_panel=_MEASURE),
    ] = 0
    device: Annotated[
        str,
        typer.Option(
            metavar="cpu|cuda|cuda:N", help="Where the model runs.", rich_help_panel=_MEASURE
        ),
    ] = "cpu"
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="See 'mhc-diag adapters'. Default: recognised.",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    tap: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=...",
            help="Take H_res from modules that no adapter knows, e.g. "
            r"'h.*.mix=output\[1]:M^T'; repeatable.",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What the weights do not say: sinkhorn_iters, eps, tau, orientation; repeatable.",
            rich_help_panel=_MEASURE,
        ),
    ] = None
    step: Annotated[
        int | None,
        typer.Option(metavar="N", help="Step of a run.", rich_help_panel=_MEASURE),
    ] = None
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial",
            help="A site that could not be measured is a warning, not exit 2.",
            rich_help_panel=_MEASURE,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class Limiting:
    """Limits of the verdict."""

    max_gain: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Limit on every composite.*.amax.mean; 2.0 when no limit is given.",
            rich_help_panel=_LIMITS,
        ),
    ] = None
    max: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=X",
            help="Upper limit on a metric id or pattern; repeatable.",
            rich_help_panel=_LIMITS,
        ),
    ] = None
    min: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=X",
            help="Lower limit on a metric id or pattern; repeatable.",
            rich_help_panel=_LIMITS,
        ),
    ] = None
