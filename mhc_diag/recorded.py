"""One recorded step of a run -> an analysis of the readings that the run holds.

Letters: L sites, S recorded steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mhc_diag.analysis import Analysis, ChainSummary, judged
from mhc_diag.errors import NoHyperConnectionsError, OptionError, RunError
from mhc_diag.rules.bounds import DEFAULT_LIMITS
from mhc_diag.rules.records import Limit
from mhc_diag.trace import (
    Coverage,
    Identity,
    Model,
    Orientation,
    Precision,
    Probe,
    Setting,
    Skipped,
    Source,
)

if TYPE_CHECKING:
    from mhc_diag.runs.read import RunHistory


def analysis_of_step(
    path: str | Path,
    *,
    step: int | None = None,
    limits: Mapping[str, Limit] | None = None,
    allow_partial: bool = False,
) -> Analysis:
    """The readings of one recorded step, with findings and verdict; there are no matrices.

    Args:
        path: the run folder.
        step: a recorded step; the last one when None.
        limits: metric id or pattern -> bounds; 2.0 on every ``composite.*.amax.mean`` when None.
        allow_partial: whether a verdict may be taken although sites have no value.

    Raises:
        OptionError: the step was not recorded; names the nearest.
        NoHyperConnectionsError: the run is of a model without hyper-connections.
        RunError: the folder is damaged.
    """
    from mhc_diag.runs.layout import STATS, read_header
    from mhc_diag.runs.read import load_run

    asked = f"analyze the run {str(path)!r}"
    run = load_run(path)
    if not run.sites:
        raise NoHyperConnectionsError(
            asked,
            f"it recorded a model of family {run.model.get('family')!r} without sites",
            "'mhc-diag report' shows its loss and gradient norm.",
        )
    row = _row(run, step, asked)
    number = int(run.steps[row])
    metrics = {name: grid[row] for name, grid in dict(run.values).items()}
    try:
        model, chains = _model(run.model), _chains(run.model)
        orientation = Orientation(**read_header(Path(path))["orientation"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            asked, f"run.json does not say the whole model: {error}", "Record the run anew."
        ) from error
    tokens = chains[0].tokens
    probe = Probe(kind="tokens", tokens=tokens, inputs=f"training batch at step {number}")
    bare = Analysis(
        source=Source(
            path=str(path),
            format="run",
            bytes_read=(Path(path) / STATS).stat().st_size,
            step=number,
        ),
        model=model,
        orientation=orientation,
        probe=probe,
        coverage=_coverage(run, metrics),
        identity=Identity(
            probe=probe.kind,
            seed=probe.seed,
            inputs=probe.inputs,
            tokens=tokens,
            computed=model.precision.computed,
            applied=model.precision.applied,
        ),
        chains=chains,
        sites=run.sites,
        metrics=metrics,
        summary={},
        limits={},
        findings=(),
        verdict="not_measured",
        allow_partial=allow_partial,
    )
    return judged(bare, DEFAULT_LIMITS if limits is None else limits)


def _row(run: RunHistory, step: int | None, asked: str) -> int:
    """Position of the step among the recorded ones."""
    if not len(run.steps):
        raise RunError(asked, "it holds no recorded step yet", "Try again when it has one.")
    if step is None:
        return len(run.steps) - 1
    hits = np.flatnonzero(run.steps == step)
    if not hits.size:
        nearest = int(run.steps[np.abs(run.steps - step).argmin()])
        raise OptionError(
            f"{asked} at step {step}",
            f"{len(run.steps)} steps were recorded, {run.steps[0]} to {run.steps[-1]}, without it",
            f"The nearest is --step {nearest}.",
        )
    return int(hits[0])


def _model(entry: Mapping[str, Any]) -> Model:
    return Model(
        adapter=entry["adapter"],
        family=entry["family"],
        width=entry["width"],
        precision=Precision(**entry["precision"]),
        settings={
            name: Setting(value=setting["value"], source=setting["from"])
            for name, setting in entry["settings"].items()
        },
        input_dependent=entry["input_dependent"],
    )


def _chains(entry: Mapping[str, Any]) -> tuple[ChainSummary, ...]:
    return tuple(ChainSummary(**chain) for chain in entry["chains"])


def _coverage(run: RunHistory, metrics: Mapping[str, np.ma.MaskedArray[Any, Any]]) -> Coverage:
    """A site without any value in the step counts as not measured."""
    held = np.zeros(len(run.sites), dtype=bool)
    for values in metrics.values():
        held |= ~np.ma.getmaskarray(values)
    return Coverage(
        expected=len(run.sites),
        measured=int(held.sum()),
        skipped=tuple(
            Skipped(site=site.name, why="the run has no value of it at this step")
            for site, is_held in zip(run.sites, held, strict=True)
            if not is_held
        ),
    )
