"""What a capture keeps: forward passes of firings, and the trace they become.

Letters: L sites, T tokens, n streams. A pass is one call of the outermost module that contains
sites; a pass that raised is dropped whole, so that every site always holds the same tokens.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mhc_diag.adapters.closure import close
from mhc_diag.assembly import assemble
from mhc_diag.errors import MhcDiagError
from mhc_diag.model_inputs import digest_of, mask_of
from mhc_diag.observing import Firing, Observer
from mhc_diag.trace import Trace

_CLOSURE_TOKENS = 1024
"""Tokens per step of the closure, which works in float64 on streams of full width."""


def is_recomputing() -> bool:
    """Whether a backward pass is running: then activation checkpointing repeats a forward pass."""
    import torch

    return torch._C._current_graph_task_id() != -1  # noqa: SLF001  no public name tells it


def is_rehearsal() -> bool:
    """Whether a pipeline stage runs its part of the model to learn shapes, on made-up tensors.

    torch.distributed.pipelining does so before the first microbatch and whenever shapes change.
    Real microbatches come through the stage's ``forward_one_chunk``.
    """
    frame = sys._getframe()  # noqa: SLF001  the only way to see who calls the model
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.distributed.pipelining.stage":
            if frame.f_code.co_name == "forward_one_chunk":
                return False
            if frame.f_code.co_name != "forward_maybe_with_nosync":
                return True
        frame = frame.f_back  # type: ignore[assignment]  # None at the bottom
    return False


@dataclass(slots=True, kw_only=True)
class Pass:
    """One forward pass."""

    rehearsal: bool = False
    """Whether it is no training, and will be forgotten."""
    spoiled: bool = False
    """Whether a site of it could not be read: then it will be forgotten too."""

    firings: dict[str, list[Firing]] = field(default_factory=dict)
    """Site name -> its firings, in order."""
    sequence: list[str] = field(default_factory=list)
    """Site names in the order of all firings."""
    mask: Any = None
    """[T] bool from ``attention_mask``, or None."""
    rows: dict[int, Any] = field(default_factory=dict)
    """Number of tokens seen -> the tokens that are kept, None for all."""
    open: dict[tuple[int, ...], Firing] = field(default_factory=dict)
    """Shape of the streams -> the latest site with that shape, whose x' has not been seen yet."""
    digest: bytes = b""
    """Of the token ids that the model was called with; empty where there were none."""


class Recording:
    """Collects passes.

    Args:
        tokens: how many tokens to keep over all passes, or None for all.
        seed: of the draw.
        training_only: pass over modules that are not in training mode.
        matrices_only: keep M alone: no streams, no closure, no H_pre.
        known: site -> (chain, auxiliary), from an earlier measurement of the same model that saw
            the streams.
        trouble: is told of a site that cannot be read, and the pass is dropped; without it the
            error goes to whoever runs the model.
    """

    def __init__(
        self,
        *,
        tokens: int | None,
        seed: int,
        training_only: bool = False,
        matrices_only: bool = False,
        known: Mapping[str, tuple[str, bool]] | None = None,
        trouble: Callable[[MhcDiagError], None] | None = None,
    ) -> None:
        self.tokens, self.seed = tokens, seed
        self.training_only, self.matrices_only = training_only, matrices_only
        self.known = dict(known or {})
        self._trouble = trouble
        self._passes: list[Pass] = []
        self._lone: Pass | None = None
        self._running: list[int] = []
        self._completed = False
        self._current: Pass | None = None

    @property
    def passes(self) -> list[Pass]:
        """All passes that were completed."""
        self._settle()
        return self._passes

    def enter(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook of every module that contains sites."""
        if is_recomputing():
            return
        if not self._running or self._running[0] == id(module):
            self._running = []  # an interrupted pass may have left its modules here
            self._settle()
            rehearsal = is_rehearsal()
            self._current, self._completed = Pass(rehearsal=rehearsal), False
            if not rehearsal:
                self._current.digest = digest_of([*args, *kwargs.values()])
        if self._current is not None and self._current.mask is None:
            self._current.mask = mask_of(module, args, kwargs)
        self._running.append(id(module))

    def complete(self, module: Any, args: Any, output: Any) -> None:
        """Hook that runs only when the module returned."""
        if not is_recomputing() and self._running == [id(module)]:
            self._completed = True

    def leave(self, module: Any, args: Any, output: Any) -> None:
        """Hook that runs even when the module raised: closes the pass or drops it.

        A module whose other pre-hooks raised was never entered; it is not on the stack.
        """
        if is_recomputing() or not self._running or self._running[-1] != id(module):
            return
        self._running.pop()
        if not self._running and self._current is not None:
            if self._completed:
                self._commit(self._current)
            self._current = None

    def add(self, observer: Observer, args: tuple[Any, ...], output: Any) -> None:
        """One firing; those outside any containing module are one pass until a site comes again."""
        if self.training_only and not observer.site.module.training:
            return
        name = observer.site.name
        current = self._current if self._current is not None else self._alone(name)
        if current.rehearsal or current.spoiled:
            return
        try:
            self._add(current, observer, args, output)
        except MhcDiagError as error:
            if self._trouble is None:
                raise
            current.spoiled = True
            self._trouble(error)

    def forget(self) -> None:
        """Drop all passes so far."""
        self._settle()
        self._passes.clear()

    def _add(self, current: Pass, observer: Observer, args: tuple[Any, ...], output: Any) -> None:
        name = observer.site.name
        seen = observer.observe(args, output)
        rows = self._rows(current, seen.n_tokens)
        if rows is not None and not len(rows):
            return  # every token of this microbatch is padding
        firing = observer.fire(seen, rows, matrices_only=self.matrices_only)
        if firing.x is not None:
            self._close(current, firing.x)
            current.open[tuple(firing.x.shape)] = firing
        current.firings.setdefault(name, []).append(firing)
        current.sequence.append(name)

    def close_last(self, streams: Any) -> None:
        """The streams at the end of the chain, as the merging module received them."""
        if self._current is None:
            return
        for T, n, C in list(self._current.open):
            seen, rest = divmod(streams.numel(), n * C)
            rows = self._current.rows.get(seen)
            if (
                rest == 0
                and streams.shape[-1] in {C, n * C}
                and (seen if rows is None else len(rows)) == T
            ):
                x = streams.detach().reshape(-1, n, C)
                self._close(
                    self._current, x if rows is None else x.index_select(0, rows.to(x.device))
                )

    def trace(
        self, *, observers: list[Observer], source: str, inputs: str, unclaimed: tuple[str, ...]
    ) -> Trace:
        """Everything that was recorded, as a trace."""
        return assemble(
            self.passes,
            observers,
            draw=(self.tokens, self.seed),
            labels=(source, inputs or self._inputs()),
            unclaimed=unclaimed,
            known=self.known,
        )

    def _inputs(self) -> str:
        """What the passes were called with, as a hash."""
        digests = [one.digest for one in self.passes]
        if not all(digests):
            return "inputs that are no tensors"
        whole = hashlib.sha256(b"".join(one[1:] for one in digests)).hexdigest()
        ids = all(one[:1] == b"i" for one in digests)
        return f"sha256:{whole}" if ids else f"floats sha256:{whole}"

    def _alone(self, name: str) -> Pass:
        """The pass of firings outside any containing module."""
        if self._lone is not None and name in self._lone.firings:
            self._settle()
        if self._lone is None:
            self._lone = Pass(rehearsal=is_rehearsal(), digest=b"i")
        return self._lone

    def _settle(self) -> None:
        """Close the pass of lone firings."""
        lone, self._lone = self._lone, None
        if lone is not None:
            self._commit(lone)

    def _rows(self, current: Pass, n_seen: int) -> Any:
        """The tokens of this pass that are kept: the same at every site that sees ``n_seen``."""
        if n_seen not in current.rows:
            current.rows[n_seen] = self._draw(current, n_seen)
        return current.rows[n_seen]

    def _draw(self, current: Pass, n_seen: int) -> Any:
        import torch

        mask = current.mask
        fits = mask is not None and mask.numel() == n_seen
        candidates = torch.nonzero(mask).flatten().cpu() if fits else torch.arange(n_seen)
        if self.tokens is None or self.tokens >= len(candidates):
            return candidates if fits and len(candidates) < n_seen else None
        generator = torch.Generator().manual_seed(hash((self.seed, len(self._passes))) & 0x7FFFFFFF)
        drawn = torch.randperm(len(candidates), generator=generator)[: self.tokens]
        return candidates[torch.sort(drawn).values]

    def _close(self, current: Pass, x_next: Any) -> None:
        """Explain ``x_next`` by the site of its kind before it, and let go of its streams."""
        firing = current.open.pop(tuple(x_next.shape), None)
        if firing is None:
            return
        x, firing.x = firing.x, None
        if firing.H_post is not None:
            _prove(firing, x, x_next.detach())

    def _commit(self, done: Pass) -> None:
        for firing in done.open.values():
            firing.x = None
        if done.firings and not done.rehearsal and not done.spoiled:
            self._passes.append(done)


def _prove(firing: Firing, x: Any, x_next: Any) -> None:
    """Closure and Gram matrix of one firing, a bounded number of tokens at a time."""
    import torch

    dtype = getattr(torch, firing.applied)
    M, H_post = firing.M.to(dtype), firing.H_post.to(dtype)
    with torch.no_grad():
        parts = [
            close(x[rows], x_next[rows], M[rows], H_post[rows])
            for start in range(0, len(x), _CLOSURE_TOKENS)
            if (rows := slice(start, start + _CLOSURE_TOKENS))
        ]
    firing.gram = torch.cat([part.gram for part in parts])
    firing.error = max(float(part.error.max()) for part in parts)
    firing.error_transposed = max(float(part.error_transposed.max()) for part in parts)
