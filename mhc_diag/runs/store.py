"""Writing a run: one process, append only, nothing that was recorded is ever lost.

Letters: L sites.

A record is one write of one line, so whoever reads meanwhile, or after kill -9, finds whole lines
and at most one torn one at the end; a writer that resumes removes the torn one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mhc_diag import documents
from mhc_diag.errors import OutputError, RunError, ShapeError
from mhc_diag.files import write_atomically
from mhc_diag.runs.layout import (
    DEFAULT_IDS,
    RUN,
    STATS,
    difference,
    identity_of,
    make_header,
    read_header,
)
from mhc_diag.runs.locking import try_lock
from mhc_diag.trace import Site

SYNC_SECONDS = 30.0
"""After so long a record is forced to disk, against loss of power; kill -9 never loses one."""


class RunWriter:
    """Records steps into a run folder; an existing run of the same model goes on.

    Args:
        path: the folder; made when missing. Other files in it stay.
        sites: all sites in execution order; empty for a model without hyper-connections.
        model: what identifies the model (adapter, family, width, ...), as in an analysis.
        ids: metric ids to record.
        orientation: how M is stored and how that was verified, as in an analysis.

    Raises:
        RunError: the folder holds another model's run, a damaged one, or one that is being written.
        OutputError: the folder cannot be made or written.
        OptionError: an id that does not exist.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        sites: Sequence[Site],
        model: Mapping[str, Any],
        ids: Sequence[str] = DEFAULT_IDS,
        orientation: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.ids, self.n_sites = tuple(ids), len(sites)
        header = make_header(sites, model, self.ids, orientation or {})
        self._descriptor: int | None = self._open()
        try:
            self._claim(header)
            self._end = _mend(self._descriptor)
        except BaseException:
            self.close()
            raise
        self._synced = time.monotonic()

    def write(
        self,
        step: int,
        values: Mapping[str, np.ndarray[Any, Any]] | None = None,
        scalars: Mapping[str, float] | None = None,
        *,
        probe: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one record; it has left this process when the call returns.

        Args:
            step: training step; recorded again, the later record counts.
            values: id -> [L], masked where not measured; ids that this run does not record are
                left out, recorded ids that are missing are null at every site.
            scalars: loss, gradient norm and the like.
            probe: what this step was measured on (kind, tokens, seed, inputs), as in an analysis.

        Raises:
            ShapeError: an array that is not [L].
            RunError: the writer is closed.
            OutputError: the disk is full or gone; the file ends after the last whole record.
        """
        record = {
            "step": int(step),
            "time": round(time.time(), 3),
            "scalars": documents.plain(
                {name: _number(value) for name, value in (scalars or {}).items()}
            ),
            "probe": dict(probe or {}),
            "values": {name: self._row(name, values or {}) for name in self.ids},
        }
        self._append(json.dumps(record, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Force everything to disk and let go of the folder; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _open(self) -> int:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return os.open(self.path / STATS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise OutputError(
                f"record a run in {str(self.path)!r}",
                error.strerror or str(error),
                "Choose a folder that can be written.",
            ) from error

    def _claim(self, header: Mapping[str, Any]) -> None:
        """Take the lock, then start the run or make sure that it is the same one."""
        assert self._descriptor is not None
        asked = f"record a run in {str(self.path)!r}"
        if not try_lock(self._descriptor):
            raise RunError(
                asked,
                "another writer is at work there",
                "Give every run a folder of its own; in a parallel job only one process writes.",
            )
        if not (self.path / RUN).exists():
            if os.fstat(self._descriptor).st_size:
                raise RunError(
                    asked,
                    f"it has {STATS} but no {RUN}",
                    f"Restore {RUN}, or choose a new folder; nothing was changed.",
                )
            write_atomically(self.path / RUN, documents.to_text(header).encode())
            return
        found, wanted = identity_of(read_header(self.path)), identity_of(header)
        if found != wanted:
            part = next(part for part in wanted if found[part] != wanted[part])
            raise RunError(
                asked,
                f"it holds another run: {difference(part, found[part], wanted[part])}",
                "Choose a new folder; a run is never mixed with another one.",
            )

    def _row(self, name: str, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
        row = values.get(name)
        if row is None:
            return [None] * self.n_sites
        if row.shape != (self.n_sites,):
            raise ShapeError(
                f"record {name!r} of a run with {self.n_sites} sites",
                f"an array of shape {list(row.shape)} came",
                "Give one number per site.",
            )
        if not np.ma.is_masked(row) and np.isfinite(row).all():
            return np.ma.getdata(row).tolist()  # the common case, without a look at each number
        return documents.plain(row)

    def _append(self, line: bytes) -> None:
        if self._descriptor is None:
            raise RunError(
                f"record a step in {str(self.path)!r}", "the run is closed", "Open it anew."
            )
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            self._end += len(line)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._descriptor)
                self._synced = time.monotonic()
        except OSError as error:
            os.ftruncate(self._descriptor, self._end)
            raise OutputError(
                f"record a step in {str(self.path)!r}",
                error.strerror or str(error),
                "Free some space; every record before this one is safe.",
            ) from error


def discard_run(path: str | Path) -> None:
    """Delete the run in a folder, and nothing else there; no run is no error.

    Raises:
        RunError: it is being written.
        OutputError: its files cannot be deleted.
    """
    folder = Path(path)
    asked = f"replace the run {str(folder)!r}"
    if not (folder / STATS).exists():
        (folder / RUN).unlink(missing_ok=True)
        return
    try:
        with (folder / STATS).open("ab") as stats:
            if not try_lock(stats.fileno()):
                raise RunError(
                    asked,
                    "another writer is at work there",
                    "Stop it first, or choose a new folder.",
                )
            (folder / RUN).unlink(missing_ok=True)
        (folder / STATS).unlink()
    except OSError as error:
        raise OutputError(asked, error.strerror or str(error), "Choose a new folder.") from error


def _mend(descriptor: int) -> int:
    """Cut off a torn last line; returns where the file ends. ``kill -9`` in mid-write left it."""
    size = os.fstat(descriptor).st_size
    with os.fdopen(os.dup(descriptor), "rb") as file:
        end = size
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _number(value: Any) -> float:
    """A scalar as a float; a tensor of one element too."""
    return float(value)
