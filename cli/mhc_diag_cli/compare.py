"""``mhc-diag compare``: two or more sources side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mhc_diag.errors import MhcDiagError, OptionError
from mhc_diag_cli import outputs
from mhc_diag_cli.console import print_error
from mhc_diag_cli.measuring import inputs_of, measurer
from mhc_diag_cli.options import Files, Limiting, Measuring, Talking
from mhc_diag_cli.stored import histories_behind
from mhc_diag_cli.values import labelled

if TYPE_CHECKING:
    from mhc_diag.analysis import Analysis
    from mhc_diag.comparison import Comparison


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[LABEL=]SOURCE...",
            help="Two or more sources; RUN@STEP is one step of a run.",
            show_default=False,
        ),
    ],
    *,
    measuring: Measuring,
    limiting: Limiting,
    files: Files,
    talking: Talking,
) -> None:
    """Measure two or more sources and show them side by side.

    A source that cannot be measured is exit 2; the others are still shown.
    """
    named = labelled(sources)
    if len(named) == 1:
        do = "Give two or more, or use 'mhc-diag analyze' for one."
        raise OptionError(f"compare {sources[0]!r}", "there is nothing beside it", do)
    console = talking.console()
    outputs.check(files, inputs_of(measuring, *(source for _, source in named)))
    comparison = _compared(named, measurer(measuring, console, limiting=limiting))
    if not console.as_json:
        from mhc_diag_reports.terminal import comparison_table

        console.show(comparison_table(comparison))
    runs = histories_behind(comparison, console) if files.output else []
    outputs.write(comparison, files, console, runs=runs)
    console.document(comparison.to_dict)
    for each in () if console.as_json else comparison.failed:
        print_error(f"mhc-diag: {each.asked}: {each.came}. {each.do}")
    if comparison.failed or any(a.verdict == "not_measured" for a in comparison.analyses):
        raise typer.Exit(2)


def _compared(named: Sequence[tuple[str, str]], measure: Callable[[str], Analysis]) -> Comparison:
    """Every source that can be measured, side by side; the others by their errors.

    Raises:
        MhcDiagError: none could be measured; the first error.
    """
    from mhc_diag.comparison import Failure, compare, default_labels

    measured: list[tuple[str, Analysis]] = []
    failed: list[Failure] = []
    first: MhcDiagError | None = None
    for label, source in named:
        try:
            measured.append((label, measure(source)))
        except MhcDiagError as error:
            first = first or error
            name = label or source
            failed.append(Failure(label=name, asked=error.asked, came=error.came, do=error.do))
    if first is not None and not measured:
        raise first
    defaults = default_labels([analysis.source for _, analysis in measured])
    labels = [label or short for (label, _), short in zip(measured, defaults, strict=True)]
    together = compare(*(analysis for _, analysis in measured), labels=labels)
    return replace(together, failed=tuple(failed))
