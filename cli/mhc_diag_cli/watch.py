"""``mhc-diag watch``: a run that is training, as it stands."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from mhc_diag_cli.measuring import limits
from mhc_diag_cli.options import Limiting, Talking

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mhc_diag.analysis import Analysis
    from mhc_diag.rules.records import Limit
    from mhc_diag.runs.follow import Follower, Snapshot


def watch(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder; it need not exist yet.")],
    *,
    once: Annotated[
        bool,
        typer.Option("--once", help="Print one frame and leave; so it does without a terminal."),
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", "-n", min=1.0, metavar="SECONDS", help="Time between two looks."
        ),
    ] = 2.0,
    limiting: Limiting,
    talking: Talking,
) -> None:
    """Show a run while it trains: worst gains, trends, loss, verdict. Ctrl-C leaves, with exit 0.

    Only what was appended since the last look is read; the screen is drawn anew only when
    something changed.
    """
    from mhc_diag.runs.follow import Follower

    console = talking.console()
    view = _View(Follower(run), limits(limiting))
    if sys.stdout.isatty() and not (once or console.as_json):
        _follow(view, interval)
        return
    analysis = view.require(sites=console.as_json)
    console.show(view.frame(shutil.get_terminal_size().columns))
    if analysis is not None:
        console.document(analysis.to_dict)
        if analysis.verdict == "not_measured":
            raise typer.Exit(2)


def frame_of(run: str) -> RenderableType:
    """One frame of a run that has records.

    Raises:
        RunError: it has none.
    """
    from mhc_diag.runs.follow import Follower

    view = _View(Follower(run), None)
    view.require(sites=False)
    return view.frame(shutil.get_terminal_size().columns)


class _View:
    """The run's last look, and the analysis of its last record."""

    def __init__(self, follower: Follower, bounds: dict[str, Limit] | None) -> None:
        self.follower, self.bounds = follower, bounds
        self.snapshot: Snapshot | None = None
        self.analysis: Analysis | None = None

    def look(self) -> None:
        """Read what is new."""
        snapshot = self.follower.poll()
        if snapshot is not self.snapshot:
            self.analysis = self._analysed(snapshot) if snapshot and snapshot.latest.sites else None
        self.snapshot = snapshot

    def require(self, *, sites: bool) -> Analysis | None:
        """The analysis of the last record; None for a model without hyper-connections.

        Raises:
            RunError: there is no run, or nothing was recorded yet.
            NoHyperConnectionsError: there must be sites, and there are none.
        """
        from mhc_diag.errors import RunError
        from mhc_diag.runs.layout import read_header

        self.look()
        if self.snapshot is None:
            path = self.follower.path
            read_header(path)
            raise RunError(
                f"watch the run {str(path)!r}",
                "it holds no recorded step yet",
                "Watch it in a terminal, where it is waited for, or try again later.",
            )
        return self._analysed(self.snapshot) if sites else self.analysis

    def frame(self, width: int) -> RenderableType:
        """What the terminal shows."""
        from mhc_diag_reports.watching import run_frame, waiting_frame

        path = self.follower.path
        if self.snapshot is None:
            begun = (path / "run.json").exists()
            why = "no step was recorded yet" if begun else "there is no run.json yet"
            return waiting_frame(str(path), why=why)
        return run_frame(self.snapshot, self.analysis, now=time.time(), width=width)

    def _analysed(self, snapshot: Snapshot) -> Analysis:
        from mhc_diag.recorded import analysis_of_row

        return analysis_of_row(snapshot.latest, 0, limits=self.bounds)


def _follow(view: _View, interval: float) -> None:
    """Draw until Ctrl-C, which is how one leaves a viewer.

    Raises:
        KeyboardInterrupt: nothing was ever seen, so that leaving is giving up.
    """
    from rich.console import Console as RichConsole
    from rich.live import Live

    rich = RichConsole(file=sys.stdout, markup=False, highlight=False, emoji=False)
    drawn = None
    with Live(console=rich, auto_refresh=False) as live:
        try:
            while True:
                view.look()
                frame = view.frame(rich.width)
                lines = rich.render_lines(frame, pad=False)
                if lines != drawn:  # over a slow link nothing is sent twice
                    live.update(frame, refresh=True)
                    drawn = lines
                time.sleep(interval)
        except KeyboardInterrupt:
            if view.snapshot is None:
                raise
