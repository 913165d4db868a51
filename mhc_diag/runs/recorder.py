"""From a trace to a line of the run folder and to the user's own logger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mhc_diag import documents, entries
from mhc_diag.analysis import chains_of
from mhc_diag.errors import RunError
from mhc_diag.metrics import find_metric, measure
from mhc_diag.runs.layout import RUN, read_header, sites_of
from mhc_diag.runs.store import RunWriter
from mhc_diag.trace import Trace

Sink = Callable[[Mapping[str, float], int], Any]
"""Anything that takes (numbers by name, step): wandb.log, Accelerator.log, a TensorBoard loop."""


class Recorder:
    """Measures traces of one model and writes them.

    Args:
        run_dir: the run folder.
        ids: metric ids to record.
        sink: also called with the worst value of each id over the sites, and the scalars.

    Raises:
        OptionError: an id that does not exist.
    """

    def __init__(self, run_dir: str | Path, *, ids: Sequence[str], sink: Sink | None) -> None:
        self.path, self.ids, self.sink = Path(run_dir), tuple(ids), sink
        for name in self.ids:
            find_metric(name)
        self._writer: RunWriter | None = None

    def expect(self, names: Sequence[str]) -> None:
        """Refuse a folder that holds a run of other sites, before the first step is trained.

        Raises:
            RunError: it does.
        """
        if not (self.path / RUN).exists():
            return
        there = {site.name.split("#")[0] for site in sites_of(read_header(self.path), self.path)}
        if there != set(names):
            only = sorted(there ^ set(names))
            raise RunError(
                f"record a run in {str(self.path)!r}",
                f"it holds another model's run: {only[0]!r} is a site of only one of the two",
                "Choose a new folder; a run is never mixed with another one.",
            )

    def record(self, step: int, trace: Trace, scalars: Mapping[str, Any]) -> Mapping[str, float]:
        """Append one record and tell the sink.

        Args:
            step: training step.
            trace: what was measured in it.
            scalars: loss and the like; numbers or one-element tensors.

        Returns:
            Worst value over the sites by id, with the scalars.

        Raises:
            RunError: the folder holds another run, or another process writes it.
            OutputError: it cannot be written.
        """
        values = measure(trace, self.ids)
        numbers = {name: _number(value) for name, value in scalars.items()}
        if self._writer is None:
            self._writer = RunWriter(
                self.path,
                sites=trace.sites,
                model=entries.model_entry(trace.model, chains_of(trace)),
                ids=self.ids,
                orientation=documents.fields_of(trace.orientation),
            )
        self._writer.write(step, values, numbers, probe=documents.fields_of(trace.probe))
        worst = {name: _worst(name, values[name], trace) for name in self.ids}
        shown = {name: value for name, value in worst.items() if value is not None} | numbers
        if self.sink is not None:
            self.sink(shown, step)
        return shown

    def close(self) -> None:
        """Finish the run folder; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()


def _number(value: Any) -> float:
    """A number, or a tensor of one element wherever it lives."""
    return float(value.detach() if hasattr(value, "detach") else value)


def _worst(name: str, values: np.ma.MaskedArray[Any, Any], trace: Trace) -> float | None:
    """The value at the id's bad end over the sites of ordinary chains; the largest without one."""
    keep = np.concatenate([np.full(chain.n_sites, not chain.auxiliary) for chain in trace.chains])
    measured = values[keep].compressed()
    if not len(measured):
        return None
    return float(measured.min() if find_metric(name).bad == "low" else measured.max())
