"""Ids that are read per site: one matrix or one product of each token, token by token.

Letters: L sites of one gapless stretch of a chain, T tokens, n streams. Long token axes are worked
through in pieces, so that the products of one piece at a time are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mhc_diag.arrays import namespace
from mhc_diag.compose import Scaled, magnitudes, prefix, rescale, suffix
from mhc_diag.metrics.aggregates import MEAN_MATRIX, aggregate, token_sum
from mhc_diag.metrics.numbers import Numbers, concatenate
from mhc_diag.metrics.readings import COLUMNS, READINGS, ROWS, cancellation, read
from mhc_diag.metrics.table import Part, Product

Array = Any
Found = tuple[Numbers, npt.NDArray[np.bool_]]
"""Numbers and whether they are defined, of equal shape."""

PIECE: Final = 2**21
"""Entries of one piece of products: 16 MB."""

PRODUCTS: Final[dict[Product, Callable[[Scaled], Scaled]]] = {
    "single": lambda M: M,
    "prefix": prefix,
    "suffix": suffix,
}
"""What is read per site, from the matrices M of all sites."""


def pieces(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the token axis of [L, T, n, n], each of at most PIECE entries."""
    L, T, n, _ = shape
    step = max(1, PIECE // max(1, L * n * n))
    for start in range(0, T, step):
        yield slice(start, min(T, start + step))


@dataclass(slots=True)
class SiteReader:
    """Collects what the parts of one product need, piece by piece of the tokens."""

    product: Product
    parts: tuple[Part, ...]
    _per_token: dict[str, list[Found]] = field(default_factory=dict)
    _sums: list[Scaled] = field(default_factory=list)
    _tokens: int = 0

    def add(self, M: Scaled) -> None:
        """Read the next tokens of the matrices [L, T, n, n]."""
        A = PRODUCTS[self.product](M)
        for reading in {part.reading for part in self.parts if part.aggregate != MEAN_MATRIX}:
            found = self._cancellation(A, M, reading) if reading.endswith("cancellation") else None
            self._per_token.setdefault(reading, []).append(found or read(READINGS[reading], A))
        if any(part.aggregate == MEAN_MATRIX for part in self.parts):
            self._sums.append(token_sum(A))
        self._tokens += A.values.shape[1]

    def _cancellation(self, A: Scaled, M: Scaled, reading: str) -> Found:
        axis = ROWS if reading.startswith("forward") else COLUMNS
        numbers = cancellation(A, PRODUCTS[self.product](magnitudes(M)), axis)
        return numbers, np.ones(numbers.values.shape, dtype=np.bool_)

    def results(self) -> dict[Part, Found]:
        """One number per site and part, [L], and whether it is defined."""
        results: dict[Part, Found] = {}
        for reading, found in self._per_token.items():
            names = {p.aggregate: p for p in self.parts if p.reading == reading}
            names.pop(MEAN_MATRIX, None)
            numbers = concatenate([part for part, _ in found], axis=1)
            defined = np.logical_and.reduce(np.concatenate([part for _, part in found], axis=1), 1)
            for name, value in aggregate(numbers, names).items():
                results[names[name]] = value, defined
        for part in self.parts:
            if part.aggregate == MEAN_MATRIX:
                results[part] = read(READINGS[part.reading], self._mean())
        return results

    def _mean(self) -> Scaled:
        """The mean over all tokens, [L, n, n]."""
        total = self._sums[0]
        if len(self._sums) > 1:
            total = token_sum(_side_by_side(self._sums))
        return rescale(total.values / self._tokens, total.exponent)


def _side_by_side(parts: Iterable[Scaled]) -> Scaled:
    parts = list(parts)
    xp = namespace(parts[0].values)
    return Scaled(
        xp.stack([A.values for A in parts], axis=1), xp.stack([A.exponent for A in parts], axis=1)
    )
