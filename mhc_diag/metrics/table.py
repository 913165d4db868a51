"""Every metric id, with what it means. Generated from its parts, so that no id lacks its text.

``<scope>.<direction>.<reading>.<aggregate>`` for the gains; ``manifold.``, ``spectrum.`` and
``mixing.`` per site, the latter two also under ``composite.`` for the prefix product; ``applied.``
before an id means the matrices as rounded to the precision that mixes the streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from mhc_diag.errors import OptionError
from mhc_diag.metrics.texts import (
    AGGREGATES,
    GAINS,
    PRODUCTS,
    SITE_READINGS,
    WINDOWS,
    Bad,
    ReadingText,
)
from mhc_diag.trace import DEFINITIONS

__all__ = ["APPLIED", "DEFINITIONS", "METRICS", "PARTS", "Metric", "Part", "find_metric"]

APPLIED: Final = "applied."
"""Prefix of an id that is read after the rounding to the applied precision."""

Product = Literal["single", "prefix", "suffix", "window"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One definition, with everything a reader needs to judge its number."""

    id: str
    formula: str
    meaning: str
    """Plain language."""
    ideal: float | None
    """The value for perfect (doubly stochastic) mixing; None where there is no single one."""
    bad: Literal["high", "low", "neither"]
    """The end that is bad."""
    unit: str
    source: str
    """Where the definition comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What an id is made of."""

    product: Product
    direction: Literal["forward", "backward", ""]
    reading: str
    """A key of READINGS (mhc_diag.metrics.readings)."""
    aggregate: str
    bad: Bad


def _metric(name: str, part: Part, text: ReadingText) -> Metric:
    aggregate = AGGREGATES[part.aggregate]
    formula = aggregate.formula.format(text.formula)
    product = PRODUCTS[part.product, part.direction or "forward"]
    if part.product == "window":
        smallest = "smallest" if part.bad == "low" else "largest"
        formula = f"{smallest} over {WINDOWS[part.direction]} of ({formula})"
    source = text.source
    if part.direction and part.aggregate in {"mean", "mean_matrix"} and part.reading[-4:] == "amax":
        source = f"{source}, {product.figure if part.aggregate == 'mean' else 'Fig. 8'}"
    return Metric(
        id=name,
        formula=f"{formula}, {product.formula}",
        meaning=f"{text.meaning} {product.meaning} {aggregate.meaning}",
        ideal=text.ideal,
        bad=text.bad,
        unit=text.unit,
        source=source,
    )


def _gain_ids() -> Iterator[tuple[str, Part, ReadingText]]:
    products: tuple[tuple[str, Product, Product], ...] = (
        ("single", "single", "single"),
        ("composite", "prefix", "suffix"),
        ("window", "window", "window"),
    )
    directions: tuple[Literal["forward", "backward"], ...] = ("forward", "backward")
    for scope, *both in products:
        for direction, product in zip(directions, both, strict=True):
            for reading in ("amax", "amin", "norm"):
                text = GAINS[f"{direction}.{reading}"]
                for aggregate in AGGREGATES:
                    part = Part(
                        product=product,
                        direction=direction,
                        reading=f"{direction}.{reading}",
                        aggregate=aggregate,
                        bad=text.bad,
                    )
                    yield f"{scope}.{direction}.{reading}.{aggregate}", part, text
    for direction, product in zip(directions, products[1][1:], strict=True):
        text = GAINS[f"{direction}.cancellation"]
        part = Part(
            product=product,
            direction=direction,
            reading=f"{direction}.cancellation",
            aggregate="max",
            bad=text.bad,
        )
        yield f"composite.{direction}.cancellation.max", part, text


def _site_ids() -> Iterator[tuple[str, Part, ReadingText]]:
    products: tuple[tuple[str, Product], ...] = (("", "single"), ("composite.", "prefix"))
    for scope, product in products:
        for reading, (text, aggregates) in SITE_READINGS.items():
            if scope and reading.startswith("manifold."):
                continue
            for aggregate in aggregates:
                part = Part(
                    product=product,
                    direction="",
                    reading=reading,
                    aggregate=aggregate,
                    bad=text.bad,
                )
                yield f"{scope}{reading}.{aggregate}", part, text


_ALL: Final = (*_gain_ids(), *_site_ids())

METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {name: _metric(name, part, text) for name, part, text in _ALL}
)
"""Every id that ``measure`` knows, in the order of every report; ``applied.`` may stand before."""

PARTS: Final[Mapping[str, Part]] = MappingProxyType({name: part for name, part, _ in _ALL})
"""Id -> what it is made of."""


def find_metric(metric_id: str) -> Metric:
    """The definition behind an id, with or without ``applied.`` before it.

    Raises:
        OptionError: there is no such id; names the nearest.
    """
    known = METRICS.get(metric_id.removeprefix(APPLIED))
    if known is not None:
        return known
    import difflib  # 3 ms that only an error needs

    near = difflib.get_close_matches(metric_id.removeprefix(APPLIED), METRICS, n=3, cutoff=0.4)
    raise OptionError(
        f"metric {metric_id!r}",
        "there is no such id",
        f"{'Nearest: ' + ', '.join(near) + '. ' if near else ''}'mhc-diag metrics' lists them all.",
    )
