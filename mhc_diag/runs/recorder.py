"""From a trace to a line of the run folder and to the user's own logger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mhc_diag import documents, entries
from mhc_diag.analysis import chains_of
from mhc_diag.errors import OptionError, OutputError, RunError
from mhc_diag.metrics import find_metric, measure
from mhc_diag.rules.case import kept_sites, worst
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
        sink_sites: ids of which the sink also gets every site's value, as ``id/site``.

    Raises:
        OptionError: an id that does not exist, or that is for the sink and not recorded.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        ids: Sequence[str],
        sink: Sink | None,
        sink_sites: Sequence[str] = (),
    ) -> None:
        self.path, self.ids, self.sink = Path(run_dir), tuple(ids), sink
        self.sink_sites = tuple(sink_sites)
        for name in self.ids:
            find_metric(name)
        for name in self.sink_sites:
            if name not in self.ids:
                do = f"Choose of these, or record it with ids=: {', '.join(self.ids)}."
                raise OptionError("sink_sites of a monitor", f"{name!r} is not recorded", do)
        self._writer: RunWriter | None = None

    @property
    def is_open(self) -> bool:
        """Whether the folder is being written."""
        return self._writer is not None

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
        numbers = {name: number(value) for name, value in scalars.items()}
        if self._writer is None:
            self._writer = RunWriter(
                self.path,
                sites=trace.sites,
                model=entries.model_entry(trace.model, chains_of(trace)),
                ids=self.ids,
                orientation=documents.fields_of(trace.orientation),
            )
        self._writer.write(step, values, numbers, probe=documents.fields_of(trace.probe))
        ends = {name: _worst(name, values[name], trace) for name in self.ids}
        shown = {name: value for name, value in ends.items() if value is not None} | numbers
        if self.sink is not None:
            self._tell(shown | self._per_site(values, trace), step)
        return shown

    def _tell(self, numbers: Mapping[str, float], step: int) -> None:
        """Call the user's sink; the record is written, whatever the sink does."""
        assert self.sink is not None
        try:
            self.sink(numbers, step)
        except Exception as error:
            raise OutputError(
                "send a recorded step to the sink",
                f"{type(error).__name__}: {error}",
                "The run folder has the record; mend the sink.",
            ) from error

    def _per_site(
        self, values: Mapping[str, np.ma.MaskedArray[Any, Any]], trace: Trace
    ) -> dict[str, float]:
        """What was measured of the ids that are wanted site by site."""
        return {
            f"{name}/{site.name}": float(value)
            for name in self.sink_sites
            for site, value in zip(trace.sites, values[name], strict=True)
            if value is not np.ma.masked
        }

    def close(self) -> None:
        """Finish the run folder; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()


def number(value: Any) -> float:
    """A number, or a tensor of one element wherever it lives; one that is spread over ranks too.

    For the latter all of those ranks must call it.
    """
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    return float(value.detach() if hasattr(value, "detach") else value)


def _worst(name: str, values: np.ma.MaskedArray[Any, Any], trace: Trace) -> float | None:
    """The value at the id's bad end over the sites of ordinary chains; the largest without one."""
    kept = kept_sites(chains_of(trace))
    seen = np.ma.array(values.data, mask=np.ma.getmaskarray(values) | ~kept)
    found = worst(seen, "low" if find_metric(name).bad == "low" else "high")
    return None if found is None else found[0]
