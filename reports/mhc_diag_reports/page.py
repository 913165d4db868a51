"""What is on the page, as data: no HTML, no SVG, no matplotlib.

Letters: L sites, S training steps. A value of None was not measured; NaN and infinity are values.
Two renderers draw the same records: inline SVG (:mod:`mhc_diag_reports.svg`) and matplotlib
(:mod:`mhc_diag_reports.png`), so page and paper cannot show different things.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Values = tuple[float | None, ...]
Marker = Literal["circle", "square"]
Size = Literal["full", "small"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One labelled place on an axis."""

    value: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Range and ticks in data units; ``log`` means that distance is log10 of the value."""

    label: str
    low: float
    high: float
    ticks: tuple[Tick, ...]
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A range over tokens around a line."""

    lower: Values
    upper: Values
    inner: bool
    """True: p5 to p95, drawn dark. False: smallest to largest, drawn light."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a panel."""

    label: str
    colour: str
    """Six-digit hex; says which source."""
    x: tuple[float, ...]
    y: Values
    dashed: bool = False
    """Backward; says the direction together with the marker, so that colour need not."""
    marker: Marker = "circle"
    bands: tuple[Band, ...] = ()
    breaks: tuple[int, ...] = ()
    """Positions in ``x`` where another chain starts; the line is not drawn across."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes with lines."""

    key: str
    """Unique on the page: letters, digits and hyphens."""
    title: str
    metric_id: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    caption: str
    """What the figure shows, for readers who see it."""
    desc: str
    """The finding in words, computed from the values, for readers who do not."""
    reference: float | None = 1.0
    threshold: float | None = None
    """A limit that this panel's metric id stands under."""
    separators: tuple[Tick, ...] = ()
    """Starts of further chains, with their names."""
    size: Size = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """Gain over sites (rows, site 0 at the bottom) and steps (columns)."""

    key: str
    title: str
    metric_id: str
    values: tuple[Values, ...]
    """L rows of S gains; None and NaN are hatched, infinity is drawn in ink."""
    x: Axis
    """In columns, 0 to S."""
    y: Axis
    """In rows, 0 to L."""
    decades: float
    """The colour scale runs from 10**-decades over 1 to 10**decades, alike on every heatmap."""
    floor: float
    """log10 of the smallest gain on any heatmap, at most 0: where the colour bar starts."""
    bar: tuple[Tick, ...]
    """Ticks of the colour bar, in gain units."""
    caption: str
    desc: str


Figure = Panel | Heatmap


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with figures that belong together."""

    key: str
    title: str
    lead: str
    figures: tuple[Figure, ...]
    columns: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Head of one table column."""

    text: str
    numeric: bool = False
    code: bool = False
    colour: str = ""
    """Colour of the source that the column belongs to, when it belongs to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text in rows; the first column heads its row. A line break in a cell sets an id below."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One finding of one source."""

    label: str
    severity: Literal["error", "warning", "info"]
    rule: str
    title: str
    """What the rule is about, in a few words; empty when the rule is not known."""
    place: str
    message: str
    evidence: tuple[tuple[str, str], ...]
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLine:
    """The answer for one source, with everything that it depends on."""

    label: str
    colour: str
    verdict: str
    icon: str
    word: str
    number: str
    """The value that decided, formatted; empty when nothing was measured."""
    metric_id: str
    meaning: str
    """The metric id in words."""
    place: str
    """Where that value stands."""
    missing: str = ""
    """What was not measured, where that is the answer; then there is no number."""
    limit: str
    """The bound it was held against, in words: ``limit at most 2``."""
    probe: str
    """What the matrices were measured on, in words."""
    model: str
    """Adapter, family, sites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateAnswer:
    """What a gate said, above everything else."""

    status: Literal["passed", "failed", "inconclusive", "not_measured"]
    icon: str
    word: str
    sentence: str
    """Exit code, probe, coverage."""
    limits: Table
    """Every limit with its value, and what stands beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDetails:
    """Everything about one source that does not go into a figure."""

    label: str
    colour: str
    sites: Table
    facts: tuple[tuple[str, str], ...]
    """Coverage, orientation and the like: name and sentence."""
    skipped: Table | None
    settings: Table | None
    provenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole report, in reading order."""

    title: str
    lead: str
    verdicts: tuple[VerdictLine, ...]
    differences: tuple[str, ...]
    key_numbers: Table
    sections: tuple[Section, ...]
    cards: tuple[Card, ...]
    details: tuple[SourceDetails, ...]
    definitions: Table
    tool: str
    command: str = ""
    gate: GateAnswer | None = None
    notes: tuple[str, ...] = field(default=())
    """What was thinned or left out, said aloud."""
