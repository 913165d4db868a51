"""Where text goes: results to stdout; progress, notes, warnings and errors to stderr.

With ``--json`` exactly one JSON object reaches stdout. While user code runs (a model's constructor
that prints its parameter count, say) stdout is lent to stderr, so nothing can get in between.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from mhc_diag.errors import OutputError

if TYPE_CHECKING:
    from rich.console import RenderableType

_INVISIBLE = {
    *range(0x20),  # C0 controls, escape sequences among them
    *range(0x7F, 0xA0),  # DEL and C1
    *range(0x200B, 0x2010),  # zero-width characters and direction marks
    *range(0x2028, 0x202F),  # line separators, direction overrides
    *range(0x2060, 0x2070),  # invisible operators, direction isolates
    0xFEFF,  # byte order mark
    *range(0xD800, 0xE000),  # surrogates: undecodable bytes of a file name
}
_VISIBLE = {code: ascii(chr(code))[1:-1] for code in _INVISIBLE}


def visible(text: str) -> str:
    r"""Return ``text`` with control and invisible characters written out.

    Names of tensors and files come from strangers; shown as they are they could move the cursor,
    colour the terminal or hide.

    >>> print(visible("h.0\x1b[31m.hc"))
    h.0\x1b[31m.hc
    """
    return text.translate(_VISIBLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What one command prints, and where."""

    as_json: bool = False
    """One JSON object on stdout instead of tables."""
    quiet: bool = False
    """Nothing on stderr but errors."""
    no_progress: bool = False
    """No progress display even where stderr is a terminal."""

    def show(self, *parts: RenderableType) -> None:
        """Print results to stdout, as rich renders them; their text is never read as markup."""
        if self.as_json:
            return
        from rich.console import Console as RichConsole

        rich = RichConsole(
            file=sys.stdout,
            markup=False,
            highlight=False,
            emoji=False,
            force_terminal=False if is_plain(sys.stdout) else None,
        )
        with rich.capture() as captured:  # rich itself would exit on a closed pipe
            for part in parts:
                rich.print(part)
        with _pipe_may_close(sys.stdout):
            print(captured.get(), end="", flush=True)  # noqa: T201  the console is the place that prints

    def document(self, make: Callable[[], Mapping[str, Any]]) -> None:
        """Print the one JSON object, where ``--json`` asked for it; only then is it made."""
        if self.as_json:
            print_json(make())

    def note(self, text: str) -> None:
        """Print one line to stderr: what was written, what was assumed."""
        if not self.quiet:
            _print_line(visible(text))

    def warn(self, text: str) -> None:
        """Print one warning to stderr."""
        self.note(f"warning: {text}")

    @contextlib.contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show ``text`` while something slow runs; meanwhile nobody else writes to stdout."""
        _quieten_libraries(progress=self.shows_progress, warnings=not self.quiet)
        with contextlib.ExitStack() as stack:
            if self.shows_progress:
                from rich.console import Console as RichConsole
                from rich.markup import escape

                rich = RichConsole(file=sys.stderr)
                stack.enter_context(rich.status(escape(visible(text))))
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            yield

    @property
    def shows_progress(self) -> bool:
        """Whether stderr is a terminal and nobody asked for silence."""
        return sys.stderr.isatty() and not (self.quiet or self.no_progress)


def print_json(content: Mapping[str, Any]) -> None:
    """Print one strict JSON object to stdout; it is ASCII, so that any terminal can carry it."""
    from mhc_diag.documents import to_text

    with _pipe_may_close(sys.stdout):
        print(to_text(content), end="", flush=True)  # noqa: T201  the console is the place that prints


def print_error(text: str) -> None:
    """Print one paragraph to stderr: one line, broken between words where a person reads it."""
    line = visible(text)
    if sys.stderr.isatty():
        line = textwrap.fill(line, shutil.get_terminal_size().columns)
    _print_line(line)


def _print_line(text: str) -> None:
    try:
        with _pipe_may_close(sys.stderr):
            print(text, file=sys.stderr, flush=True)  # noqa: T201  the console is the place that prints
    except StreamError:  # a full stderr: there is no place left to say so, the exit code must do
        return


def finish() -> None:
    """Send what is still on its way to stdout, so that its end is not left to the interpreter.

    Raises:
        StreamError: it cannot be written.
    """
    with _pipe_may_close(sys.stdout):
        sys.stdout.flush()


def is_plain(stream: TextIO) -> bool:
    """Whether NO_COLOR is set and nobody watches: then no control sequence has a meaning."""
    return bool(os.environ.get("NO_COLOR")) and not stream.isatty()


@contextlib.contextmanager
def _pipe_may_close(stream: TextIO) -> Iterator[None]:
    """Let ``mhc-diag metrics | head`` end in peace: the rest of the output goes nowhere.

    The exit code stays that of the command, so that a closed pipe never looks like a failed gate.

    Raises:
        StreamError: the stream cannot take the output, as on a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        _drop_rest(stream)
    except OSError as error:
        _drop_rest(stream)
        raise cannot_write(error) from error


class StreamError(OutputError):
    """A stream that takes nothing more, as on a full disk."""


def cannot_write(error: OSError) -> StreamError:
    """The error of a stream that takes nothing more."""
    why = error.strerror or str(error)
    do = "Make room there, or send the output elsewhere."
    return StreamError("print the result", f"the output cannot be written: {why}", do)


def _drop_rest(stream: TextIO) -> None:
    """Send what is left in the stream nowhere; the interpreter would fail on it at its end."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no file behind it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _quieten_libraries(*, progress: bool, warnings: bool) -> None:
    """Tell libraries that draw bars of their own, by the variables that they read, what we show."""
    if not progress:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
    if not warnings:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def prepare(stream: TextIO) -> None:
    """Make a stream print what its encoding lacks as an escape, instead of failing on it."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
