"""One recorded step of a run -> an analysis of the readings that the run holds.

Letters: L sites, S recorded steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mhc_diag.analysis import Analysis, ChainSummary, judged
from mhc_diag.errors import NoHyperConnectionsError, OptionError, RunError
from mhc_diag.rules.bounds import DEFAULT_LIMITS
from mhc_diag.rules.records import Limit
from mhc_diag.runs.layout import STATS
from mhc_diag.trace import (
    Coverage,
    Identity,
    Model,
    Orientation,
    Precision,
    Probe,
    ProbeKind,
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
    probe: ProbeKind | None = None,
    limits: Mapping[str, Limit] | None = None,
    allow_partial: bool = False,
) -> Analysis:
    """The readings of one recorded step, with findings and verdict; there are no matrices.

    Args:
        path: the run folder.
        step: a recorded step; the last one when None.
        probe: what the step must have been measured on; anything when None.
        limits: metric id or pattern -> bounds; 2.0 on every ``composite.*.amax.mean`` when None.
        allow_partial: whether a verdict may be taken although sites have no value.

    Raises:
        OptionError: the step was not recorded (names the nearest), or on another probe.
        NoHyperConnectionsError: the run is of a model without hyper-connections.
        RunError: the folder is damaged.
    """
    from mhc_diag.runs.read import load_run

    run = load_run(path)
    row = _row(run, step, _asked(path)) if run.sites else 0
    found = analysis_of_row(run, row, limits=limits, allow_partial=allow_partial)
    if probe not in {None, found.probe.kind}:
        raise OptionError(
            f"{_asked(path)} with probe {probe}",
            f"probe cannot change readings that were recorded before, on {found.probe.kind}",
            "Leave that out, or analyze one of the run's checkpoints.",
        )
    return found


def analysis_of_row(
    run: RunHistory,
    row: int,
    *,
    limits: Mapping[str, Limit] | None = None,
    allow_partial: bool = False,
) -> Analysis:
    """The readings of one step of a run that has been read, with findings and verdict.

    Args:
        run: its history, or the part of it that holds the step.
        row: position of the step among ``run.steps``.
        limits: as for :func:`analysis_of_step`.
        allow_partial: the same.

    Raises:
        NoHyperConnectionsError: the run is of a model without hyper-connections.
        RunError: run.json does not say the whole model.
    """
    if not run.sites:
        raise NoHyperConnectionsError(
            _asked(run.path),
            f"it recorded a model of family {run.model.get('family')!r} without sites",
            "'mhc-diag report' shows its loss and gradient norm.",
        )
    step, stats = int(run.steps[row]), Path(run.path) / STATS
    metrics = {name: grid[row] for name, grid in dict(run.values).items()}
    model, chains, orientation, probe = _facts(run, row)
    bare = Analysis(
        source=Source(
            path=run.path,
            format="run",
            bytes_read=stats.stat().st_size if stats.exists() else 0,
            step=step,
        ),
        model=model,
        orientation=orientation,
        probe=probe,
        coverage=_coverage(run, metrics),
        identity=Identity(
            probe=probe.kind,
            seed=probe.seed,
            inputs=probe.inputs,
            tokens=probe.tokens,
            computed=model.precision.computed,
            applied=model.precision.applied,
            definitions=run.definitions,
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


def _facts(run: RunHistory, row: int) -> tuple[Model, tuple[ChainSummary, ...], Orientation, Probe]:
    """What run.json and the record say beside the readings.

    Raises:
        RunError: they do not say enough.
    """
    try:
        model, chains = _model(run.model), _chains(run.model)
        said = run.probes[row] if run.probes else {}
        probe = _probe(said, int(run.steps[row]), chains[0].tokens)
        drawn = tuple(
            replace(chain, tokens=probe.tokens) if chain.tokens == chains[0].tokens else chain
            for chain in chains
        )
        return model, drawn, Orientation(**run.orientation), probe
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RunError(
            _asked(run.path), f"run.json does not say the whole model: {error}", "Record it anew."
        ) from error


def _asked(path: str | Path) -> str:
    return f"analyze the run {str(path)!r}"


def _probe(entry: Mapping[str, Any], step: int, tokens: int) -> Probe:
    """What the record says that it was measured on.

    Inputs that are no hash may differ from step to step although their words are the same; only
    where the probe makes its own inputs are they known to be alike.
    """
    if not entry:  # nobody said: then it was the batch of that step
        return Probe(kind="tokens", tokens=tokens, inputs=f"training batch at step {step}")
    probe = Probe(**entry)
    hashed = all(part.startswith("sha256:") for part in probe.inputs.split("; "))
    if probe.kind != "tokens" or hashed:
        return probe
    return replace(probe, inputs=f"{probe.inputs or 'training batch'} at step {step}")


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
