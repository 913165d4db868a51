"""Which firing follows which: execution order over several passes, and where a chain ends.

Letters: T tokens, n streams. A chain ends where streams are merged. What tells the end: another
place in the module tree, other tokens or another number of streams; and, where the streams
themselves were seen, the closure: x' of one site is x of the next, or it is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mhc_diag.adapters.sites import stem_of
from mhc_diag.observing import Firing, Observer

if TYPE_CHECKING:
    from mhc_diag.recording import Pass

_AUXILIARY = re.compile(r"(?:^|\.)mtp(?:_\w+)?(?:\.|$)")
"""Multi-token prediction heads, by the name that all code bases give them."""


@dataclass(slots=True, kw_only=True, eq=False)
class Column:
    """One site-to-be: a firing per pass, or the reason why there is none."""

    label: str
    """Name of the module; ``name#k`` where it fires several times in one pass."""
    observer: Observer
    firings: list[Firing] = field(default_factory=list)
    missing: str = ""

    @property
    def kind(self) -> tuple[int, ...]:
        """Streams, and the tokens seen in each pass: sites of one chain share it."""
        return (int(self.firings[0].M.shape[-1]), *(firing.n_seen for firing in self.firings))

    @property
    def stem(self) -> str:
        """Where in the module tree the site's stack of blocks stands."""
        return stem_of(self.observer.site.name)

    @property
    def is_auxiliary(self) -> bool:
        """Whether it belongs to an MTP head."""
        return bool(_AUXILIARY.search(self.observer.site.name))

    @property
    def is_fresh(self) -> bool:
        """Whether all streams entering were the same, as copies of one state are."""
        return all(firing.fresh for firing in self.firings)

    @property
    def closes(self) -> bool | None:
        """Whether x' of this site is x of the next of its kind; None where that was not seen."""
        errors = [firing.error for firing in self.firings if firing.error is not None]
        if not errors:
            return None
        return max(errors) < max(firing.tolerance for firing in self.firings)


@dataclass(slots=True, kw_only=True, eq=False)
class Link:
    """A chain in the making."""

    name: str
    auxiliary: bool
    columns: list[Column] = field(default_factory=list)


def columns_of(passes: Sequence[Pass], observers: Sequence[Observer]) -> list[Column]:
    """All expected sites in execution order; one that never fired stands after its neighbour."""
    by_name = {observer.site.name: observer for observer in observers}
    times = {
        name: max((len(one.firings.get(name, ())) for one in passes), default=0) for name in by_name
    }
    columns = []
    for name, k in _merged([_keys(one.sequence) for one in passes], list(by_name)):
        have = [one.firings[name][k] for one in passes if len(one.firings.get(name, ())) > k]
        missing = by_name[name].site.missing
        if not missing and len(have) < len(passes):
            missing = f"it fired in {len(have)} of {len(passes)} forward passes"
            if not have:
                missing = "it did not fire in any forward pass"
        label = f"{name}#{k}" if times[name] > 1 else name
        columns.append(Column(label=label, observer=by_name[name], firings=have, missing=missing))
    return columns


def chained(columns: Sequence[Column], known: Mapping[str, tuple[str, bool]]) -> list[Link]:
    """The measured columns as chains, in order of their first site; missing ones in their places.

    Args:
        columns: in execution order.
        known: label -> (chain, auxiliary), from an earlier measurement of the same model that saw
            the streams; empty when this one is to tell.
    """
    links: list[Link] = []
    for column in columns:
        if column.missing:
            if links:
                links[-1].columns.append(column)
            continue
        link = _known(links, column, known) if column.label in known else _continued(links, column)
        link.columns.append(column)
    if not links:
        return []
    first = next(k for k, column in enumerate(columns) if not column.missing)
    links[0].columns[:0] = columns[:first]
    return _named(links, known)


def _keys(sequence: Sequence[str]) -> list[tuple[str, int]]:
    """Names in order of firing -> (name, how often it has fired before)."""
    seen: dict[str, int] = {}
    keys = []
    for name in sequence:
        keys.append((name, seen.get(name, 0)))
        seen[name] = seen.get(name, 0) + 1
    return keys


def _merged(
    sequences: Sequence[Sequence[tuple[str, int]]], names: Sequence[str]
) -> list[tuple[str, int]]:
    """One order of all keys: the longest pass, the others' own keys after their predecessors."""
    order: list[tuple[str, int]] = []
    fired = {name for sequence in sequences for name, _ in sequence}
    silent = [[(name, 0) for name in names]] if fired != set(names) else []
    for sequence in [*sorted(sequences, key=len, reverse=True), *silent]:
        place = 0
        for key in sequence:
            if key in order:
                place = order.index(key) + 1
            elif sequence in silent and key[0] in fired:
                continue
            else:
                order.insert(place, key)
                place += 1
    return order


def _continued(links: list[Link], column: Column) -> Link:
    """The chain that this site goes on, or a new one."""
    for link in reversed(links):
        last = next((one for one in reversed(link.columns) if not one.missing), None)
        if last is None or last.kind != column.kind or last.is_auxiliary != column.is_auxiliary:
            continue
        if last.closes or (last.stem == column.stem and not _restarts(last, column, links)):
            return link
        break
    links.append(Link(name=column.stem, auxiliary=column.is_auxiliary))
    return links[-1]


def _restarts(last: Column, column: Column, links: list[Link]) -> bool:
    """Whether other streams begin here, although names and shapes go on."""
    if last.closes is not False:
        return False
    interrupted = links[-1].columns[-1] is not last
    return interrupted or column.is_fresh


def _known(links: list[Link], column: Column, known: Mapping[str, tuple[str, bool]]) -> Link:
    name, auxiliary = known[column.label]
    for link in links:
        if link.name == name:
            return link
    links.append(Link(name=name, auxiliary=auxiliary))
    return links[-1]


def _named(links: list[Link], known: Mapping[str, tuple[str, bool]]) -> list[Link]:
    """The only ordinary chain is ``main``; others are called after their place, and numbered."""
    if not known:
        ordinary = [link for link in links if not link.auxiliary]
        for link in links:
            alone = len(ordinary) == 1 and link is ordinary[0]
            link.name = "main" if alone else link.name or "main"
        taken: dict[str, int] = {}
        for link in links:
            taken[link.name] = taken.get(link.name, 0) + 1
            if taken[link.name] > 1:
                link.name = f"{link.name}.{taken[link.name]}"
    return sorted(links, key=lambda link: link.auxiliary)
