"""The words and symbols that metric ids are described with.

Letters: M_l the matrix of site l as applied (row = destination, column = source), A the product
that is read, n streams, L sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Bad = Literal["high", "low", "neither"]

MHC: Final = "mHC, arXiv 2512.24880"
_GAIN = f"{MHC}, section 3.1 (Amax Gain Magnitude)"
_NORM = "induced matrix norm; equal to the paper's gain where H_res has no negative entry"
_MANIFOLD = f"{MHC}, section 4.1 (doubly stochastic H_res)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingText:
    """What one reading of a matrix A says."""

    formula: str
    meaning: str
    ideal: float | None
    bad: Bad
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class ProductText:
    """Which matrix is read."""

    formula: str
    meaning: str
    figure: str = ""


@dataclass(frozen=True, slots=True)
class AggregateText:
    """How tokens become one number; ``{}`` in the formula is the reading."""

    formula: str
    meaning: str


AGGREGATES: Final[Mapping[str, AggregateText]] = {
    "mean": AggregateText("mean over tokens of {}", "Read per token, then averaged."),
    "p5": AggregateText("5 % quantile over tokens of {}", "95 of 100 tokens lie above it."),
    "p50": AggregateText("median over tokens of {}", "Half of the tokens lie above it."),
    "p95": AggregateText("95 % quantile over tokens of {}", "5 of 100 tokens lie above it."),
    "p99": AggregateText("99 % quantile over tokens of {}", "1 of 100 tokens lies above it."),
    "max": AggregateText("largest over tokens of {}", "The token with the largest value."),
    "min": AggregateText("smallest over tokens of {}", "The token with the smallest value."),
    "mean_matrix": AggregateText(
        "{} of the token mean of A",
        "Matrices are averaged over tokens first, then read: tokens may cancel.",
    ),
}

PRODUCTS: Final[Mapping[tuple[str, str], ProductText]] = {
    ("single", "forward"): ProductText("A = M_l", "At one site alone.", "Figs. 3a and 7a"),
    ("single", "backward"): ProductText("A = M_l", "At one site alone.", "Figs. 3a and 7a"),
    ("prefix", "forward"): ProductText(
        "A = M_l ... M_0", "From the input of the chain to site l.", "Figs. 3b and 7b"
    ),
    ("suffix", "backward"): ProductText(
        "A = M_{L-1} ... M_l", "From site l to the output of the chain.", "Figs. 3b and 7b"
    ),
    ("window", "forward"): ProductText(
        "A = M_b ... M_a", "The worst stretch of sites that ends at site b."
    ),
    ("window", "backward"): ProductText(
        "A = M_b ... M_a", "The worst stretch of sites that starts at site a."
    ),
}

WINDOWS: Final = {"forward": "all a <= b", "backward": "all b >= a"}


def _gain(direction: str) -> dict[str, ReadingText]:
    i, j, row = ("i", "j", "row") if direction == "forward" else ("j", "i", "column")
    what = "signal" if direction == "forward" else "gradient"
    way = "up" if direction == "forward" else "down"
    letter = "inf" if direction == "forward" else "1"
    return {
        f"{direction}.amax": ReadingText(
            formula=f"max_{i} |sum_{j} A_ij|",
            meaning=f"How much a {what} that is the same in all streams can grow on its way {way} "
            f"(largest abs {row} sum): 1 keeps its size, above 1 some stream grows.",
            ideal=1.0,
            bad="high",
            unit="ratio",
            source=_GAIN,
        ),
        f"{direction}.amin": ReadingText(
            formula=f"min_{i} |sum_{j} A_ij|",
            meaning=f"How little of a {what} that is the same in all streams can be left on its "
            f"way {way} (smallest abs {row} sum): at 0 some stream fades, which amax cannot show.",
            ideal=1.0,
            bad="low",
            unit="ratio",
            source=f"attenuation beside {_GAIN}",
        ),
        f"{direction}.norm": ReadingText(
            formula=f"max_{i} sum_{j} |A_ij|",
            meaning=f"How much a {what} of any signs can grow on its way {way} (largest {row} sum "
            f"of abs entries, the {letter}-norm): the true worst case for a matrix with signs.",
            ideal=1.0,
            bad="high",
            unit="ratio",
            source=_NORM,
        ),
        f"{direction}.cancellation": _cancellation(what, f"max_{i} sum_{j} |A_ij|"),
    }


def _cancellation(what: str, norm: str) -> ReadingText:
    return ReadingText(
        formula=f"norm(product of the |M|) / norm(A), norm = {norm}",
        meaning=f"How much the product that a {what} sees cancels against itself: 1 is none, "
        "each factor of ten costs one of 16 digits.",
        ideal=1.0,
        bad="high",
        unit="ratio",
        source="componentwise error bound of matrix products (Higham, section 3.5)",
    )


GAINS: Final[Mapping[str, ReadingText]] = {**_gain("forward"), **_gain("backward")}
"""``<direction>.<reading>`` -> its text."""


SITE_READINGS: Final[Mapping[str, tuple[ReadingText, tuple[str, ...]]]] = {
    "manifold.row_error": (
        ReadingText(
            formula="max_i |sum_j A_ij - 1|",
            meaning="How far the worst row sum is from 1: the projection's error forward.",
            ideal=0.0,
            bad="high",
            unit="absolute",
            source=_MANIFOLD,
        ),
        ("mean", "max"),
    ),
    "manifold.column_error": (
        ReadingText(
            formula="max_j |sum_i A_ij - 1|",
            meaning="How far the worst column sum is from 1: the projection's error backward.",
            ideal=0.0,
            bad="high",
            unit="absolute",
            source=_MANIFOLD,
        ),
        ("mean", "max"),
    ),
    "manifold.min_entry": (
        ReadingText(
            formula="min_ij A_ij",
            meaning="The smallest entry: below 0 the matrix is no mixture of permutations.",
            ideal=0.0,
            bad="low",
            unit="absolute",
            source=_MANIFOLD,
        ),
        ("min",),
    ),
    "spectrum.lambda2": (
        ReadingText(
            formula="second largest |eigenvalue of A|",
            meaning="How much of a difference between streams survives: near 0 they have become "
            "one, near 1 nothing is mixed; above 1 differences grow.",
            ideal=None,
            bad="neither",
            unit="ratio",
            source="second eigenvalue of a Markov chain: rate of mixing",
        ),
        ("mean", "min", "max"),
    ),
    "spectrum.sigma_max": (
        ReadingText(
            formula="largest singular value of A",
            meaning="The largest factor on the Euclidean size of a signal, up or down.",
            ideal=1.0,
            bad="high",
            unit="ratio",
            source=f"spectral norm, {MHC}, section 4.1",
        ),
        ("max",),
    ),
    "spectrum.sigma_min": (
        ReadingText(
            formula="smallest singular value of A",
            meaning="The smallest factor on the Euclidean size of a signal: 0 loses a direction.",
            ideal=None,
            bad="low",
            unit="ratio",
            source="smallest singular value",
        ),
        ("min",),
    ),
    "mixing.off_diagonal": (
        ReadingText(
            formula="sum_{i != j} |A_ij| / sum_ij |A_ij|",
            meaning="The share of weight that moves between streams: 0 for the identity, "
            "(n - 1)/n for the uniform average.",
            ideal=None,
            bad="neither",
            unit="fraction",
            source="definition of mhc-diag",
        ),
        ("mean",),
    ),
    "mixing.entropy": (
        ReadingText(
            formula="mean_i entropy_j(|A_ij| / sum_j |A_ij|) / ln n",
            meaning="How evenly a stream draws on all streams: 0 from one alone, 1 from all alike.",
            ideal=None,
            bad="neither",
            unit="fraction",
            source="definition of mhc-diag (Shannon entropy)",
        ),
        ("mean",),
    ),
    "mixing.distance_identity": (
        ReadingText(
            formula="|A - I|_F / sqrt(n - 1)",
            meaning="How far from not mixing: 0 for the identity, 1 for the uniform average.",
            ideal=None,
            bad="neither",
            unit="ratio",
            source="definition of mhc-diag (Frobenius norm)",
        ),
        ("mean",),
    ),
    "mixing.distance_uniform": (
        ReadingText(
            formula="|A - J/n|_F / sqrt(n - 1)",
            meaning="How far from streams all alike: 0 for the uniform average, 1 for identity.",
            ideal=None,
            bad="neither",
            unit="ratio",
            source="definition of mhc-diag (Frobenius norm)",
        ),
        ("mean",),
    ),
}
"""Readings per site: text, and the aggregates that have an id."""
