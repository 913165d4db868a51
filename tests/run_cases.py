"""Run folders for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from factories import make_trace

from mhc_diag import documents, entries
from mhc_diag.analysis import analysis_of, chains_of
from mhc_diag.metrics import measure
from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.runs.store import RunWriter
from mhc_diag.trace import Trace

GAIN = "composite.forward.amax.mean"


def writer_of(path: Path, trace: Trace) -> RunWriter:
    """Opens the run of a trace's model."""
    return RunWriter(
        path,
        sites=trace.sites,
        model=entries.model_entry(trace.model, chains_of(trace)),
        orientation=documents.fields_of(trace.orientation),
    )


def record(
    writer: RunWriter, step: int, trace: Trace, scalars: Mapping[str, float] | None = None
) -> None:
    """Appends a trace as the record of a step."""
    probe = documents.fields_of(trace.probe)
    writer.write(step, measure(trace, DEFAULT_IDS), scalars or {}, probe=probe)


def a_run(path: Path, spreads: Mapping[int, float], **made: Any) -> Path:
    """A run with one record per step; the spread of the matrices says how large the gains are."""
    traces = {step: make_trace(spread=spread, **made) for step, spread in spreads.items()}
    with writer_of(path, next(iter(traces.values()))) as writer:
        for step, trace in traces.items():
            record(writer, step, trace, {"loss": 10.0 / step, "grad_norm": 1.0})
    return path


def worst_gain(spread: float, **made: Any) -> tuple[float, int]:
    """The worst composite forward gain of such a record, and its site, by the whole analysis."""
    summary = analysis_of(make_trace(spread=spread, **made)).summary[GAIN]
    assert summary.worst is not None
    assert summary.site is not None
    return summary.worst, summary.site


def without_sites(path: Path, losses: Mapping[int, float]) -> Path:
    """The run of a residual model."""
    with RunWriter(path, sites=(), model={"family": "residual"}, ids=()) as writer:
        for step, loss in losses.items():
            writer.write(step, scalars={"loss": loss})
    return path


def numbers(values: Any) -> list[float]:
    """Measured entries."""
    return [float(v) for v in np.ma.asarray(values).compressed()]
