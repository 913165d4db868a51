"""Slow twins of the readings of one matrix, written from the contract and not from the code.

Plain loops over mpmath numbers; A[i][j] with i the destination. None stands for "not defined".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath  # type: ignore[import-untyped]  # ships no types

Number = Any  # an mpmath.mpf: finite, infinite or NaN, or None where something is not defined
Matrix = list[list[Number]]


def nan() -> Number:
    return mpmath.mpf("nan")


def largest(numbers: Sequence[Number]) -> Number:
    if any(mpmath.isnan(x) for x in numbers):
        return nan()
    return max(numbers)


def smallest(numbers: Sequence[Number]) -> Number:
    if any(mpmath.isnan(x) for x in numbers):
        return nan()
    return min(numbers)


def amax(A: Matrix) -> Number:
    return largest([abs(sum(row, mpmath.mpf(0))) for row in A])


def amin(A: Matrix) -> Number:
    return smallest([abs(sum(row, mpmath.mpf(0))) for row in A])


def norm(A: Matrix) -> Number:
    return largest([sum((abs(x) for x in row), mpmath.mpf(0)) for row in A])


def row_error(A: Matrix) -> Number:
    return largest([abs(sum(row, mpmath.mpf(0)) - 1) for row in A])


def min_entry(A: Matrix) -> Number:
    return smallest([x for row in A for x in row])


def _is_finite(A: Matrix) -> bool:
    return all(mpmath.isfinite(x) for row in A for x in row)


def lambda2(A: Matrix) -> Number:
    if len(A) == 1:
        return None
    if not _is_finite(A):
        return nan()
    size = norm(A)
    if size == 0:
        return mpmath.mpf(0)
    roots = mpmath.eig(mpmath.matrix(A) / size, left=False, right=False)
    return sorted((abs(root) for root in roots), reverse=True)[1] * size


def _singular_values(A: Matrix) -> list[Number]:
    if not _is_finite(A):
        return [nan()]
    size = norm(A)
    if size == 0:
        return [mpmath.mpf(0)]
    return [s * size for s in mpmath.svd_r(mpmath.matrix(A) / size, compute_uv=False)]


def sigma_max(A: Matrix) -> Number:
    return largest(_singular_values(A))


def sigma_min(A: Matrix) -> Number:
    return smallest(_singular_values(A))


def off_diagonal(A: Matrix) -> Number:
    n = len(A)
    total = sum((abs(x) for row in A for x in row), mpmath.mpf(0))
    if total == 0:
        return None
    off = sum((abs(A[i][j]) for i in range(n) for j in range(n) if i != j), mpmath.mpf(0))
    return off / total


def entropy(A: Matrix) -> Number:
    if len(A) == 1:
        return None
    total = mpmath.mpf(0)
    for row in A:
        weight = sum((abs(x) for x in row), mpmath.mpf(0))
        if weight == 0:
            return None
        for x in row:
            share = abs(x) / weight
            if share != 0:
                total -= share * mpmath.log(share)
    return total / len(A) / mpmath.log(len(A))


def _distance(A: Matrix, center: Callable[[int, int], Number]) -> Number:
    n = len(A)
    if n == 1:
        return None
    square = sum(((A[i][j] - center(i, j)) ** 2 for i in range(n) for j in range(n)), mpmath.mpf(0))
    return mpmath.sqrt(square) / mpmath.sqrt(n - 1)


def distance_identity(A: Matrix) -> Number:
    return _distance(A, lambda i, j: int(i == j))


def distance_uniform(A: Matrix) -> Number:
    return _distance(A, lambda i, j: mpmath.mpf(1) / len(A))


def transposed(A: Matrix) -> Matrix:
    return [list(column) for column in zip(*A, strict=True)]
