"""The ``mhc-diag`` command: gathers the commands, and turns every end into an exit code.

====  ============================================================================================
0     measured; for ``gate``: within every limit; for ``inspect``: the file could be read
1     ``gate``: a limit is broken
2     could not measure: the input, an option, nothing found, or not everything measured
3     a bug in mhc-diag
130   interrupted
====  ============================================================================================
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from mhc_diag import __version__
from mhc_diag.errors import MhcDiagError
from mhc_diag_cli import console, outputs
from mhc_diag_cli.analyze import analyze
from mhc_diag_cli.compare import compare
from mhc_diag_cli.demo import demo
from mhc_diag_cli.export import export
from mhc_diag_cli.gate import gate
from mhc_diag_cli.grouping import grouped
from mhc_diag_cli.inspect import inspect
from mhc_diag_cli.listing import adapters, metrics, rules
from mhc_diag_cli.quick import without_pydantic
from mhc_diag_cli.report import report
from mhc_diag_cli.sweep import sweep
from mhc_diag_cli.watch import watch

app = typer.Typer(
    name="mhc-diag",
    help="The stability microscope for models with hyper-connections.",
    epilog="Exit codes: 0 measured, 1 gate: a limit is broken, 2 could not measure, 3 a bug.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    *(analyze, compare, gate, inspect),
    *(watch, report, export, sweep),
    *(metrics, adapters, rules, demo),
)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
for command in COMMANDS:
    app.command()(grouped(command))


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mhc-diag {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_the_program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code.

    Args:
        arguments: the words after ``mhc-diag``; those of the process by default.

    Raises:
        SystemExit: always, with 0, 1, 2, 3 or 130.
    """
    for stream in (sys.stdout, sys.stderr):
        console.prepare(stream)
    if console.is_plain(sys.stdout):
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"  # read by typer, before it prints help
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        _run(["--help"])
        sys.exit(2)
    outputs.WORDS.set(tuple(words))
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    """Run one command; every error becomes one paragraph and a code."""
    try:
        program = without_pydantic(get_command(app))
        code = program.main(args=words, prog_name="mhc-diag", standalone_mode=False)
        console.finish()
    except KeyboardInterrupt:
        code = 130
    except (Exception, SystemExit) as error:  # noqa: BLE001  the one place that catches everything
        if _is_cut_help(error, words):
            return 0
        reason = _reason(error, words)
        _explain(reason, error, words)
        return reason.exit_code
    if code == 130:
        console.print_error("interrupted")
    return code if isinstance(code, int) else 0


def _is_cut_help(error: BaseException, words: list[str]) -> bool:
    """Whether ``--help | head`` was read as far as somebody wanted: typer then exits with 1."""
    closed = isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    return closed and bool({"-h", "--help"} & set(words))


def _reason(error: BaseException, words: list[str]) -> MhcDiagError:
    """The error as its reader needs it; what nobody raised on purpose is a bug."""
    command = " ".join(["mhc-diag", *words[:2]])
    if isinstance(error, MhcDiagError):
        return error
    if isinstance(error, SystemExit):  # a model that calls exit(0) must not pass for a passed gate
        came = f"code that it called ended the process (exit {error.code})"
        return MhcDiagError(command, came, "Look for exit() in the model or its inputs.")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:  # help, which typer prints
        return console.cannot_write(error)
    if isinstance(error, MemoryError):
        do = "Measure fewer tokens (--tokens), a smaller input, or on a larger machine."
        return MhcDiagError(command, "the machine ran out of memory", do)
    if callable(getattr(error, "format_message", None)):  # typer's and click's usage errors
        return _usage(error)
    return _bug(error)


def _explain(reason: MhcDiagError, error: BaseException, words: list[str]) -> None:
    """Show an error where its reader looks."""
    options = words[: words.index("--")] if "--" in words else words
    if "--traceback" in options:
        traceback.print_exception(error)
    if "--json" in options and not isinstance(reason, console.StreamError):
        try:
            console.print_json(error_document(reason))
        except console.StreamError as full:
            reason = full
        else:
            return
    console.print_error(" ".join(f"mhc-diag: {reason}".split()))


def error_document(error: MhcDiagError) -> dict[str, object]:
    """The error as ``mhc-diag/error/1``, with what is too long for a terminal."""
    more = "".join(f". {note}" for note in getattr(error, "__notes__", ()))
    return {
        "schema": "mhc-diag/error/1",
        "asked": error.asked,
        "came": f"{error.came}{more}",
        "do": error.do,
        "exit": error.exit_code,
    }


class BugError(MhcDiagError):
    """An exception that nobody raised on purpose."""

    exit_code = 3


def _bug(error: BaseException) -> MhcDiagError:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return BugError(
        "a bug in mhc-diag",
        text,
        "Please report it to the project with the command, "
        f"what it prints with --traceback, and the version ({__version__}).",
    )


def _usage(error: Any) -> MhcDiagError:
    """What is wrong with the command line, and which help to read."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mhc-diag"
    asked = path.removeprefix("mhc-diag").strip() or "the command line"
    return MhcDiagError(asked, error.format_message().strip().rstrip(".?"), f"See '{path} --help'.")


if __name__ == "__main__":
    main()
