"""The whole way: a source -> its trace -> its analysis."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from mhc_diag.analysis import Analysis, analysis_of
from mhc_diag.errors import MhcDiagError, ModelError, OptionError
from mhc_diag.recorded import analysis_of_step
from mhc_diag.rules.records import Limit
from mhc_diag.trace import ProbeKind, Source, Trace

if TYPE_CHECKING:
    from torch import nn

    from mhc_diag.adapters.taps import Tap
    from mhc_diag.loading import Inputs

_ISOTROPIC_DRAWS = 256


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
        device: where a model that is built here runs; an nn.Module stays where it is.
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
        return analysis_of_step(Path(source), step=step, limits=limits, allow_partial=allow_partial)
    trace = _as_wished(source, wishes) if isinstance(source, Trace) else _trace(source, wishes)
    return analysis_of(trace, limits=limits, allow_partial=allow_partial)


def _is_run(source: Trace | str | os.PathLike[str]) -> TypeGuard[str | os.PathLike[str]]:
    return not isinstance(source, Trace) and (Path(source) / "run.json").is_file()


def _refuse_for_run(source: str | os.PathLike[str], wishes: Wishes) -> None:
    """A run was measured while it trained: refuse what would have to be measured again.

    Raises:
        OptionError: an option that comes too late.
    """
    late = [
        name
        for name in ("model", "inputs", "adapter", "taps", "settings", "tokens")
        if getattr(wishes, name) is not None and getattr(wishes, name) != {}
    ]
    late += ["probe"] if wishes.probe not in {None, "tokens"} else []
    if late:
        raise OptionError(
            f"analyze the run {str(source)!r}",
            f"{', '.join(late)} cannot change readings that were recorded before",
            "Leave that out, or analyze one of the run's checkpoints.",
        )


def _trace(source: str | os.PathLike[str], wishes: Wishes) -> Trace:
    """The matrices of whatever a path holds."""
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
    late = [name for name in ("adapter", "taps", "settings") if getattr(wishes, name)]
    if late:
        raise OptionError(
            asked,
            f"{', '.join(late)} cannot change matrices that were captured before",
            "Measure the checkpoint or the model again.",
        )
    return trace


def _is_live(path: Path, kind: str, wishes: Wishes) -> bool:
    """Whether to run a model.

    Raises:
        OptionError: the wishes contradict each other, or a forward pass lacks model or inputs.
    """
    has_model = wishes.model is not None or kind == "hf-folder"
    asked = f"analyze {str(path)!r}"
    if wishes.probe in {"static", "isotropic"}:
        if wishes.taps:
            raise OptionError(
                f"{asked} with probe {wishes.probe}",
                "taps need a model that runs",
                "Use --probe tokens with --model and --inputs.",
            )
        return False
    wanted = wishes.probe == "tokens" or any(
        part is not None for part in (wishes.model, wishes.inputs, wishes.taps)
    )
    if not wanted:
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
    from mhc_diag.checkpoints.opening import open_checkpoint
    from mhc_diag.live import capture

    with open_checkpoint(path) as checkpoint:
        step = checkpoint.step
    asked = f"analyze {str(path)!r}"
    _require_step(wishes, step, asked)
    model = _model(path, wishes)
    inputs = _inputs(path, kind, model, wishes)
    with capture(
        model,
        adapter=wishes.adapter,
        taps=wishes.taps,
        tokens=wishes.tokens,
        seed=wishes.seed,
        settings=wishes.settings,
    ) as captured:
        _run(model, inputs, asked)
    trace = captured.trace(inputs.description)
    return replace(trace, source=Source(path=str(path), format=kind, step=step))


def _model(path: Path, wishes: Wishes) -> nn.Module:
    from mhc_diag import loading

    if wishes.model is None:
        return loading.model_from_hf_folder(path).to(wishes.device)
    if hasattr(wishes.model, "named_modules"):
        return cast("nn.Module", wishes.model)
    built = loading.build_model(wishes.model, path)
    return built.to(wishes.device)


def _inputs(path: Path, kind: str, model: nn.Module, wishes: Wishes) -> Inputs:
    """The arguments of the forward pass; given as objects, the capture itself hashes them."""
    from mhc_diag import loading

    given = wishes.inputs
    if isinstance(given, str | os.PathLike):
        return loading.load_inputs(
            str(given),
            seed=wishes.seed,
            folder=path if kind == "hf-folder" else None,
            vocab_size=loading.vocabulary_size(model),
        )
    if isinstance(given, Mapping):
        return loading.Inputs(args=(), kwargs=dict(given), description="")
    args = given if isinstance(given, tuple) else (given,)
    return loading.Inputs(args=args, description="")


def _run(model: nn.Module, inputs: Inputs, asked: str) -> None:
    """One forward pass where the model is, without gradients."""
    import torch

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def placed(value: Any) -> Any:
        return value.to(device) if isinstance(value, torch.Tensor) else value

    try:
        with torch.no_grad():
            model(*map(placed, inputs.args), **{k: placed(v) for k, v in inputs.kwargs.items()})
    except MhcDiagError:
        raise
    except Exception as error:  # the user's model may raise anything
        raise ModelError(
            asked,
            f"the model raised {type(error).__name__}: {error}",
            "Check that the inputs fit the model; --traceback shows where it happened.",
        ) from error


def _require_step(wishes: Wishes, step: int | None, asked: str) -> None:
    if wishes.step is not None and wishes.step != step:
        raise OptionError(
            f"{asked} at step {wishes.step}",
            "it says no step" if step is None else f"it is of step {step}",
            "Leave --step out, or give the checkpoint of that step.",
        )
