"""From recorded passes to a trace: chains, tokens, coverage, orientation.

Letters: L sites, T tokens, n streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mhc_diag.adapters.closure import verdict_of
from mhc_diag.adapters.modules import width_of
from mhc_diag.arrays import to_numpy
from mhc_diag.chaining import Column, Link, chained, columns_of
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


def assemble(
    passes: Sequence[Pass],
    observers: Sequence[Observer],
    *,
    draw: tuple[int | None, int],
    labels: tuple[str, str],
    unclaimed: tuple[str, ...],
    known: Mapping[str, tuple[str, bool]],
) -> Trace:
    """Make the trace.

    Args:
        passes: what was recorded.
        observers: all expected sites.
        draw: how many tokens to keep (None for all), and the seed.
        labels: the model's name, and what its inputs were.
        unclaimed: names that look like hyper-connections and were not taken.
        known: site -> (chain, auxiliary) of an earlier measurement of the same model.

    Raises:
        CaptureError: no site fired in every pass.
    """
    columns = columns_of(passes, observers)
    links = chained(columns, known)
    if not links:
        raise CaptureError(
            f"a trace of {labels[0]}",
            f"none of {len(columns)} sites fired in each of {len(passes)} forward passes",
            "Call the same model the same way inside one capture.",
        )
    _forget_across(links)
    chains = _chains(links, draw)
    measured = [column for column in columns if not column.missing]
    skipped = tuple(Skipped(site=one.label, why=one.missing) for one in columns if one.missing)
    return Trace(
        source=Source(path=labels[0], format="model"),
        model=_model(measured[0]),
        orientation=_orientation(measured),
        probe=Probe(
            kind="tokens",
            tokens=chains[0].n_tokens,
            seed=None if draw[0] is None else draw[1],
            inputs=labels[1],
        ),
        coverage=Coverage(
            expected=len(columns),
            measured=len(measured),
            skipped=skipped,
            unclaimed=unclaimed,
        ),
        chains=chains,
    )


def _forget_across(links: Sequence[Link]) -> None:
    """What the last site of a chain left is not what another chain began with: no proof of it."""
    for link in links:
        last = next(one for one in reversed(link.columns) if not one.missing)
        if last.closes is False and len(links) > 1:
            for firing in last.firings:
                firing.error = firing.error_transposed = firing.gram = None


def _chains(links: Sequence[Link], draw: tuple[int | None, int]) -> tuple[Chain, ...]:
    chains, start = [], 0
    for link in links:
        whole = next(one for one in link.columns if not one.missing)
        chains.append(_chain(link, _final_rows(whole, draw), start))
        start += len(link.columns)
    return tuple(chains)


def _final_rows(whole: Column, draw: tuple[int | None, int]) -> list[Any]:
    """Per pass, which of the kept tokens stay, so that all passes hold as many as asked."""
    import torch

    tokens, seed = draw
    kept = [int(firing.M.shape[0]) for firing in whole.firings]
    if tokens is None or sum(kept) <= tokens:
        return [None] * len(kept)
    rows = []
    for index, (count, quota) in enumerate(zip(kept, _quotas(kept, tokens), strict=True)):
        generator = torch.Generator().manual_seed(hash((seed, index, 1)) & 0x7FFFFFFF)
        rows.append(torch.sort(torch.randperm(count, generator=generator)[:quota]).values)
    return rows


def _quotas(kept: Sequence[int], tokens: int) -> list[int]:
    """Shares of ``tokens``, even as far as each pass has enough of them.

    Example:
        >>> _quotas([10, 1000, 1000], 110)
        [10, 50, 50]
    """
    quotas = [0] * len(kept)
    left = tokens
    for place, index in enumerate(sorted(range(len(kept)), key=lambda one: (kept[one], -one))):
        quotas[index] = min(kept[index], left // (len(kept) - place))
        left -= quotas[index]
    return quotas


def _chain(link: Link, rows: list[Any], start: int) -> Chain:
    members = link.columns
    return Chain(
        name=link.name,
        auxiliary=link.auxiliary,
        sites=tuple(
            Site(
                index=index,
                chain=link.name,
                name=one.label,
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
                part if row is None else part.index_select(0, row.to(part.device))
                for part, row in zip(parts, rows, strict=True)
            ]
            blocks[one.label] = torch.cat(parts)
    empty = torch.full_like(next(iter(blocks.values())), float("nan"))
    stacked = torch.stack([blocks.get(one.label, empty) for one in members])
    return to_numpy(stacked) if stacked.device.type == "cpu" else stacked


def _model(first: Column) -> Model:
    adapter = first.observer.site.adapter
    firing = first.firings[0]
    return Model(
        adapter=adapter.name if adapter else "tap",
        family=adapter.family if adapter else "custom",
        width=width_of(first.observer.site),
        precision=Precision(
            computed=str(firing.M.dtype).removeprefix("torch."), applied=firing.applied
        ),
        settings=first.observer.settings,
        input_dependent=adapter.input_dependent if adapter else True,
    )


def _orientation(measured: Sequence[Column]) -> Orientation:
    """The weakest proof of all sites."""
    stored = measured[0].observer.stored
    proved: list[Firing] = [
        firing for one in measured for firing in one.firings if firing.error is not None
    ]
    if not proved:
        return Orientation(stored=stored)
    error = max(firing.error or 0.0 for firing in proved)
    transposed = max(firing.error_transposed or 0.0 for firing in proved)
    return Orientation(
        stored=stored,
        verified=verdict_of(error, transposed, max(firing.tolerance for firing in proved)),
        error=error,
        error_transposed=transposed,
    )
