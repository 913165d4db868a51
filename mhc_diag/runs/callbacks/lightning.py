"""The monitor in the Trainer of Lightning.

    trainer = Trainer(callbacks=[MhcDiagCallback("runs/hc", every=50)])

A step of the run is an optimiser step, numbered by the trainer's ``global_step``, from 1, however
many batches it accumulated. Its loss is the mean over those batches on the rank that writes; its
gradient norm is what the module itself logs as ``grad_norm`` (or by ``log_dict`` of Lightning's
``grad_norm``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhc_diag.errors import MissingExtraError
from mhc_diag.runs.callbacks.logs import chosen, wanted
from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.runs.monitor import Monitor

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        try:
            from pytorch_lightning import Callback
        except ModuleNotFoundError as missing:
            raise MissingExtraError(
                "the callback for the Trainer of Lightning",
                "neither lightning nor pytorch_lightning is installed",
                "Install it: pip install lightning",
            ) from missing

_GRAD_NORMS = ("grad_norm", "grad_2.0_norm_total")
"""What modules call it; the second is the name that Lightning's own ``grad_norm`` gives it."""


class MhcDiagCallback(Callback):
    """Records the gains of whatever a Lightning Trainer trains.

    The loggers of the trainer get the numbers at the very steps that are recorded, from rank zero.

    Args:
        run_dir: the run folder; an existing run of the same model goes on.
        logs: ids whose worst value the trainer's loggers get as ``mhc/<id>``; by default four,
            empty for none.
        **options: those of :class:`mhc_diag.Monitor`: ``every``, ``tokens``, ``sink``, ``ids``, ...

    Raises:
        OptionError: an id for the logs that is not recorded.
    """

    def __init__(
        self, run_dir: str | Path, *, logs: Sequence[str] | None = None, **options: Any
    ) -> None:
        self.monitor: Monitor | None = None
        """At work from the start of the fit to its end."""
        self._run_dir, self._options = run_dir, options
        self._logs = wanted(logs, options.get("ids", DEFAULT_IDS))
        self._step = 0
        self._losses: list[Any] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Look for the sites.

        Raises:
            NoHyperConnectionsError: the model has none that is known.
            RunError: the folder holds another model's run, or another process writes it.
            OptionError: an option of the monitor makes no sense.
        """
        self._close()
        compiled = getattr(pl_module, "_compiler_ctx", None) is not None
        self.monitor = Monitor(pl_module, self._run_dir, **({"compiled": compiled} | self._options))
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record, if the optimiser made its step after this batch."""
        if self.monitor is None:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if self.monitor.listening and loss is not None:
            self._losses.append(loss.detach())
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        scalars = self._scalars(trainer, pl_module) if self.monitor.listening else {}
        added = chosen(self.monitor.step(self._step, **scalars), self._logs)
        self._losses.clear()
        if added:
            for logger in trainer.loggers:
                logger.log_metrics(added, step=self._step - 1)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Finish the run folder."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the model whose training was broken off."""
        self._close()

    def _scalars(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Loss and gradient norm of the step, where there are any."""
        seen = trainer.callback_metrics
        scalars = {"grad_norm": next((seen[name] for name in _GRAD_NORMS if name in seen), None)}
        if self._losses:
            # Lightning hands the loss of a batch out as its share of an accumulated step.
            parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            scalars["loss"] = sum(self._losses) * parts / len(self._losses)
        return scalars

    def _close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()
        self.monitor = None
        self._losses.clear()
