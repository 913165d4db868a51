"""Ids of the scope ``window``: the worst product of any stretch of sites.

Letters: L sites of one gapless stretch of a chain, T tokens, n streams. There are L (L + 1) / 2
stretches; they are formed in blocks of start sites, so that memory stays bounded while the number
of array operations stays small.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mhc_diag.compose import Scaled, concatenate, windows_ending
from mhc_diag.metrics.aggregates import MEAN_MATRIX, aggregate, mean_matrix
from mhc_diag.metrics.numbers import Numbers, order_keys
from mhc_diag.metrics.numbers import concatenate as join
from mhc_diag.metrics.readings import READINGS, read
from mhc_diag.metrics.table import Part

BATCH: Final = 2**17
"""Entries of the products that are read at once: 1 MB, which stays in cache."""

Indices = npt.NDArray[np.int64]


def worst_windows(M: Scaled, parts: tuple[Part, ...]) -> dict[Part, Numbers]:
    """The worst window per end site (forward) or start site (backward), [L] for each part.

    Each window is aggregated over its tokens first.
    """
    L, T, n, _ = M.values.shape
    block = max(1, min(L, BATCH // (T * n * n), 2**15 // L))
    worst: dict[Part, Numbers] = {}
    for first in range(0, L, block):
        last = min(L, first + block) - 1
        starts, ends, found = _read_block(M, parts, first, last)
        for part, numbers in found.items():
            if part.direction == "forward":
                worst[part] = _worst_ends(worst.get(part), numbers, ends, part)
            else:
                worst_starts = _worst_at(numbers, starts, L, part)[first : last + 1]
                worst[part] = join([worst[part], worst_starts]) if first else worst_starts
    return worst


def _worst_ends(so_far: Numbers | None, numbers: Numbers, ends: Indices, part: Part) -> Numbers:
    """The worst per end site of earlier blocks and this one; the first block has every end."""
    if so_far is None:
        return _worst_at(numbers, ends, int(ends.max()) + 1, part)
    L = so_far.values.shape[0]
    return _worst_at(join([so_far, numbers]), np.concatenate([np.arange(L), ends]), L, part)


def _read_block(
    M: Scaled, parts: tuple[Part, ...], first: int, last: int
) -> tuple[Indices, Indices, dict[Part, Numbers]]:
    """All windows that start at first .. last: start site, end site and numbers of each."""
    starts: list[Indices] = []
    ends: list[Indices] = []
    found: dict[Part, list[Numbers]] = {part: [] for part in parts}
    batch: list[Scaled] = []
    waiting = 0
    L = M.values.shape[0]
    for b, products in windows_ending(M, first=first, last=last):
        k = products.values.shape[0]
        starts.append(np.arange(first, first + k))
        ends.append(np.full(k, b))
        batch.append(products)
        waiting += int(np.prod(products.values.shape))
        if waiting >= BATCH or b == L - 1:
            _read_batch(batch[0] if len(batch) == 1 else concatenate(batch), found)
            batch, waiting = [], 0
    return (
        np.concatenate(starts),
        np.concatenate(ends),
        {part: join(numbers) for part, numbers in found.items()},
    )


def _read_batch(A: Scaled, found: dict[Part, list[Numbers]]) -> None:
    """Append the numbers of windows [k, T, n, n] to each part's list."""
    by_reading: dict[str, dict[str, Part]] = {}
    for part in found:
        by_reading.setdefault(part.reading, {})[part.aggregate] = part
    mean: Any = None
    for reading, names in by_reading.items():
        if MEAN_MATRIX in names:
            mean = mean_matrix(A) if mean is None else mean
            found[names[MEAN_MATRIX]].append(read(READINGS[reading], mean)[0])
        others = [name for name in names if name != MEAN_MATRIX]
        if others:
            for name, numbers in aggregate(read(READINGS[reading], A)[0], others).items():
                found[names[name]].append(numbers)


def _worst_at(numbers: Numbers, places: Indices, L: int, part: Part) -> Numbers:
    """Of all numbers at one place the worst: NaN, then infinity, then by the bad end."""
    ranked = numbers
    if part.bad == "low":
        values = np.where(np.isinf(numbers.values), np.inf, -numbers.values)
        ranked = Numbers(values, numbers.exponent)
    order = np.lexsort(order_keys(ranked))
    worst = Numbers(np.full(L, -np.inf), np.zeros(L, dtype=np.int64))
    worst.values[places[order]] = numbers.values[order]  # the last of equal places stays
    worst.exponent[places[order]] = numbers.exponent[order]
    return worst
