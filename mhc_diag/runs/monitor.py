"""Gains while a model trains: two lines in the loop, a run folder on disk.

    monitor = md.Monitor(model, "runs/hc", every=50)
    for step, batch in enumerate(loader):
        loss = ...; loss.backward(); optimizer.step()
        monitor.step(step, loss=loss, grad_norm=norm)

Between recorded steps nothing of the monitor is on the model: hooks come before the step that is
to be recorded and go after it, and a model compiled by torch runs eagerly for that one step. So
other steps cost nothing, no graph is broken, and attaching after warm-up loses nothing. Only the
second step of a training is listened to besides: after one, nobody knows how steps are counted.

A measurement is everything that the model's training-mode forward passes showed between two calls
of ``step``: all microbatches, each once; recomputed passes and evaluation are not counted. Trouble
that should not end a training (a full disk, a site that stayed silent) is warned of once and
counted in :attr:`Monitor.problems`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mhc_diag.adapters.modules import unclaimed_modules
from mhc_diag.adapters.taps import Tap
from mhc_diag.errors import CaptureError, MhcDiagError, OptionError
from mhc_diag.hooks import attach
from mhc_diag.observing import Observer
from mhc_diag.recording import Recording
from mhc_diag.runs.distributed import sites_here
from mhc_diag.runs.joint import JointRecorder
from mhc_diag.runs.layout import DEFAULT_IDS
from mhc_diag.runs.recorder import Recorder, Sink
from mhc_diag.trace import Trace


class MonitorWarning(UserWarning):
    """Something was not recorded; training goes on."""


class Monitor:
    """Records the gains of a training run.

    Args:
        model: the nn.Module that trains; compiled, wrapped by DDP or FSDP, or one pipeline stage.
        run_dir: the run folder; an existing run of the same model goes on.
        every: record each ``every``-th step, or the steps for which a predicate says so; in a
            parallel job all ranks must come to the same answer.
        tokens: tokens behind one record over the whole job, drawn without replacement.
        sink: also called with the worst value of each id, and the scalars, on recorded steps.
        sink_sites: ids of which the sink also gets every site's value, as ``id/site``.
        ids: metric ids to record.
        taps: pattern over module names -> md.tap(...), for modules that no adapter knows.
        adapter: take this adapter, do not choose.
        settings: values that neither weights nor module say.
        seed: of the draw of tokens, together with the step.
        mesh: a DeviceMesh whose dimensions are named as torchtitan names them ("pp",
            "dp_replicate", "dp_shard", "cp", "tp"); needed where pipeline stages and data
            parallelism meet.
        compiled: whether torch compiled something around the model that the model does not show: a
            whole training step, a wrapper that only the trainer holds.
        first_step: number of the step that comes next; a resumed training that says it draws the
            tokens that it would have drawn without the break.

    Raises:
        NoHyperConnectionsError: no rank's model has any that is known.
        RunError: the folder holds another model's run, or another process writes it.
        OutputError: the folder cannot be written.
        OptionError: ``every`` or ``tokens`` below one, an id that does not exist.
    """

    def __init__(  # noqa: PLR0913  the contract names these; all but two have defaults
        self,
        model: Any,
        run_dir: str | Path,
        *,
        every: int | Callable[[int], bool] = 50,
        tokens: int = 256,
        sink: Sink | None = None,
        sink_sites: Sequence[str] = (),
        ids: Sequence[str] = DEFAULT_IDS,
        taps: Mapping[str, Tap] | None = None,
        adapter: str | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        mesh: Any = None,
        compiled: bool = False,
        first_step: int = 0,
    ) -> None:
        if tokens < 1 or (not callable(every) and every < 1):
            raise OptionError("a monitor", f"every={every}, tokens={tokens}", "Both start at 1.")
        self.problems = 0
        """How many records were lost, in part or whole."""
        self._model, self._every, self._seed = model, every, seed
        self._compiled = compiled
        self._adapter, self._taps = adapter, taps
        self._settings = dict(settings or {})
        self._observers: list[Observer] = []
        self._known: dict[str, tuple[str, bool]] = {}
        self._observed = False
        self._recorder = Recorder(run_dir, ids=ids, sink=sink, sink_sites=sink_sites)
        self._joint = JointRecorder(self._recorder, mesh=mesh, tokens=tokens, trouble=self._trouble)
        self._last_step: int | None = None
        self._upcoming, self._stride_known = first_step, False
        self._answer: tuple[int, bool] | None = None
        self._warned: set[str] = set()
        self._hooks: ExitStack | None = None
        self._recording: Recording | None = None
        self.attach()

    @property
    def listening(self) -> bool:
        """Whether the step that is under way is listened to, to be recorded."""
        return self._hooks is not None

    def attach(self) -> None:
        """Look for the sites and listen to the next step; done by the constructor too."""
        self._observers = self._observe()
        self._observed = True
        self._arm(self._upcoming)

    def detach(self) -> None:
        """Take every hook away; steps are not recorded until :meth:`attach`."""
        self._release()
        self._observed = False

    def step(
        self, step: int, *, loss: Any = None, grad_norm: Any = None, **scalars: Any
    ) -> Mapping[str, float] | None:
        """Say that an optimiser step is done.

        Args:
            step: its number.
            loss: number or one-element tensor; read only when the step is recorded. In a parallel
                job the mean over the ranks that give it; others leave it out.
            grad_norm: the same.
            **scalars: more of them.

        Returns:
            Worst value by id of the recorded step, on the rank that writes; None otherwise.
        """
        due, listening = self._is_due(step), self._hooks is not None
        recorded = None
        if due and self._observed:
            given = {"loss": loss, "grad_norm": grad_norm, **scalars}
            present = {name: value for name, value in given.items() if value is not None}
            recorded = self._joint.record(step, self._local_trace(step), present)
            if self._joint.is_needless:
                self._observers = []
        self._advance(step)
        if listening:
            self._release()
        if self._observed and (self._is_due(self._upcoming) or not self._stride_known):
            self._arm(self._upcoming)
        return recorded

    def skip(self) -> None:
        """Forget the forward passes since the last step: a batch that is not trained on."""
        if self._recording is not None:
            self._recording.forget()

    def close(self) -> None:
        """Take the hooks away and finish the run folder; a second call does nothing."""
        self.detach()
        self._recorder.close()

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

    def _observe(self) -> list[Observer]:
        """The sites of this rank's model; what one rank refuses ends all of them."""
        found, errors = sites_here(self._model, adapter=self._adapter, taps=self._taps)
        observers: list[Observer] = []
        try:
            observers = [Observer(site, self._settings) for site in found]
        except MhcDiagError as error:
            errors = (*errors, error)
        self._joint.settle(self._model, [site.name for site in found], errors)
        return observers

    def _arm(self, step: int) -> None:
        """Listen to the forward passes of the step that comes."""
        share, draw = self._joint.draw(self._seed, step)
        self._recording = Recording(
            tokens=share,
            seed=draw,
            training_only=True,
            matrices_only=self._joint.opened or share == 0,
            known=self._known,
            trouble=lambda error: self._trouble(
                f"a forward pass was not recorded: {error}", "hook"
            ),
        )
        self._hooks = attach(self._model, self._observers, self._recording, compiled=self._compiled)

    def _release(self) -> None:
        if self._hooks is not None:
            self._hooks.close()
        self._hooks = self._recording = None

    def _local_trace(self, step: int) -> Trace | None:
        """What this rank heard; None, and a warning, where it heard nothing."""
        if not self._observers:
            return None
        recording = self._recording
        if recording is None:
            why = "the monitor did not listen: steps did not come in the order that was expected"
        elif not recording.passes:
            why = "no training-mode forward pass of the model was completed"
        else:
            try:
                trace = recording.trace(
                    observers=self._observers,
                    source=type(self._model).__name__,
                    inputs="",
                    unclaimed=() if recording.matrices_only else self._unclaimed(),
                )
            except CaptureError as error:  # other ranks wait for this one
                why = str(error)
            else:
                if not recording.matrices_only:
                    chains = {chain.name: chain.auxiliary for chain in trace.chains}
                    self._known = {s.name: (s.chain, chains[s.chain]) for s in trace.sites}
                return trace
        self._trouble(f"step {step} was not recorded: {why}", why)
        return None

    def _unclaimed(self) -> tuple[str, ...]:
        return unclaimed_modules(self._model, tuple(one.site for one in self._observers))

    def _trouble(self, message: str, kind: str) -> None:
        """Count what was lost; say it once per kind."""
        self.problems += 1
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, MonitorWarning, stacklevel=4)

    def _is_due(self, step: int) -> bool:
        """Whether to record a step; a predicate is asked once for each, and may count its calls."""
        if not callable(self._every):
            return step % self._every == 0
        if self._answer is None or self._answer[0] != step:
            self._answer = (step, bool(self._every(step)))
        return self._answer[1]

    def _advance(self, step: int) -> None:
        """Expect the next step, if steps go on as they did; after one of them nobody knows how."""
        if self._last_step is not None:
            self._stride_known = True
        stride = 1 if self._last_step is None else max(1, step - self._last_step)
        self._last_step, self._upcoming = step, step + stride
