"""The files that ``-o`` names."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mhc_diag_cli.console import Console
from mhc_diag_cli.options import Files

WORDS: ContextVar[tuple[str, ...]] = ContextVar("words", default=())
"""The words after ``mhc-diag``; a report says by which command it was made."""


def command_line() -> str:
    """The command that is running, as a shell would take it."""
    return shlex.join(["mhc-diag", *WORDS.get()])


def check(files: Files, inputs: Iterable[str]) -> None:
    """Refuse an output of no known kind, or that would replace an input, before any measuring.

    Raises:
        OptionError: an unknown suffix.
        MissingExtraError: what draws this kind is not installed.
        OutputError: it would replace one of the command's inputs.
    """
    if files.output:
        from mhc_diag.render import check_target, refuse_inputs, refuse_source_folder

        read = list(inputs)
        for name in files.output:
            check_target(name)
            refuse_inputs(Path(name), read)
            refuse_source_folder(Path(name), read)


def write(
    sources: Any,
    files: Files,
    console: Console,
    *,
    runs: Sequence[Any] = (),
) -> None:
    """Write every file that ``-o`` names, and say so.

    Args:
        sources: an analysis, a list of them, a comparison, or what a gate said.
        files: the names.
        console: where to say it.
        runs: histories that belong into the report.

    Raises:
        OutputError: a file that cannot be written or must stay.
        MissingExtraError: what draws it is not installed.
    """
    for name in files.output or ():
        from mhc_diag.render import report

        with console.working(f"writing {name}"):
            written = report(sources, name, runs=runs, command=command_line(), force=files.force)
        console.note(f"wrote {written}")
