"""The whole way: a source -> its trace -> its analysis."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from mhc_diag.analysis import Analysis, analysis_of
from mhc_diag.errors import OptionError
from mhc_diag.recorded import analysis_of_step
from mhc_diag.rules.records import Limit
from mhc_diag.trace import ProbeKind, Source, Trace

if TYPE_CHECKING:
    from torch import nn

    from mhc_diag.adapters.taps import Tap

_ISOTROPIC_DRAWS = 256
_HOW = ("model", "inputs", "adapter", "taps", "settings", "tokens")
"""Wishes about how to measure, which come too late for what was measured before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the caller asks to be measured, and how."""

    probe: ProbeKind | None = None
    model: str | Callable[..., Any] | nn.Module | None = None
    inputs: Any = None
    tokens: int | None = None
    seed: int = 0
    device: str = "cpu"
    adapter: str | None = None
    taps: Mapping[str, Tap] | None = None
    settings: Mapping[str, Any] | None = None
    step: int | None = None


def analyze(  # noqa: PLR0913  one keyword per option of the command line
    source: Trace | str | os.PathLike[str],
    *,
    probe: ProbeKind | None = None,
    model: str | Callable[..., Any] | nn.Module | None = None,
    inputs: Any = None,
    tokens: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    adapter: str | None = None,
    taps: Mapping[str, Tap] | None = None,
    settings: Mapping[str, Any] | None = None,
    step: int | None = None,
    limits: Mapping[str, Limit] | None = None,
    allow_partial: bool = False,
) -> Analysis:
    """Measure a source and take the verdict.

    Args:
        source: a trace, or the path of a trace, a checkpoint, a Hugging Face folder or a run.
        probe: ``tokens`` (a real forward pass), ``static`` or ``isotropic`` (parameters only); by
            default tokens where model and inputs are at hand, else static.
        model: what makes the model from the checkpoint (``"module:callable"`` or a callable that
            takes a mapping), or the nn.Module itself; not needed for a Hugging Face folder.
        inputs: arguments of the forward pass: a tensor, a tuple, a mapping of keywords, or text as
            after ``--inputs`` (a file, ``random:BxS``, ``module:callable``).
        tokens: how many tokens to measure, drawn by ``seed``; all when None (isotropic: 256).
        seed: of everything that is drawn.
        device: where a model that is built here runs; an nn.Module stays where it is. Either runs
            in evaluation mode, and has its own mode again afterwards.
        adapter: name of the adapter to take; recognised when None.
        taps: pattern over module names -> :func:`mhc_diag.tap`.
        settings: what the weights do not say: sinkhorn_iters, eps, tau.
        step: the recorded step of a run (the last when None); for others the step they must be of.
        limits: metric id or pattern -> bounds; 2.0 on every ``composite.*.amax.mean`` when None.
        allow_partial: whether a verdict may be taken although expected sites were not measured.

    Raises:
        MhcDiagError: what went wrong and what to do, by kind (:mod:`mhc_diag.errors`).
    """
    wishes = Wishes(
        probe=probe,
        model=model,
        inputs=inputs,
        tokens=tokens,
        seed=seed,
        device=device,
        adapter=adapter,
        taps=taps,
        settings=settings,
        step=step,
    )
    if _is_run(source):
        _refuse_for_run(source, wishes)
        return analysis_of_step(
            Path(source), step=step, probe=probe, limits=limits, allow_partial=allow_partial
        )
    trace = _as_wished(source, wishes) if isinstance(source, Trace) else trace_of(source, wishes)
    return analysis_of(trace, limits=limits, allow_partial=allow_partial)


def _is_run(source: Trace | str | os.PathLike[str]) -> TypeGuard[str | os.PathLike[str]]:
    return not isinstance(source, Trace) and (Path(source) / "run.json").is_file()


def _refuse_for_run(source: str | os.PathLike[str], wishes: Wishes) -> None:
    """A run was measured while it trained: refuse what would have to be measured again.

    Raises:
        OptionError: an option that comes too late.
    """
    if late := _given(wishes, *_HOW):
        raise OptionError(
            f"analyze the run {str(source)!r}",
            f"{', '.join(late)} cannot change readings that were recorded before",
            "Leave that out, or analyze one of the run's checkpoints.",
        )


def trace_of(source: str | os.PathLike[str], wishes: Wishes) -> Trace:
    """The matrices of whatever a path holds, a run apart; errors as for :func:`analyze`."""
    from mhc_diag.checkpoints.detect import detect

    path = Path(source)
    kind = detect(source if isinstance(source, str) else path)
    if kind == "trace":
        from mhc_diag.tracefile import load_trace

        return _as_wished(load_trace(str(path)), wishes)
    if _is_live(path, kind, wishes):
        return _live_trace(path, kind, wishes)
    return _static_trace(path, wishes)


def _as_wished(trace: Trace, wishes: Wishes) -> Trace:
    """A trace was measured before: refuse what would have to be measured again.

    Raises:
        OptionError: an option that contradicts the trace, or comes too late for it.
    """
    asked = f"analyze the trace {trace.source.path!r}"
    if wishes.probe not in {None, trace.probe.kind}:
        raise OptionError(
            f"{asked} with probe {wishes.probe}",
            f"its probe is {trace.probe.kind}",
            "Measure the checkpoint or the model again.",
        )
    _require_step(wishes, trace.source.step, asked)
    if late := _given(wishes, *_HOW):
        raise OptionError(
            asked,
            f"{', '.join(late)} cannot change matrices that were captured before",
            "Measure the checkpoint or the model again.",
        )
    return trace


def _given(wishes: Wishes, *names: str) -> list[str]:
    """Those of the wishes that were made; an empty mapping is none."""
    held = {name: getattr(wishes, name) for name in names}
    empty = {name for name, wish in held.items() if isinstance(wish, Mapping) and not wish}
    return [name for name, wish in held.items() if wish is not None and name not in empty]


def _is_live(path: Path, kind: str, wishes: Wishes) -> bool:
    """Whether to run a model.

    Raises:
        OptionError: the wishes contradict each other, or a forward pass lacks model or inputs.
    """
    has_model = wishes.model is not None or kind == "hf-folder"
    asked = f"analyze {str(path)!r}"
    if wishes.probe in {"static", "isotropic"}:
        _refuse_without_model(wishes, f"{asked} with probe {wishes.probe}")
        return False
    if wishes.probe is None and not _given(wishes, "model", "inputs", "taps"):
        _refuse_without_model(wishes, asked)
        return False
    if wishes.inputs is None:
        raise OptionError(
            f"{asked} on tokens",
            "there are no inputs to run the model on",
            "Give --inputs (a file of token ids, text, random:BxS), or --probe static.",
        )
    if not has_model:
        raise OptionError(
            f"{asked} on tokens",
            "there is no model to run",
            "Give --model MODULE:CALLABLE, or --probe static.",
        )
    return True


def _refuse_without_model(wishes: Wishes, asked: str) -> None:
    """A probe of parameters alone: refuse what only a model that runs could take up.

    Raises:
        OptionError: such an option.
    """
    if wishes.taps:
        raise OptionError(
            asked, "taps need a model that runs", "Use --probe tokens with --model and --inputs."
        )
    probe = wishes.probe or "static"
    idle = _given(wishes, "model", "inputs", *(["tokens"] if probe == "static" else []))
    if idle:
        raise OptionError(
            asked,
            f"the {probe} probe reads parameters alone; {', '.join(idle)} would change nothing",
            "Leave that out, or use --probe tokens with --model and --inputs.",
        )


def _static_trace(path: Path, wishes: Wishes) -> Trace:
    from mhc_diag.checkpoints.opening import open_checkpoint
    from mhc_diag.static import static_trace

    with open_checkpoint(path) as checkpoint:
        _require_step(wishes, checkpoint.step, f"analyze {str(path)!r}")
        return static_trace(
            checkpoint,
            probe="isotropic" if wishes.probe == "isotropic" else "static",
            adapter=wishes.adapter,
            tokens=_ISOTROPIC_DRAWS if wishes.tokens is None else wishes.tokens,
            seed=wishes.seed,
            settings=wishes.settings,
        )


def _live_trace(path: Path, kind: str, wishes: Wishes) -> Trace:
    """Build the model, run it once without gradients, and say which file it came from."""
    from mhc_diag import forward
    from mhc_diag.checkpoints.opening import open_checkpoint
    from mhc_diag.live import capture

    with open_checkpoint(path) as checkpoint:
        step = checkpoint.step
    asked = f"analyze {str(path)!r}"
    _require_step(wishes, step, asked)
    model = forward.model_of(path, wishes.model, device=wishes.device)
    folder = path if kind == "hf-folder" else None
    inputs = forward.inputs_of(wishes.inputs, model, seed=wishes.seed, folder=folder)
    watched = capture(
        model,
        adapter=wishes.adapter,
        taps=wishes.taps,
        tokens=wishes.tokens,
        seed=wishes.seed,
        settings=wishes.settings,
    )
    with forward.evaluating(model), watched as captured:
        forward.run(model, inputs, asked)
    trace = captured.trace(inputs.description)
    return replace(trace, source=Source(path=str(path), format=kind, step=step))


def _require_step(wishes: Wishes, step: int | None, asked: str) -> None:
    if wishes.step is not None and wishes.step != step:
        raise OptionError(
            f"{asked} at step {wishes.step}",
            "it says no step" if step is None else f"it is of step {step}",
            "Leave --step out, or give the checkpoint of that step.",
        )
