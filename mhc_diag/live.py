"""A running model -> a trace: hooks on every site, gone on exit whatever happens inside.

    with md.capture(model) as capture:
        model(input_ids)
    trace = capture.trace()

What the model computes is not touched: outputs, gradients and random state are the same to the bit.
A model compiled by torch runs eagerly inside the context, so that hooks that come after warm-up
still see every site.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from mhc_diag.adapters.modules import find_sites, unclaimed_modules
from mhc_diag.adapters.taps import Tap
from mhc_diag.errors import CaptureError, ModelError, OptionError
from mhc_diag.hooks import attach
from mhc_diag.observing import Observer
from mhc_diag.recording import Recording
from mhc_diag.trace import Trace


class capture:  # noqa: N801  used as a function: with md.capture(model) as capture
    """Record the maps of every site while the model runs.

    Args:
        model: an nn.Module with hyper-connections that an adapter knows, or with ``taps``.
        adapter: name of the adapter to take; recognised from the modules when None.
        taps: pattern over module names -> :func:`mhc_diag.tap`, for anybody else's module.
        tokens: how many tokens to keep over the whole capture, the same at every site; all when
            None. Drawn without replacement from those that ``attention_mask`` leaves.
        seed: of that draw.
        settings: values that neither weights nor module say.

    Raises:
        NoHyperConnectionsError: the model has none that is known; says what was looked for.
        AdapterError: two code bases in one model, or a form that needs a tap.
        OptionError: ``tokens`` below one, or a setting that the adapter does not have.
    """

    def __init__(
        self,
        model: Any,
        *,
        adapter: str | None = None,
        taps: Mapping[str, Tap] | None = None,
        tokens: int | None = None,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not hasattr(model, "named_modules"):
            raise ModelError(
                "capture a model",
                f"{type(model).__name__} is no nn.Module",
                "Give the model itself.",
            )
        if tokens is not None and tokens < 1:
            raise OptionError(
                "capture", f"tokens={tokens}", "Ask for at least one token, or None for all."
            )
        self._model = model
        self._sites = find_sites(model, adapter=adapter, taps=taps)
        self._observers = [Observer(site, settings or {}) for site in self._sites]
        self._recording = Recording(tokens=tokens, seed=seed)
        self._hooks: ExitStack | None = None

    def __enter__(self) -> Self:
        """Attach the hooks.

        Raises:
            CaptureError: they are attached already.
        """
        if self._hooks is not None:
            raise CaptureError(
                f"enter a capture of {type(self._model).__name__}",
                "it is entered already, and its hooks are on the model",
                "Leave it first, or make a second md.capture(model).",
            )
        self._hooks = attach(self._model, self._observers, self._recording)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove every hook."""
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.close()

    def trace(self, inputs: str = "") -> Trace:
        """What was recorded.

        Args:
            inputs: description of the inputs; by default the sha256 of the integer tensors that
                the model was called with.

        Raises:
            CaptureError: no forward pass was completed inside the context.
        """
        if not self._recording.passes:
            raise CaptureError(
                f"a trace of {type(self._model).__name__}",
                f"0 of {len(self._sites)} sites fired: no forward pass was completed inside",
                "Call the model inside 'with md.capture(model) as capture:'.",
            )
        return self._recording.trace(
            observers=self._observers,
            source=type(self._model).__name__,
            inputs=inputs,
            unclaimed=unclaimed_modules(self._model, self._sites),
        )
