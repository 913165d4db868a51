"""From recorded passes to a trace: execution order, chains, coverage, orientation.

Letters: L sites, T tokens, n streams. Sites that saw other tokens or another number of streams than
the rest form a chain of their own, since their matrices must not be multiplied with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mhc_diag.adapters.closure import verdict_of
from mhc_diag.arrays import to_numpy
from mhc_diag.errors import CaptureError
from mhc_diag.observing import Firing, Observer
from mhc_diag.trace import (
    Chain,
    Coverage,
    Model,
    Orientation,
    Precision,
    Probe,
    Site,
    Skipped,
    Source,
    Trace,
)

if TYPE_CHECKING:
    from mhc_diag.recording import Pass


@dataclass(slots=True, kw_only=True)
class Column:
    """One site-to-be: a firing per pass, or the reason why there is none."""

    name: str
    observer: Observer
    firings: list[Firing]
    missing: str = ""

    @property
    def kind(self) -> tuple[int, ...] | None:
        """Streams and the tokens seen in each pass; sites of one chain share it."""
        if not self.firings:
            return None
        return (int(self.firings[0].M.shape[-1]), *(firing.n_seen for firing in self.firings))


def assemble(
    passes: Sequence[Pass],
    order: Sequence[str],
    *,
    observers: Sequence[Observer],
    draw: tuple[int | None, int],
    labels: tuple[str, str],
    unclaimed: tuple[str, ...],
) -> Trace:
    """Make the trace.

    Args:
        passes: what was recorded.
        order: names of sites in the order in which they first fired.
        observers: all expected sites.
        draw: how many tokens to keep (None for all), and the seed.
        labels: the model's name, and what its inputs were.
        unclaimed: names that look like hyper-connections and were not taken.

    Raises:
        CaptureError: no site fired in every pass.
    """
    tokens, seed = draw
    columns = _columns(passes, order, observers)
    if all(one.missing for one in columns):
        raise CaptureError(
            f"a trace of {labels[0]}",
            f"none of {len(columns)} sites fired in each of {len(passes)} forward passes",
            "Call the same model the same way inside one capture.",
        )
    rows = _final_rows(columns, tokens, seed)
    chains = _chains(columns, rows)
    skipped = tuple(Skipped(site=one.name, why=one.missing) for one in columns if one.missing)
    fired = [firing for one in columns if not one.missing for firing in one.firings]
    return Trace(
        source=Source(path=labels[0], format="model"),
        model=_model(observers[0], fired),
        orientation=_orientation(observers[0], fired),
        probe=Probe(
            kind="tokens",
            tokens=chains[0].n_tokens,
            seed=None if tokens is None else seed,
            inputs=labels[1],
        ),
        coverage=Coverage(
            expected=len(columns),
            measured=len(columns) - len(skipped),
            skipped=skipped,
            unclaimed=unclaimed,
        ),
        chains=chains,
    )


def _columns(
    passes: Sequence[Pass], order: Sequence[str], observers: Sequence[Observer]
) -> list[Column]:
    """All expected sites in execution order; one that never fired stands after its neighbour."""
    by_name = {observer.site.name: observer for observer in observers}
    names = list(order)
    for before, observer in zip([None, *observers], observers, strict=False):
        if observer.site.name not in names:
            names.insert(names.index(before.site.name) + 1 if before else 0, observer.site.name)
    return [column for name in names for column in _columns_of(name, by_name[name], passes)]


def _columns_of(name: str, observer: Observer, passes: Sequence[Pass]) -> list[Column]:
    counts = [len(one.firings.get(name, ())) for one in passes]
    times = max(counts)
    if times == 0:
        why = "it did not fire in any forward pass"
        return [Column(name=name, observer=observer, firings=[], missing=why)]
    columns = []
    for k in range(times):
        label = name if times == 1 else f"{name}#{k}"
        have = [one.firings[name][k] for one in passes if len(one.firings.get(name, ())) > k]
        missing = (
            ""
            if len(have) == len(passes)
            else f"it fired in {len(have)} of {len(passes)} forward passes"
        )
        columns.append(Column(name=label, observer=observer, firings=have, missing=missing))
    return columns


def _final_rows(columns: list[Column], tokens: int | None, seed: int) -> list[Any]:
    """Per pass, which of the kept tokens stay, so that the passes together hold ``tokens``."""
    import torch

    whole = next(one for one in columns if not one.missing)
    kept = [int(firing.M.shape[0]) for firing in whole.firings]
    if tokens is None or sum(kept) <= tokens:
        return [None] * len(kept)
    share, rest = divmod(tokens, len(kept))
    rows = []
    for index, count in enumerate(kept):
        quota = min(count, share + (index < rest))
        generator = torch.Generator().manual_seed(hash((seed, index, 1)) & 0x7FFFFFFF)
        rows.append(torch.sort(torch.randperm(count, generator=generator)[:quota]).values)
    return rows


def _chains(columns: list[Column], rows: list[Any]) -> tuple[Chain, ...]:
    kinds: dict[tuple[int, ...], list[Column]] = {}
    for column in columns:
        if column.kind is not None and not column.missing:
            kinds.setdefault(column.kind, []).append(column)
    largest = max(kinds, key=lambda kind: len(kinds[kind]))
    for column in columns:
        if column.missing:
            kinds[largest].append(column)
    chains, start = [], 0
    for kind in sorted(kinds, key=lambda one: one != largest):
        members = [one for one in columns if one in kinds[kind]]
        name = (
            "main" if kind == largest else f"streams{kind[0]}.tokens{'+'.join(map(str, kind[1:]))}"
        )
        chains.append(
            _chain(name, members, rows if kind == largest else [None] * len(kind[1:]), start)
        )
        start += len(members)
    return tuple(chains)


def _chain(name: str, members: list[Column], rows: list[Any], start: int) -> Chain:
    return Chain(
        name=name,
        sites=tuple(
            Site(
                index=index,
                chain=name,
                name=one.name,
                layer=one.observer.site.layer,
                sublayer=one.observer.site.sublayer,
            )
            for index, one in enumerate(members, start)
        ),
        measured=tuple(not one.missing for one in members),
        M=_stack(members, "M", rows),
        H_pre=_stack(members, "H_pre", rows),
        H_post=_stack(members, "H_post", rows),
        gram=_stack(members, "gram", rows, may_lack=True),
        logits=_stack(members, "logits", rows),
    )


def _stack(members: list[Column], field: str, rows: list[Any], *, may_lack: bool = False) -> Any:
    """[L, T, ...] of one field; NaN at unmeasured sites; None where the sites do not have it.

    Host tensors become numpy, tensors of a device stay there.
    """
    import torch

    whole = [one for one in members if not one.missing]
    have = [all(getattr(firing, field) is not None for firing in one.firings) for one in whole]
    if not (any(have) if may_lack else all(have)):
        return None
    blocks = {}
    for one, complete in zip(whole, have, strict=True):
        if complete:
            parts = [getattr(firing, field) for firing in one.firings]
            parts = [
                p if r is None else p.index_select(0, r.to(p.device))
                for p, r in zip(parts, rows, strict=True)
            ]
            blocks[one.name] = torch.cat(parts)
    pattern = next(iter(blocks.values()))
    empty = torch.full_like(pattern, float("nan"))
    stacked = torch.stack([blocks.get(one.name, empty) for one in members])
    return to_numpy(stacked) if stacked.device.type == "cpu" else stacked


def _model(first: Observer, fired: list[Firing]) -> Model:
    adapter = first.site.adapter
    computed = str(fired[0].M.dtype).removeprefix("torch.")
    applied = fired[0].applied
    return Model(
        adapter=adapter.name if adapter else "tap",
        family=adapter.family if adapter else "custom",
        width=_width(first),
        precision=Precision(computed=computed, applied=applied),
        settings=first.settings,
        input_dependent=adapter.input_dependent if adapter else True,
    )


def _width(observer: Observer) -> int | None:
    """C from the shapes of the module's own parameters."""
    from mhc_diag.adapters.modules import parameters_by_role

    adapter = observer.site.adapter
    if adapter is None:
        return None
    shapes = {
        role: tuple(p.shape)
        for role, p in parameters_by_role(adapter, observer.site.module).items()
    }
    fit = adapter.fits(shapes)
    return fit[1] if fit else None


def _orientation(first: Observer, fired: list[Firing]) -> Orientation:
    import torch

    errors = [(f.error, f.error_transposed) for f in fired if f.error is not None]
    if not errors:
        return Orientation(stored=first.stored)
    error = max(e for e, _ in errors if e is not None)
    transposed = max(e for _, e in errors if e is not None)
    roundoff = max(torch.finfo(getattr(torch, firing.applied)).eps for firing in fired)
    return Orientation(
        stored=first.stored,
        verified=verdict_of(error, transposed, roundoff),
        error=error,
        error_transposed=transposed,
    )
