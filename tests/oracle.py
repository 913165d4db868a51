"""A slow twin of ``mhc_diag.metrics``, written from the contract and not from the code.

Plain loops over 50-digit numbers of unlimited range (mpmath), so that neither rounding, overflow
nor underflow of the twin hides a fault. Matrices are lists of rows, A[i][j], i the destination.
None stands for "not measured" and "not defined".

Letters: L sites, T tokens, n streams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath  # type: ignore[import-untyped]  # ships no types
from oracle_readings import (
    Matrix,
    Number,
    amax,
    amin,
    distance_identity,
    distance_uniform,
    entropy,
    lambda2,
    largest,
    min_entry,
    nan,
    norm,
    off_diagonal,
    row_error,
    sigma_max,
    sigma_min,
    transposed,
)

DIGITS = 50
QUANTILES = {"p5": 5, "p50": 50, "p95": 95, "p99": 99, "max": 100, "min": 0}


def matrix_of(rows: Any) -> Matrix:
    return [[mpmath.mpf(float(entry)) for entry in row] for row in rows]


def times(X: Matrix, Y: Matrix) -> Matrix:
    n = len(X)
    result = []
    for i in range(n):
        row = []
        for j in range(n):
            total = mpmath.mpf(0)
            for k in range(n):
                total = total + X[i][k] * Y[k][j]
            row.append(total)
        result.append(row)
    return result


def absolute(A: Matrix) -> Matrix:
    return [[abs(entry) for entry in row] for row in A]


GAINS: dict[str, Callable[[Matrix], Number]] = {"amax": amax, "amin": amin, "norm": norm}
BOTH: dict[str, tuple[Callable[[Matrix], Number], tuple[str, ...]]] = {
    "spectrum.lambda2": (lambda2, ("mean", "min", "max")),
    "spectrum.sigma_max": (sigma_max, ("max",)),
    "spectrum.sigma_min": (sigma_min, ("min",)),
    "mixing.off_diagonal": (off_diagonal, ("mean",)),
    "mixing.entropy": (entropy, ("mean",)),
    "mixing.distance_identity": (distance_identity, ("mean",)),
    "mixing.distance_uniform": (distance_uniform, ("mean",)),
}
SINGLE: dict[str, tuple[Callable[[Matrix], Number], tuple[str, ...]]] = {
    "manifold.row_error": (row_error, ("mean", "max")),
    "manifold.column_error": (lambda A: row_error(transposed(A)), ("mean", "max")),
    "manifold.min_entry": (min_entry, ("min",)),
    **BOTH,
}
AGGREGATES = ("mean", "p5", "p50", "p95", "p99", "max", "min", "mean_matrix")


# Aggregates over tokens -------------------------------------------------------------------------


def quantile(numbers: Sequence[Number], percent: int) -> Number:
    if any(mpmath.isnan(x) for x in numbers):
        return nan()
    ordered = sorted(numbers)
    below, rest = divmod(percent * (len(ordered) - 1), 100)
    if rest == 0:
        return ordered[below]
    low, high = ordered[below], ordered[below + 1]
    if mpmath.isinf(low) or mpmath.isinf(high):
        return low if mpmath.isinf(low) else high
    return low + mpmath.mpf(rest) / 100 * (high - low)


def aggregate(numbers: Sequence[Number], name: str) -> Number:
    if any(x is None for x in numbers):
        return None
    if name == "mean":
        return sum(numbers, mpmath.mpf(0)) / len(numbers)
    return quantile(numbers, QUANTILES[name])


def mean_matrix(stack: Sequence[Matrix]) -> Matrix:
    n = len(stack[0])
    return [
        [sum((A[i][j] for A in stack), mpmath.mpf(0)) / len(stack) for j in range(n)]
        for i in range(n)
    ]


def read(stack: Sequence[Matrix], reading: Callable[[Matrix], Number], name: str) -> Number:
    """One number for the matrices [T][n][n] of all tokens."""
    if name == "mean_matrix":
        return reading(mean_matrix(stack))
    return aggregate([reading(A) for A in stack], name)


# Products over depth ----------------------------------------------------------------------------


def product(M: Sequence[Sequence[Matrix]], a: int, b: int) -> list[Matrix]:
    """M_b ... M_a per token."""
    stack = list(M[a])
    for l in range(a + 1, b + 1):
        stack = [times(M[l][t], stack[t]) for t in range(len(stack))]
    return stack


def product_from_the_output(M: Sequence[Sequence[Matrix]], a: int, b: int) -> list[Matrix]:
    """The same, formed as a gradient forms it; with infinite entries the order of steps shows."""
    stack = list(M[b])
    for l in range(b - 1, a - 1, -1):
        stack = [times(stack[t], M[l][t]) for t in range(len(stack))]
    return stack


def _worst(numbers: Sequence[Number], *, low: bool) -> Number:
    for is_bad in (mpmath.isnan, mpmath.isinf):
        bad = [x for x in numbers if is_bad(x)]
        if bad:
            return bad[0]
    return min(numbers) if low else max(numbers)


def _cancellation(signed: Matrix, unsigned: Matrix) -> Number:
    above, below = norm(unsigned), norm(signed)
    if below == 0:
        return mpmath.mpf(1) if above == 0 else mpmath.mpf("inf")
    return above / below


def measure(M: Any, measured: Sequence[bool] | None = None) -> dict[str, list[Number]]:
    """Every id of the contract for one chain M [L][T][n][n]: id -> one number per site."""
    with mpmath.workdps(DIGITS):
        stacks = [[matrix_of(A) for A in site] for site in M]
        seen = list(measured) if measured is not None else [True] * len(stacks)
        result = _singles(stacks, seen)
        result.update(_composites(stacks, seen))
        result.update(_windows(stacks, seen))
        return result


def _oriented(stack: Sequence[Matrix], direction: str) -> list[Matrix]:
    """Columns are the rows of the transposed matrix."""
    return [transposed(A) if direction == "backward" else A for A in stack]


def _singles(M: list[list[Matrix]], seen: list[bool]) -> dict[str, list[Number]]:
    result: dict[str, list[Number]] = {}
    for direction in ("forward", "backward"):
        for reading, function in GAINS.items():
            for name in AGGREGATES:
                result[f"single.{direction}.{reading}.{name}"] = [
                    read(_oriented(stack, direction), function, name) if here else None
                    for stack, here in zip(M, seen, strict=True)
                ]
    for reading, (function, names) in SINGLE.items():
        for name in names:
            result[f"{reading}.{name}"] = [
                read(stack, function, name) if here else None
                for stack, here in zip(M, seen, strict=True)
            ]
    return result


def _composites(M: list[list[Matrix]], seen: list[bool]) -> dict[str, list[Number]]:
    L = len(M)
    result: dict[str, list[Number]] = {}
    unsigned = [[absolute(A) for A in site] for site in M]
    spans = {
        "forward": [(0, l) if all(seen[: l + 1]) else None for l in range(L)],
        "backward": [(l, L - 1) if all(seen[l:]) else None for l in range(L)],
    }
    for direction, reach in spans.items():
        form = product if direction == "forward" else product_from_the_output
        stacks = [None if s is None else _oriented(form(M, *s), direction) for s in reach]
        bounds = [None if s is None else _oriented(form(unsigned, *s), direction) for s in reach]
        for reading, function in GAINS.items():
            for name in AGGREGATES:
                result[f"composite.{direction}.{reading}.{name}"] = [
                    None if stack is None else read(stack, function, name) for stack in stacks
                ]
        result[f"composite.{direction}.cancellation.max"] = [
            None
            if stack is None or bound is None
            else largest([_cancellation(A, B) for A, B in zip(stack, bound, strict=True)])
            for stack, bound in zip(stacks, bounds, strict=True)
        ]
        if direction == "forward":
            for reading, (function, names) in BOTH.items():
                for name in names:
                    result[f"composite.{reading}.{name}"] = [
                        None if stack is None else read(stack, function, name) for stack in stacks
                    ]
    return result


def _windows(M: list[list[Matrix]], seen: list[bool]) -> dict[str, list[Number]]:
    L = len(M)
    spans = [(a, b) for a in range(L) for b in range(a, L) if all(seen[a : b + 1])]
    stacks = {span: product(M, *span) for span in spans}
    result: dict[str, list[Number]] = {}
    for direction in ("forward", "backward"):
        oriented = {span: _oriented(stack, direction) for span, stack in stacks.items()}
        end = 1 if direction == "forward" else 0
        for reading, function in GAINS.items():
            for name in AGGREGATES:
                values = {span: read(stack, function, name) for span, stack in oriented.items()}
                result[f"window.{direction}.{reading}.{name}"] = [
                    _worst(
                        [values[span] for span in spans if span[end] == l], low=reading == "amin"
                    )
                    if seen[l]
                    else None
                    for l in range(L)
                ]
    return result
