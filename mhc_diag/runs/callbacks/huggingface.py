"""The monitor in the Trainer of transformers, and in whatever derives from it.

    MhcDiagCallback("runs/hc", every=50).add_to(trainer)
    trainer.train()

A step of the run is an optimiser step, numbered by the trainer's ``global_step``, from 1. The
trainer tells its loss (the mean since it last logged) and its gradient norm only when it logs, and
it does so after the step: a recorded step therefore waits for that, and holds them when the
trainer logs that step. With ``logging_steps`` that divides ``every`` all records do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from mhc_diag.errors import MissingExtraError
from mhc_diag.runs.callbacks.logs import chosen, wanted
from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.runs.monitor import Monitor

try:
    from transformers import DefaultFlowCallback, TrainerCallback
except ModuleNotFoundError as missing:
    raise MissingExtraError(
        "the callback for the Trainer of transformers",
        f"{missing.name} is not installed",
        "Install what the Trainer needs: pip install transformers accelerate",
    ) from missing


class MhcDiagCallback(TrainerCallback):
    """Records the gains of whatever a Trainer trains.

    ``add_to(trainer)`` is the way to add it, where the numbers shall reach W&B, TensorBoard or
    what else the trainer reports to: a callback given by ``Trainer(callbacks=[...])`` is called
    only after those have reported. Either way the run folder and ``trainer.state.log_history``
    hold them.

    Args:
        run_dir: the run folder; an existing run of the same model goes on.
        logs: ids whose worst value is added to the trainer's logs as ``mhc/<id>``, on recorded
            steps that the trainer logs; by default four, empty for none.
        **options: those of :class:`mhc_diag.Monitor`: ``every``, ``tokens``, ``sink``, ``ids``, ...

    Raises:
        OptionError: an id for the logs that is not recorded.
    """

    def __init__(
        self, run_dir: str | Path, *, logs: Sequence[str] | None = None, **options: Any
    ) -> None:
        self.monitor: Monitor | None = None
        """At work from the start of training to its end."""
        self._run_dir, self._options = run_dir, options
        self._logs = wanted(logs, options.get("ids", DEFAULT_IDS))
        self._done: int | None = None
        """A step that is done and waits for the trainer's loss."""
        self._recorded: int | None = None
        self._added: dict[str, float] = {}
        """What the trainer's log of that step gets."""

    def add_to(self, trainer: Any) -> Self:
        """Stand before everything that reports, after what decides when to log and to evaluate."""
        callbacks = trainer.callback_handler.callbacks
        flow = (
            place for place, one in enumerate(callbacks) if isinstance(one, DefaultFlowCallback)
        )
        callbacks.insert(next(flow, -1) + 1, self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look for the sites.

        Raises:
            NoHyperConnectionsError: the model has none that is known.
            RunError: the folder holds another model's run, or another process writes it.
            OptionError: an option of the monitor makes no sense.
        """
        self._close()
        given = {"compiled": bool(args.torch_compile)} | self._options
        self.monitor = Monitor(kwargs["model"], self._run_dir, **given)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the step before, if the trainer did not log it."""
        self._record({})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep a finished step until the trainer has logged."""
        self._done = state.global_step
        self.on_epoch_end(args, state, control, **kwargs)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the model before it is evaluated; where the trainer logs, that comes before."""
        if control.should_evaluate and not control.should_log:
            self._record({})

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the step with the trainer's loss, and give it the gains."""
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        self._record({name: logs[name] for name in ("loss", "grad_norm") if name in logs})
        if self._recorded == state.global_step:
            logs.update(self._added)
            state.log_history[-1].update(self._added)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish the run folder."""
        self._record({})
        self._close()

    def _record(self, scalars: Mapping[str, float]) -> None:
        """Record the step that waits, if one does and it is due."""
        if self.monitor is None or self._done is None:
            return
        step, self._done = self._done, None
        self._added = chosen(self.monitor.step(step, **scalars), self._logs)
        self._recorded = step

    def _close(self) -> None:
        """Leave the model; also one whose training was broken off."""
        if self.monitor is not None:
            self.monitor.close()
        self.monitor = self._done = self._recorded = None
