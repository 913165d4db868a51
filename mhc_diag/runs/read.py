"""Reading a run: what was recorded, step by step, while it grows or long after.

Letters: S recorded steps, L sites.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mhc_diag.errors import OptionError, RunError
from mhc_diag.runs.layout import STATS, ids_of, read_header, sites_of
from mhc_diag.runs.lines import Record, grid, parse
from mhc_diag.trace import DEFINITIONS, Site

if TYPE_CHECKING:
    import pandas as pd

_STEP = re.compile(rb'\{"step": (-?\d+),')
"""Start of a line, so that steps nobody asked for need not be parsed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunHistory:
    """One run: every recorded step, ascending; of a step recorded twice the last record."""

    label: str
    """What a report calls it: the name of the folder unless somebody gave another."""
    path: str
    steps: npt.NDArray[np.int64]
    """[S] training steps."""
    sites: tuple[Site, ...]
    """In execution order; the columns of ``values``."""
    values: Mapping[str, np.ma.MaskedArray[Any, Any]]
    """Metric id -> float64 [S, L], masked where not measured; NaN and infinity are values."""
    scalars: Mapping[str, np.ma.MaskedArray[Any, Any]]
    """loss, grad_norm, ... -> float64 [S], masked where a step did not record it (NaN below)."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """As in run.json."""
    orientation: Mapping[str, Any] = field(default_factory=dict)
    """As in run.json."""
    definitions: int = DEFINITIONS
    """Version of the metric definitions that the run was recorded with."""
    probes: tuple[Mapping[str, Any], ...] = ()
    """What each step was measured on (kind, tokens, seed, inputs); empty where nobody said."""


def load_run(
    path: str | Path,
    *,
    label: str | None = None,
    ids: Iterable[str] | None = None,
    sites: Iterable[int | str] | None = None,
    steps: Iterable[int] | slice | None = None,
) -> RunHistory:
    """Read a run folder as arrays.

    Args:
        path: the folder.
        label: what reports call it; the folder's name when None.
        ids: metric ids, names of scalars, or patterns of either; all when None.
        sites: indices or names of sites; all when None.
        steps: the steps wanted, or a slice ``slice(first, end)`` of step numbers; all when None.

    Raises:
        RunError: no run folder, or one that is damaged.
        OptionError: an id or a site that the run does not have.

    Warns:
        UserWarning: a line could not be read; names it. A torn last line is one.
    """
    folder = Path(path)
    header = read_header(folder)
    every = sites_of(header, folder)
    columns = _columns(every, sites, folder)
    wanted = _Wanted(ids)
    records = _records(folder, len(every), choose=_chooser(steps), wanted=wanted)
    ordered = [records[step] for step in sorted(records)]
    scalars = {name for record in ordered for name in record.scalars}
    wanted.require_all([*ids_of(header), *sorted(scalars)], folder)
    return history_of(folder, header, ordered, label=label, columns=columns, takes=wanted.takes)


def history_of(
    folder: Path,
    header: Mapping[str, Any],
    records: Sequence[Record],
    *,
    label: str | None = None,
    columns: Sequence[int] | None = None,
    takes: Callable[[str], bool] = lambda _: True,
) -> RunHistory:
    """Records as arrays.

    Args:
        folder: the run folder.
        header: its run.json.
        records: ascending by step, every step once.
        label: what reports call the run; the folder's name when None.
        columns: positions of the sites that are kept; all when None.
        takes: whether an id or a scalar is kept.
    """
    every = sites_of(header, folder)
    kept = range(len(every)) if columns is None else columns
    scalars = sorted({name for record in records for name in record.scalars if takes(name)})
    return RunHistory(
        label=folder.resolve().name if label is None else label,
        path=str(folder),
        steps=np.array([record.step for record in records], dtype=np.int64),
        sites=tuple(every[index] for index in kept),
        values={
            name: grid(records, name, kept, len(every)) for name in ids_of(header) if takes(name)
        },
        scalars={
            name: np.ma.MaskedArray(
                [record.scalars.get(name, np.nan) for record in records],
                mask=[name not in record.scalars for record in records],
                fill_value=np.nan,
            )
            for name in scalars
        },
        model=header["model"],
        orientation=header["orientation"],
        definitions=int(header["definitions"].get("version", DEFINITIONS)),
        probes=tuple(record.probe for record in records),
    )


def read_run(
    path: str | Path,
    *,
    ids: Iterable[str] | None = None,
    sites: Iterable[int | str] | None = None,
    steps: Iterable[int] | slice | None = None,
) -> pd.DataFrame:
    """A run as a long table: one row per step, site and id.

    Args:
        path: the run folder.
        ids: metric ids, names of scalars, or patterns of either; all when None.
        sites: indices or names of sites; all when None.
        steps: the steps wanted, or a slice of step numbers; all when None.

    Returns:
        Columns ``step`` (int64), ``site`` (Int64, null for scalars such as loss), ``id`` (text) and
        ``value`` (float64, NaN where not measured), ordered by step, then id, then site.

    Raises:
        RunError: no run folder, or one that is damaged.
        OptionError: an id or a site that the run does not have.

    Example:
        >>> read_run("runs/hc", ids=["loss", "composite.*.amax.mean"])  # doctest: +SKIP
    """
    import pandas as pd

    run = load_run(path, ids=ids, sites=sites, steps=steps)
    index = [site.index for site in run.sites]
    parts = [
        pd.DataFrame({"step": run.steps, "site": None, "id": name, "value": values.filled()})
        for name, values in run.scalars.items()
    ]
    for name, values in run.values.items():  # noqa: PD011  a mapping of ours, no frame
        part = {
            "step": np.repeat(run.steps, len(index)),
            "site": np.tile(np.array(index, dtype=np.int64), len(run.steps)),
            "id": name,
            "value": values.filled(np.nan).ravel(),
        }
        parts.append(pd.DataFrame(part))
    empty = {"step": "int64", "site": "Int64", "id": "str", "value": "float64"}
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in empty.items()})
    frame = pd.concat([part.astype(empty) for part in parts], ignore_index=True)
    return frame.sort_values("step", kind="stable", ignore_index=True)


class _Wanted:
    """Ids, names and patterns that the caller asked for; None asks for everything."""

    def __init__(self, ids: Iterable[str] | None) -> None:
        self.patterns = None if ids is None else (ids,) if isinstance(ids, str) else tuple(ids)

    def takes(self, name: str) -> bool:
        return self.patterns is None or any(fnmatch.fnmatchcase(name, p) for p in self.patterns)

    def require_all(self, names: Iterable[str], folder: Path) -> None:
        """Every pattern must match something."""
        known = list(dict.fromkeys(names))
        for pattern in self.patterns or ():
            if not fnmatch.filter(known, pattern):
                near = difflib.get_close_matches(pattern, known, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                raise OptionError(
                    f"read {pattern!r} of the run {str(folder)!r}",
                    "it was not recorded",
                    f"{hint}Recorded: {', '.join(known) or 'nothing'}.",
                )


def _columns(
    every: tuple[Site, ...], sites: Iterable[int | str] | None, folder: Path
) -> tuple[int, ...]:
    """Positions of the wanted sites, in execution order."""
    if sites is None:
        return tuple(range(len(every)))
    places = {site.index: k for k, site in enumerate(every)}
    names = {site.name: k for k, site in enumerate(every)}
    found = set()
    for site in sites:
        place = names.get(site) if isinstance(site, str) else places.get(int(site))
        if place is None:
            raise OptionError(
                f"read site {site!r} of the run {str(folder)!r}",
                f"it has {len(every)} sites"
                + (f", {every[0].name!r} to {every[-1].name!r}" if every else ""),
                "Name one of them, or give its index.",
            )
        found.add(place)
    return tuple(sorted(found))


def _chooser(steps: Iterable[int] | slice | None) -> Callable[[int], bool]:
    """Whether a step is wanted."""
    if steps is None:
        return lambda _step: True
    if isinstance(steps, slice):
        first, end, stride = steps.start, steps.stop, steps.step or 1
        return lambda step: (
            (first is None or step >= first)
            and (end is None or step < end)
            and (step - (first or 0)) % stride == 0
        )
    chosen = steps if isinstance(steps, range) else {int(step) for step in steps}
    return lambda step: step in chosen


def _records(
    folder: Path, n_sites: int, *, choose: Callable[[int], bool], wanted: _Wanted
) -> dict[int, Record]:
    """Step -> its last readable record."""
    records = {}
    for number, line in _lines(folder):
        whole = line.endswith(b"\n")
        start = _STEP.match(line)
        if whole and start and not choose(int(start[1])):
            continue
        record = parse(line, n_sites, wanted.takes) if whole else None
        if record is None:
            what = "is damaged" if whole else "is torn"
            warnings.warn(
                f"{folder / STATS}: line {number} {what} and was left out",
                UserWarning,
                stacklevel=4,
            )
        elif choose(record.step):
            records[record.step] = record
    return records


def _lines(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Number from 1, and content with its newline."""
    try:
        with (folder / STATS).open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise RunError(
            f"read the run {str(folder)!r}",
            f"{STATS}: {error.strerror or error}",
            "Restore it, or record anew.",
        ) from error
