"""One line of ``stats.jsonl`` as a record, whoever reads it: all at once, or as it grows.

Letters: L sites, S recorded steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One line, of which only what is wanted was kept."""

    step: int
    time: float
    """Seconds since 1970 on the machine that wrote it; NaN where the line does not say."""
    scalars: Mapping[str, float]
    """All of them: there are few."""
    probe: Mapping[str, Any]
    """What the step was measured on (kind, tokens, seed, inputs); empty where nobody said."""
    rows: Mapping[str, tuple[Floats, npt.NDArray[np.bool_]]]
    """Metric id -> values [L] and where they are missing [L]."""


def parse(
    line: bytes, n_sites: int, takes: Callable[[str], bool] = lambda _: True
) -> Record | None:
    """A record, or None for a line that is none.

    Args:
        line: with or without its newline.
        n_sites: L; a record of another number of sites is none.
        takes: whether an id is wanted.
    """
    try:
        content = json.loads(line)
        if any(len(row) != n_sites for row in content["values"].values()):
            return None
        return Record(
            step=int(content["step"]),
            time=_float(content.get("time")),
            scalars={name: _float(value) for name, value in content["scalars"].items()},
            probe=dict(content.get("probe") or {}),
            rows={
                name: (np.array([_float(v) for v in row]), np.array([v is None for v in row]))
                for name, row in content["values"].items()
                if takes(name)
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def grid(
    records: Sequence[Record], name: str, columns: Sequence[int], n_sites: int
) -> np.ma.MaskedArray[Any, Any]:
    """One id of several records, [S, len(columns)]; masked where not measured."""
    gap = (np.full(n_sites, np.nan), np.ones(n_sites, dtype=bool))
    rows = [record.rows.get(name, gap) for record in records]
    shape = (len(rows), n_sites)
    values = np.array([row for row, _ in rows], dtype=np.float64).reshape(shape)
    mask = np.array([missing for _, missing in rows], dtype=bool).reshape(shape)
    chosen = list(columns)
    return np.ma.MaskedArray(values[:, chosen], mask=mask[:, chosen], fill_value=np.nan)


def _float(value: Any) -> float:
    """A number as JSON carries it: null and "nan" are NaN, "inf" is infinity."""
    return float("nan") if value is None else float(value)
