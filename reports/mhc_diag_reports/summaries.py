"""Summaries of ids as cells of a table, with decimals that can be compared along the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mhc_diag.analysis import Analysis
from mhc_diag.rules.case import kept_sites
from mhc_diag_reports.readings import finite, values_of
from mhc_diag_reports.texts import MISSING, decimals_of, number

_GAINS = frozenset({"amax", "amin", "norm"})
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a table says about one id of one source."""

    values: tuple[float, ...] = ()
    """The worst value, or the smallest and the largest of an id without a bad end."""
    tail: str = ""
    """Behind the number: its site, or how many sites have none."""


def cell_of(analysis: Analysis, metric_id: str) -> Cell:
    """The worst value with its site, or the range of the numbers of an id without a bad end."""
    summary = analysis.summary.get(metric_id)
    if summary is None:
        return Cell()
    if summary.worst is not None:
        tail = "" if summary.site is None else f" at {summary.site}"
        return Cell(values=(summary.worst,), tail=tail)
    if summary.min is None or summary.max is None:
        return Cell()
    return _range(analysis, metric_id)


def _range(analysis: Analysis, metric_id: str) -> Cell:
    """Smallest and largest number over the sites that count; what is no number is counted."""
    held = values_of(analysis.metrics[metric_id])
    counted = [v for v, kept in zip(held, kept_sites(analysis.chains), strict=True) if kept]
    found = finite(counted)
    sites = [v for v in counted if v is not None]
    nans = sum(bool(np.isnan(v)) for v in sites)
    odd = ((nans, "NaN"), (len(sites) - nans - len(found), "infinite"))
    said = ", ".join(f"{amount} {word}" for amount, word in odd if amount)
    ends = (min(found), max(found)) if found else ()
    return Cell(values=ends, tail=f"{', ' if said and ends else ''}{said}")


def cell_texts(rows: Mapping[Row, Sequence[Cell]], *, plain: bool = False) -> dict[Row, list[str]]:
    """The rows of a table as text.

    Gains share their decimals over the whole table, since they are read down as well as across;
    other ids share them along their row.

    Args:
        rows: metric id, or a tuple of ids that stand in one row -> its cells.
        plain: as for :func:`~mhc_diag_reports.texts.number`.
    """
    needed = {
        key: decimals_of(v for cell in cells for v in cell.values) for key, cells in rows.items()
    }
    of_gains = max((d for key, d in needed.items() if _is_gain(key)), default=2)
    return {
        key: [_text(c, of_gains if _is_gain(key) else needed[key], plain=plain) for c in cells]
        for key, cells in rows.items()
    }


def _is_gain(key: object) -> bool:
    """Whether a row is of gains, which are all read against 1."""
    first = key if isinstance(key, str) else str(key[0]) if isinstance(key, tuple) else ""
    return bool(_GAINS & set(first.split(".")))


def _text(cell: Cell, decimals: int, *, plain: bool) -> str:
    """One cell; both ends of a range are written once where they read the same."""
    texts = dict.fromkeys(number(v, plain=plain, decimals=decimals) for v in cell.values)
    return f"{' to '.join(texts)}{cell.tail}" or MISSING
