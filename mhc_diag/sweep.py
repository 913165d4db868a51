"""The checkpoints of one training run -> a run folder, several at a time where that helps.

Every checkpoint is measured by itself, by :func:`measured`: a path goes in, numbers come out, so
any engine may run it. One process writes the run. What was recorded before is not measured again,
so a sweep that was broken off goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from mhc_diag import documents, entries
from mhc_diag.analysis import chains_of
from mhc_diag.comparison import Failure
from mhc_diag.errors import CoverageError, MhcDiagError, MissingExtraError, OptionError, RunError
from mhc_diag.metrics import measure
from mhc_diag.pipeline import Wishes, trace_of
from mhc_diag.runs.layout import DEFAULT_IDS, RUN, difference, identity_of, make_header
from mhc_diag.runs.plan import Planned
from mhc_diag.runs.read import load_run
from mhc_diag.runs.store import RunWriter
from mhc_diag.trace import Site


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What is recorded of one checkpoint: a few kilobytes, whatever its size."""

    path: str
    step: int
    values: Mapping[str, np.ma.MaskedArray[Any, Any]]
    sites: tuple[Site, ...]
    model: Mapping[str, Any]
    orientation: Mapping[str, Any]
    probe: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What became of a plan."""

    recorded: tuple[int, ...]
    """Steps that were measured and written, ascending."""
    failed: tuple[Failure, ...]
    """Checkpoints that could not be measured, or are of another model than the first."""


def sweep_checkpoints(
    planned: Sequence[Planned],
    run_dir: str | Path,
    *,
    wishes: Wishes | None = None,
    jobs: int | None = 1,
    allow_partial: bool = False,
    on_done: Callable[[int], None] | None = None,
) -> SweepResult:
    """Measure what the plan says and the run does not hold yet, and record it.

    Args:
        planned: from :func:`mhc_diag.runs.plan.plan_sweep`.
        run_dir: a new run, or one of the same model on the same probe.
        wishes: probe, adapter, settings; the static probe by default.
        jobs: processes; 1 measures here and needs no joblib, -1 takes all cores, and None leaves it
            to joblib, so that inside ``joblib.parallel_config(backend="dask")`` Dask measures.
        allow_partial: whether a checkpoint may lack sites.
        on_done: called with the step of each checkpoint that is done, in order.

    Raises:
        MissingExtraError: several processes without joblib.
        RunError: the run is of another model or on another probe.
        MhcDiagError: not one checkpoint could be measured; the error of the first.
    """
    todo = [each for each in planned if not each.is_recorded]
    if not todo:
        _require_same(planned, Path(run_dir), wishes or Wishes(), allow_partial=allow_partial)
    recorded: list[int] = []
    failed: list[tuple[Planned, MhcDiagError]] = []
    results = _results(todo, wishes or Wishes(), jobs, allow_partial)
    with _Run(Path(run_dir)) as run:
        for each, found in zip(todo, results, strict=True):
            trouble = run.add(found) if isinstance(found, Measured) else found
            if trouble is None:
                recorded.append(each.step)
            else:
                failed.append((each, trouble))
            if on_done is not None:
                on_done(each.step)
    if failed and not recorded:
        raise failed[0][1]
    return SweepResult(
        recorded=tuple(recorded),
        failed=tuple(
            Failure(label=each.path, asked=error.asked, came=error.came, do=error.do)
            for each, error in failed
        ),
    )


def measured(planned: Planned, wishes: Wishes, allow_partial: bool) -> Measured | MhcDiagError:
    """Measure one checkpoint; an error is returned, not raised, so that the others go on.

    Args:
        planned: which.
        wishes: how.
        allow_partial: whether it may lack sites.
    """
    try:
        trace = trace_of(planned.path, wishes)
        if not (trace.coverage.is_complete or allow_partial):
            raise CoverageError(
                f"sweep {planned.path!r}",
                f"{trace.coverage.measured} of {trace.coverage.expected} sites were measured",
                "Look with 'mhc-diag inspect', or pass --allow-partial (allow_partial=True).",
            )
        return Measured(
            path=planned.path,
            step=planned.step,
            values=measure(trace, DEFAULT_IDS),
            sites=trace.sites,
            model=entries.model_entry(trace.model, chains_of(trace)),
            orientation=documents.fields_of(trace.orientation),
            probe=documents.fields_of(trace.probe),
        )
    except MhcDiagError as error:
        return error


def _require_same(
    planned: Sequence[Planned], run_dir: Path, wishes: Wishes, *, allow_partial: bool
) -> None:
    """Nothing is left to do: one checkpoint shows that the run answers what is asked now.

    Raises:
        RunError: it is of another model, or on another probe.
        MhcDiagError: that checkpoint cannot be measured.
    """
    for each in planned[:1]:
        found = measured(each, wishes, allow_partial)
        if isinstance(found, MhcDiagError):
            raise found
        with _Run(run_dir) as run:
            run.open(found)


def _results(
    todo: Sequence[Planned],
    wishes: Wishes,
    jobs: int | None,
    allow_partial: bool,
) -> Iterable[Measured | MhcDiagError]:
    """One result per checkpoint, in order; as they come, where the engine can do that."""
    if jobs == 0:
        raise OptionError("sweep with 0 jobs", "nobody would measure", "Give 1 or more, or -1.")
    if jobs == 1:
        return (measured(each, wishes, allow_partial) for each in todo)
    try:
        import joblib
    except ImportError as error:
        raise MissingExtraError(
            "sweep in several processes",
            "that needs joblib, which is not installed",
            "pip install 'mhc-diag[sweep]', or leave --jobs out.",
        ) from error
    try:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator")
    except ValueError:  # multiprocessing and Ray hand out their results at the end alone
        parallel = joblib.Parallel(n_jobs=jobs)
    results: Iterable[Measured | MhcDiagError] = parallel(
        joblib.delayed(measured)(each, wishes, allow_partial) for each in todo
    )
    return results


class _Run:
    """The run folder, opened with the first result."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: RunWriter | None = None
        self._identity: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, found: Measured) -> RunError | None:
        """Record a result; what is wrong when it is of another model than the first.

        Raises:
            RunError: the folder holds the run of another model, or on another probe.
        """
        writer = self._writer or self.open(found)
        identity = _identity(found)
        for part, first in self._identity.items():
            if identity[part] != first:
                return RunError(
                    f"sweep {found.path!r}",
                    "it is of another model than the first checkpoint: "
                    + difference(part, first, identity[part]),
                    "Sweep the checkpoints of one training run.",
                )
        writer.write(found.step, found.values, probe=found.probe)
        return None

    def open(self, found: Measured) -> RunWriter:
        """Begin the run, or go on with it.

        Raises:
            RunError: the folder holds the run of another model, or on another probe.
        """
        self._require_probe(found)
        self._identity = _identity(found)
        self._writer = RunWriter(
            self.path, sites=found.sites, model=found.model, orientation=found.orientation
        )
        return self._writer

    def _require_probe(self, found: Measured) -> None:
        """Steps on different probes are not put into one run."""
        if not (self.path / RUN).exists():
            return
        wanted = documents.plain(found.probe)
        for probe in load_run(self.path, ids=()).probes:
            if dict(probe) != wanted:
                kind = probe.get("kind", "unknown")
                raise RunError(
                    f"sweep into the run {str(self.path)!r}",
                    f"its steps were measured on another probe: {difference(kind, probe, wanted)}",
                    "Choose another folder, or measure with the same options.",
                )


def _identity(found: Measured) -> dict[str, Any]:
    """What must be the same in all checkpoints of a run."""
    return identity_of(make_header(found.sites, found.model, DEFAULT_IDS, found.orientation))
