"""Following a run while it grows: each look reads only what was appended since the last one.

Letters: L sites, S recorded steps.

Of every step the worst value of each id is kept, of the last record all of it. A torn last line is
read again at the next look, when it is whole. A run that is replaced by another one is followed
from its beginning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mhc_diag.errors import RunError
from mhc_diag.metrics import find_metric
from mhc_diag.rules.case import worst
from mhc_diag.runs.layout import RUN, STATS, read_header, sites_of
from mhc_diag.runs.lines import Record, parse
from mhc_diag.runs.read import RunHistory, history_of
from mhc_diag.trace import Site

FIRST_BYTES = 64 * 2**20
"""Of a file that is larger when the following begins, only the end is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The worst value of one id over the sites that count, and the site's index."""

    value: float
    site: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """A run as it stands: the record that was written last, and the way there."""

    latest: RunHistory
    """The last record alone, S = 1."""
    now: Mapping[str, Worst | None]
    """Metric id -> worst value of the last record; None where nothing was measured."""
    steps: tuple[int, ...]
    """Recorded steps up to the last one, ascending; steps beyond it, which a training that went
    back to an earlier checkpoint left behind, are not among them."""
    times: tuple[float, ...]
    """When each of them was recorded, seconds since 1970."""
    worst: Mapping[str, tuple[float | None, ...]]
    """Metric id -> worst value at each of them."""
    scalars: Mapping[str, tuple[float | None, ...]]
    """loss, grad_norm, ... at each of them; None where a step did not record it."""
    is_whole: bool
    """Whether the steps begin with the run's first; a very long run is read from its end."""
    n_damaged: int
    """Lines that could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """What is kept of one step."""

    time: float
    worst: Mapping[str, Worst | None]
    scalars: Mapping[str, float]


class Follower:
    """Reads a run folder again and again; the run need not have begun.

    Args:
        path: the run folder.
        first_bytes: how much of a long file the first look reads.
    """

    def __init__(self, path: str | Path, *, first_bytes: int = FIRST_BYTES) -> None:
        self.path, self.first_bytes = Path(path), first_bytes
        self._snapshot: Snapshot | None = None
        self._restart(None)

    def poll(self) -> Snapshot | None:
        """Look at the run: the same object while nothing new was recorded, None before the first.

        Raises:
            RunError: the path is no folder, run.json is damaged, or a file cannot be read.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(
                f"watch {str(self.path)!r}",
                "it is no folder",
                f"A run is a folder with {RUN} and {STATS}.",
            )
        try:
            lines = self._appended()
        except FileNotFoundError:  # not begun yet, or just being replaced
            self._restart(None)
            return None
        except OSError as error:
            raise RunError(
                f"watch the run {str(self.path)!r}",
                error.strerror or str(error),
                "Check its permissions.",
            ) from error
        fresh = [record for line in lines if (record := self._read(line)) is not None]
        if fresh:
            self._snapshot = self._look(fresh[-1])
        return self._snapshot

    def _restart(self, token: tuple[int, ...] | None) -> None:
        """Forget everything: there is no run, or another one."""
        self._token = token
        self._offset, self._n_damaged = 0, 0
        self._is_whole, self._is_inside = True, False
        self._points: dict[int, _Point] = {}
        self._snapshot = None
        self._header: dict[str, Any] = {}
        self._sites: tuple[Site, ...] = ()
        self._counted = np.zeros(0, dtype=bool)

    def _appended(self) -> list[bytes]:
        """Whole lines that were not there at the last look."""
        about = (self.path / RUN).stat()
        with (self.path / STATS).open("rb") as file:
            stats = os.fstat(file.fileno())
            token = (about.st_ino, about.st_mtime_ns, stats.st_ino)
            if token != self._token or stats.st_size < self._offset:
                self._restart(token)
                self._begin(stats.st_size)
            file.seek(self._offset)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self._offset += end
        lines = content[:end].splitlines()
        if self._is_inside and lines:  # reading began somewhere in this line
            self._is_inside = False
            del lines[0]
        return lines

    def _begin(self, size: int) -> None:
        """Read what does not change while the run grows, and see where to begin in its records."""
        if size > self.first_bytes:
            self._is_whole, self._is_inside = False, True
            self._offset = size - self.first_bytes
        self._header = read_header(self.path)
        self._sites = sites_of(self._header, self.path)
        chains = self._header["model"].get("chains", ())
        aside = {str(chain["name"]) for chain in chains if chain.get("auxiliary")}
        self._counted = np.array([site.chain not in aside for site in self._sites], dtype=bool)

    def _read(self, line: bytes) -> Record | None:
        """Keep what the trend needs of a line."""
        record = parse(line, len(self._sites))
        if record is None:
            self._n_damaged += 1
            return None
        self._points[record.step] = _Point(
            time=record.time,
            worst={name: self._worst(name, *row) for name, row in record.rows.items()},
            scalars=record.scalars,
        )
        return record

    def _worst(self, name: str, values: Any, missing: Any) -> Worst | None:
        seen = np.ma.MaskedArray(values, mask=missing | ~self._counted)
        found = worst(seen, "low" if find_metric(name).bad == "low" else "high")
        return None if found is None else Worst(value=found[0], site=found[1])

    def _look(self, last: Record) -> Snapshot:
        """Everything up to the record that was written last."""
        steps = sorted(step for step in self._points if step <= last.step)
        points = [self._points[step] for step in steps]
        latest = history_of(self.path, self._header, [last])
        scalars = sorted({name for point in points for name in point.scalars})
        return Snapshot(
            latest=latest,
            now=points[-1].worst,
            steps=tuple(steps),
            times=tuple(point.time for point in points),
            worst={
                name: tuple(
                    None if (seen := point.worst.get(name)) is None else seen.value
                    for point in points
                )
                for name in latest.values
            },
            scalars={name: tuple(point.scalars.get(name) for point in points) for name in scalars},
            is_whole=self._is_whole,
            n_damaged=self._n_damaged,
        )
