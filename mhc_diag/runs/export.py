"""Runs as one long table in a file: a row per run, step, site and id.

Letters: S recorded steps, L sites.

========== ===================================================================================
run        label of the run
step       training step
site       index of the site; nothing for scalars such as loss
site_name  its name; nothing for scalars
id         metric id, or name of the scalar
value      the number; nothing where it was not measured, ``nan`` and ``inf`` where it is so
========== ===================================================================================

Rows are ordered by run, step, id (scalars first) and site. Both kinds of file are written piece by
piece, so that a long run needs no more memory than reading it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mhc_diag.errors import MissingExtraError, OptionError
from mhc_diag.files import atomic_file
from mhc_diag.runs.read import RunHistory

COLUMNS = ("run", "step", "site", "site_name", "id", "value")
SUFFIXES = (".csv", ".parquet")
_ROWS = 500_000
"""Rows of one piece, about: what a row group of a Parquet file should have."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Piece:
    """Some steps of one run, as columns of equal length; words as places in ``words``."""

    words: tuple[str, ...]
    run: npt.NDArray[np.int32]
    step: npt.NDArray[np.int64]
    site: npt.NDArray[np.int64]
    """-1 where there is none."""
    site_name: npt.NDArray[np.int32]
    """-1 where there is none."""
    id: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    missing: npt.NDArray[np.bool_]


def export_runs(runs: Sequence[RunHistory], path: str | Path) -> int:
    """Write runs as a long table, in one step; an earlier file of that name is replaced.

    Args:
        runs: their labels tell them apart, so they must differ.
        path: ``.csv`` or ``.parquet``.

    Returns:
        How many rows were written.

    Raises:
        OptionError: another suffix, or two runs of one label.
        MissingExtraError: Parquet without pyarrow.
        OutputError: the file cannot be written.
    """
    target = Path(path)
    labels = [run.label for run in runs]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise OptionError(
            f"export {len(runs)} runs",
            f"two of them are called {twice!r}",
            "Give each a label of its own.",
        )
    if target.suffix.lower() not in SUFFIXES:
        raise OptionError(
            f"export to {str(target)!r}",
            f"a run is exported as {' or '.join(SUFFIXES)}",
            "Give a file name that ends so.",
        )
    write = _write_csv if target.suffix.lower() == ".csv" else _write_parquet
    return write(runs, target)


def _write_csv(runs: Sequence[RunHistory], target: Path) -> int:
    rows = 0
    with atomic_file(target) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for piece in _pieces(runs):
            rows += len(piece.value)
            names = [*piece.words, ""]  # -1 is the last
            writer.writerows(
                (names[run], step, "" if site < 0 else site, names[name], names[id_], value)
                for run, step, site, name, id_, value in zip(
                    piece.run.tolist(),
                    piece.step.tolist(),
                    piece.site.tolist(),
                    piece.site_name.tolist(),
                    piece.id.tolist(),
                    np.ma.MaskedArray(piece.value, mask=piece.missing).tolist(),
                    strict=True,
                )
            )
        text.flush()
    return rows


def _write_parquet(runs: Sequence[RunHistory], target: Path) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            f"export to {str(target)!r}",
            "Parquet needs pyarrow, which is not installed",
            "pip install 'mhc-diag[parquet]', or export to .csv.",
        ) from error
    types = [pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string(), pa.float64()]
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    rows = 0
    with atomic_file(target) as file, parquet.ParquetWriter(file, schema) as writer:
        for piece in _pieces(runs):
            rows += len(piece.value)
            words = pa.array(piece.words, pa.string())
            columns = [
                words.take(pa.array(piece.run)),
                pa.array(piece.step),
                pa.array(piece.site, mask=piece.site < 0),
                words.take(pa.array(piece.site_name, mask=piece.site_name < 0)),
                words.take(pa.array(piece.id)),
                pa.array(piece.value, mask=piece.missing),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return rows


def _pieces(runs: Sequence[RunHistory]) -> Iterator[_Piece]:
    """All rows, some steps at a time."""
    for run in runs:
        each = len(run.scalars) + len(run.values) * len(run.sites)
        stride = max(1, _ROWS // max(1, each))
        for start in range(0, len(run.steps), stride):
            yield _piece(run, slice(start, start + stride))


def _piece(run: RunHistory, part: slice) -> _Piece:
    """The rows of a few steps: a block [S, scalars + ids x L], row by row."""
    L, scalars, ids = len(run.sites), list(run.scalars), list(run.values)
    names = [site.name for site in run.sites]
    words = (run.label, *scalars, *ids, *names)
    steps = run.steps[part]
    blocks: list[np.ma.MaskedArray[Any, Any]] = [
        np.ma.asarray(run.scalars[name][part])[:, None] for name in scalars
    ]
    blocks += [run.values[name][part] for name in ids]
    S = len(steps)
    value = np.concatenate([np.zeros((S, 0)), *(block.data for block in blocks)], axis=1)
    missing = [np.ma.getmaskarray(block) for block in blocks]
    index = np.array([site.index for site in run.sites], dtype=np.int64)
    first_id = 1 + len(scalars)
    first_name = first_id + len(ids)
    none = np.full(len(scalars), -1)
    site = np.concatenate([none, np.tile(index, len(ids))])
    site_name = np.concatenate([none, np.tile(first_name + np.arange(L), len(ids))])
    id_ = np.concatenate(
        [1 + np.arange(len(scalars)), np.repeat(first_id + np.arange(len(ids)), L)]
    )
    return _Piece(
        words=words,
        run=np.zeros(value.size, dtype=np.int32),
        step=np.repeat(steps, value.shape[1]),
        site=np.tile(site, S).astype(np.int64),
        site_name=np.tile(site_name, S).astype(np.int32),
        id=np.tile(id_, S).astype(np.int32),
        value=value.ravel(),
        missing=np.concatenate([np.zeros((S, 0), dtype=bool), *missing], axis=1).ravel(),
    )
