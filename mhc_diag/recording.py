"""What a capture keeps: forward passes of firings, and the trace they become.

Letters: L sites, T tokens, n streams. A pass is one call of the outermost module that contains
sites; a pass that raised is dropped whole, so that every site always holds the same tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from mhc_diag.adapters.closure import close
from mhc_diag.assembly import assemble
from mhc_diag.observing import Firing, Observer
from mhc_diag.trace import Trace

_CLOSURE_TOKENS = 1024
"""Tokens per step of the closure, which works in float64 on streams of full width."""


def is_recomputing() -> bool:
    """Whether a backward pass is running: then activation checkpointing repeats a forward pass."""
    import torch

    return torch._C._current_graph_task_id() != -1  # noqa: SLF001  no public name tells it


@dataclass(slots=True, kw_only=True)
class Pass:
    """One forward pass."""

    firings: dict[str, list[Firing]] = field(default_factory=dict)
    """Site name -> its firings, in order."""
    mask: Any = None
    """[T] bool from ``attention_mask``, or None."""
    rows: dict[int, Any] = field(default_factory=dict)
    """Number of tokens seen -> the tokens that are kept, None for all."""
    last: tuple[Observer, Firing] | None = None
    """The site whose x' has not been seen yet."""


class Recording:
    """Collects passes.

    Args:
        tokens: how many tokens to keep over all passes, or None for all.
        seed: of the draw.
        training_only: pass over modules that are not in training mode.
        matrices_only: keep M alone: no streams, no closure, no H_pre.
    """

    def __init__(
        self,
        *,
        tokens: int | None,
        seed: int,
        training_only: bool = False,
        matrices_only: bool = False,
    ) -> None:
        self.tokens, self.seed = tokens, seed
        self.training_only, self.matrices_only = training_only, matrices_only
        self.passes: list[Pass] = []
        self.order: list[str] = []
        """Names of sites in the order in which they first fired."""
        self._hash = hashlib.sha256()
        self._hashed = False
        self._running: list[int] = []
        self._completed = False
        self._current: Pass | None = None

    def enter(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook of every module that contains sites."""
        if is_recomputing():
            return
        if not self._running or self._running[0] == id(module):
            self._running = []  # an interrupted pass may have left its modules here
            self._current, self._completed = Pass(mask=_mask(kwargs)), False
            self._digest([*args, *kwargs.values()])
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
        """One firing; outside any containing module it is a pass of its own."""
        if self.training_only and not observer.site.module.training:
            return
        alone = self._current is None
        current = Pass() if self._current is None else self._current
        seen = observer.observe(args, output)
        rows = self._rows(current, seen.n_tokens)
        firing = observer.fire(seen, rows, matrices_only=self.matrices_only)
        if firing.x is not None:
            self._close(current, firing.x)
            current.last = (observer, firing)
        current.firings.setdefault(observer.site.name, []).append(firing)
        if alone:
            self._commit(current)

    def close_last(self, streams: Any) -> None:
        """The streams at the end of the chain, as the merging module received them."""
        if self._current is None or self._current.last is None:
            return
        _, firing = self._current.last
        n, C = firing.x.shape[1:]
        x = streams.detach().reshape(-1, n, C)
        rows = self._current.rows.get(int(x.shape[0]))
        self._close(self._current, x if rows is None else x.index_select(0, rows.to(x.device)))

    def trace(
        self, *, observers: list[Observer], source: str, inputs: str, unclaimed: tuple[str, ...]
    ) -> Trace:
        """Everything that was recorded, as a trace."""
        if not inputs:
            inputs = (
                f"sha256:{self._hash.hexdigest()}"
                if self._hashed
                else "inputs that are not token ids"
            )
        return assemble(
            self.passes,
            self.order,
            observers=observers,
            draw=(self.tokens, self.seed),
            labels=(source, inputs),
            unclaimed=unclaimed,
        )

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
        generator = torch.Generator().manual_seed(hash((self.seed, len(self.passes))) & 0x7FFFFFFF)
        drawn = torch.randperm(len(candidates), generator=generator)[: self.tokens]
        return candidates[torch.sort(drawn).values]

    def _close(self, current: Pass, x_next: Any) -> None:
        """Explain ``x_next`` by the site before it, and let go of that site's streams."""
        if current.last is None:
            return
        _, firing = current.last
        current.last = None
        x, firing.x = firing.x, None
        if firing.H_post is None or x.shape != x_next.shape:
            return
        _prove(firing, x, x_next.detach())

    def _commit(self, done: Pass) -> None:
        if not done.firings:
            return
        if done.last is not None:
            done.last[1].x = None
        self.passes.append(done)
        self.order += [name for name in done.firings if name not in self.order]

    def _digest(self, values: list[Any]) -> None:
        for value in values:
            if hasattr(value, "is_floating_point") and not value.is_floating_point():
                self._hash.update(f"{tuple(value.shape)}".encode())
                self._hash.update(value.detach().cpu().contiguous().numpy().tobytes())
                self._hashed = True


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


def _mask(kwargs: dict[str, Any]) -> Any:
    """[T] bool of the tokens that count, where the model was given an attention mask [B, S]."""
    mask = kwargs.get("attention_mask")
    return (
        mask.detach().bool().flatten()
        if mask is not None and getattr(mask, "ndim", 0) == 2
        else None
    )
