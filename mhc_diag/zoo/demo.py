"""The demonstration: four models that differ in one line, trained, recorded, compared.

The residual model has no H_res; its run has no sites and lends loss and gradient norm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch

from mhc_diag.analysis import Analysis, analysis_of
from mhc_diag.errors import OptionError, OutputError
from mhc_diag.live import capture
from mhc_diag.runs.layout import RUN
from mhc_diag.runs.monitor import Monitor
from mhc_diag.runs.store import RunWriter, discard_run
from mhc_diag.trace import Source
from mhc_diag.zoo.data import sample_ids
from mhc_diag.zoo.models import CONNECTIONS, ConnectionKind, ZooConfig, ZooModel, save_checkpoint
from mhc_diag.zoo.trainer import Trainer, TrainStep, one_thread

STEPS = 150
"""Enough for HC to reach a composite gain above 10 on the standard library's text."""
EVERY = 5
"""Steps between two records."""
TOKENS = 256
"""Tokens behind each recorded gain."""
SHOWN_ID = "composite.forward.amax.mean"
"""The reading that progress shows."""
LABELS: Mapping[ConnectionKind, str] = {
    "residual": "residual",
    "hc": "HC",
    "mhc": "mHC",
    "mhc-lite": "mHC-lite",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the demonstration is, after one training step."""

    label: str
    """The model in training."""
    step: int
    """Steps this model has made, from 1."""
    steps: int
    """Steps of each model."""
    done: int
    """Steps made over all models."""
    total: int
    """Steps to make over all models."""
    loss: float
    """Nats per byte, on this step's batch."""
    gain: float | None
    """Latest recorded ``SHOWN_ID``, the worst site; None for the residual model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModel:
    """What is left of one trained model."""

    label: str
    connection: ConnectionKind
    checkpoint: Path
    """Complete and runnable: ``--model mhc_diag.zoo.models:build``."""
    run: Path
    """Run folder: readings every few steps."""
    analysis: Analysis | None
    """On tokens that are the same for all models, after the last step; None without H_res."""
    loss: float
    """Mean over the last ten steps, nats per byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """All models of a demonstration, in the order of training."""

    models: tuple[DemoModel, ...]
    seconds: float
    """Wall time of training and measuring."""
    analyses: Mapping[str, Analysis] = field(init=False)
    """Label -> analysis, of the models that have H_res."""

    def __post_init__(self) -> None:
        found = {model.label: model.analysis for model in self.models if model.analysis}
        object.__setattr__(self, "analyses", found)


def run_demo(
    out_dir: str | Path,
    *,
    steps: int = STEPS,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    force: bool = False,
) -> DemoResult:
    """Train residual, HC, mHC and mHC-lite alike; leave ``<name>.pt`` and ``runs/<name>/`` each.

    Args:
        out_dir: made when missing.
        steps: training steps of each model.
        seed: of initial weights and batches, the same for all models.
        on_progress: called after every training step.
        force: whether runs of an earlier demonstration may be replaced.

    Raises:
        OptionError: ``steps`` below one.
        OutputError: the folder cannot be written, or holds runs that must stay.
        ModelError: this Python has no readable standard library.
    """
    if steps < 1:
        raise OptionError("run the demonstration", f"steps={steps}", "Train at least one step.")
    folder = Path(out_dir)
    _make_room(folder, force=force)
    started, models = time.perf_counter(), []
    with one_thread():
        for place, connection in enumerate(CONNECTIONS):
            with _Lesson(folder, connection, steps=steps, seed=seed) as lesson:
                while lesson.trainer.n_steps < steps:
                    lesson.advance()
                    if on_progress is not None:
                        on_progress(lesson.progress(place))
            models.append(lesson.finish())
    return DemoResult(models=tuple(models), seconds=time.perf_counter() - started)


class _Lesson:
    """One model in training, and its run."""

    def __init__(self, folder: Path, connection: ConnectionKind, *, steps: int, seed: int) -> None:
        self.folder, self.connection, self.steps, self.seed = folder, connection, steps, seed
        self.trainer = Trainer(ZooConfig(connection=connection), seed=seed)
        self.run = _run_folder(folder, connection)
        self.history: list[TrainStep] = []
        self.gain: float | None = None
        self.monitor: Monitor | None = None
        self.writer: RunWriter | None = None
        if connection == "residual":
            self.writer = RunWriter(self.run, sites=(), model={"family": "residual"}, ids=())
        else:
            self.monitor = Monitor(
                self.trainer.model, self.run, every=self._is_shown, tokens=TOKENS, seed=seed
            )

    def advance(self) -> None:
        """One step; the first, the last and every ``EVERY``-th are recorded."""
        last = self.trainer.step()
        self.history.append(last)
        if self.monitor is not None:
            worst = self.monitor.step(last.step, loss=last.loss, grad_norm=last.grad_norm)
            self.gain = worst[SHOWN_ID] if worst else self.gain
        elif self.writer is not None and self._is_shown(last.step):
            scalars = {"loss": last.loss, "grad_norm": last.grad_norm}
            self.writer.write(last.step, scalars=scalars)

    def _is_shown(self, step: int) -> bool:
        return step in {1, self.steps} or step % EVERY == 0

    def progress(self, place: int) -> Progress:
        """Where this model is; ``place`` models were trained before it."""
        last = self.history[-1]
        return Progress(
            label=LABELS[self.connection],
            step=last.step,
            steps=self.steps,
            done=place * self.steps + last.step,
            total=len(CONNECTIONS) * self.steps,
            loss=last.loss,
            gain=self.gain,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the run, also after Ctrl-C: the records so far are whole."""
        for recorder in (self.monitor, self.writer):
            if recorder is not None:
                recorder.close()

    def finish(self) -> DemoModel:
        """Save the model, measure it once more on tokens common to all models."""
        model, tail = self.trainer.model, self.history[-10:]
        name = f"{_stem(self.connection)}.pt"
        checkpoint = save_checkpoint(self.folder / name, model, step=self.steps)
        source = Source(path=str(checkpoint), format="torch-zip", step=self.steps)
        return DemoModel(
            label=LABELS[self.connection],
            connection=self.connection,
            checkpoint=checkpoint,
            run=self.run,
            analysis=None if self.connection == "residual" else _final(model, source),
            loss=sum(step.loss for step in tail) / len(tail),
        )


def _final(model: ZooModel, source: Source) -> Analysis:
    """The whole analysis, on tokens that every model sees."""
    ids = sample_ids()[:, : model.config.context]
    with torch.no_grad(), capture(model) as captured:
        model(ids)
    return analysis_of(replace(captured.trace(), source=source))


def _make_room(folder: Path, *, force: bool) -> None:
    """An empty place for every run.

    Raises:
        OutputError: there are runs, and they must stay; or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"write the demonstration to {str(folder)!r}",
            error.strerror or str(error),
            "Choose a folder that can be written.",
        ) from error
    runs = [_run_folder(folder, connection) for connection in CONNECTIONS]
    taken = [run for run in runs if (run / RUN).exists()]
    if taken and not force:
        raise OutputError(
            f"write the demonstration to {str(folder)!r}",
            f"the run {str(taken[0])!r} is there",
            "Choose another folder, or pass --force (force=True) to replace it.",
        )
    for run in runs:
        discard_run(run)


def _run_folder(folder: Path, connection: ConnectionKind) -> Path:
    return folder / "runs" / _stem(connection)


def _stem(connection: ConnectionKind) -> str:
    """File name: mhc_lite, as in examples/."""
    return connection.replace("-", "_")
