"""The few numbers that a terminal or a pull request has room for, per pair of directions."""

from __future__ import annotations

from dataclasses import dataclass

from mhc_diag.analysis import Analysis
from mhc_diag_reports.summaries import cell_of, cell_texts

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
    said: dict[tuple[str, ...], tuple[str, str]] = {}
    for start, tail in (("", ""), ("applied.", ", after rounding")):
        for pattern, words in PAIRS:
            ids = tuple(start + pattern.replace("*", way) for way in ("forward", "backward"))
            said[ids] = (start + pattern, words + tail)
    said[MANIFOLD] = ("manifold.*_error.max", "distance from doubly stochastic")
    held = {ids: words for ids, words in said.items() if any(i in analysis.summary for i in ids)}
    texts = cell_texts({ids: [cell_of(analysis, i) for i in ids] for ids in held}, plain=True)
    return [
        PairRow(pattern=pattern, words=words, forward=texts[ids][0], backward=texts[ids][1])
        for ids, (pattern, words) in held.items()
    ]
