"""The few numbers that a terminal or a pull request has room for, per pair of directions."""

from __future__ import annotations

from dataclasses import dataclass

from mhc_diag.analysis import Analysis
from mhc_diag_reports.tables import summary_text

PAIRS = (
    ("single.*.amax.mean", "one site's matrix"),
    ("composite.*.amax.mean", "product from input / to output"),
    ("window.*.amax.mean", "worst product of neighbours"),
    ("composite.*.norm.mean", "signs set aside"),
    ("composite.*.amax.max", "worst token"),
)
"""Id patterns with ``*`` for the direction, and what tells one from the other."""
MANIFOLD = ("manifold.row_error.max", "manifold.column_error.max")
IN_WORDS = (
    "amax: largest |row sum| (forward: a signal going up) or |column sum| (backward: a gradient "
    "coming down); norm: the same of absolute entries. 1 is unchanged. mean, max: over tokens. "
    "“at” names the site."
)
MANIFOLD_WORDS = "manifold.*: largest distance of a row (column) sum from 1."


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """One id in both directions."""

    pattern: str
    words: str
    forward: str
    backward: str


def pair_rows(analysis: Analysis) -> list[PairRow]:
    """The key numbers that the analysis has, as text."""
    rows = []
    for start in ("", "applied."):
        for pattern, words in PAIRS:
            ids = [start + pattern.replace("*", way) for way in ("forward", "backward")]
            if any(i in analysis.summary for i in ids):
                forward, backward = (summary_text(analysis, i, plain=True) for i in ids)
                tail = ", after rounding" if start else ""
                rows.append(
                    PairRow(
                        pattern=start + pattern,
                        words=words + tail,
                        forward=forward,
                        backward=backward,
                    )
                )
    if any(i in analysis.summary for i in MANIFOLD):
        row, column = (summary_text(analysis, i, plain=True) for i in MANIFOLD)
        rows.append(
            PairRow(
                pattern="manifold.*_error.max",
                words="distance from doubly stochastic",
                forward=row,
                backward=column,
            )
        )
    return rows
