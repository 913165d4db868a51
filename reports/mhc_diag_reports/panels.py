"""The paper's four panels, and a zoom for sources that are flat near 1.

Letters: L sites.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mhc_diag.analysis import Analysis
from mhc_diag_reports import axes
from mhc_diag_reports.page import Band, Panel, Section, Series, Tick, Values
from mhc_diag_reports.readings import breaks_of, highest, metric
from mhc_diag_reports.said import odd_of, range_of
from mhc_diag_reports.texts import count, listed, one_line
from mhc_diag_reports.words import limit_on, meaning_of

Sources = Sequence[tuple[str, str, Analysis]]
"""Label, colour, analysis."""

DIRECTIONS = ("forward", "backward")
READS = {"forward": "a signal going up", "backward": "a gradient coming down"}
_FLAT = 0.15
"""A source that uses less of the axis than this is drawn again on its own scale."""
_NOISE = 1e-9
"""Deviations from 1 (in log10) that no scale should blow up into a curve."""


def gain_id(scope: str, direction: str, aggregate: str = "mean") -> str:
    """The id of the paper's Amax Gain Magnitude."""
    return f"{scope}.{direction}.amax.{aggregate}"


def gain_section(sources: Sources) -> Section | None:
    """Single and composite gain against site index; None when nothing was measured."""
    panels = [
        panel
        for scope in ("single", "composite")
        for panel in _pair(sources, scope, key=scope, zoom=False)
    ]
    if not panels:
        return None
    flat = [source for source in sources if _is_flat(source[2], panels)]
    if flat:
        panels += _pair(flat, "composite", key="zoom", zoom=True)
    return Section(
        key="gains", title="Gain over depth", lead=_lead(sources, panels), figures=tuple(panels)
    )


def _lead(sources: Sources, panels: Sequence[Panel]) -> str:
    """How to read the panels: only what is drawn."""
    said = (
        "The largest absolute row sum (forward) and column sum (backward) of each site's matrix "
        "and of the products over depth. 1 is unchanged."
    )
    if any(panel.threshold is not None for panel in panels):
        said += " The dashed line is the limit."
    if len(sources) > 1:
        said += " All sources of a panel share its scale."
    if any(analysis.probe.tokens > 1 for _, _, analysis in sources):
        said += " Lines are means over tokens."
    if any(line.bands for panel in panels for line in panel.series):
        said += " Dark bands hold 90 % of the tokens (p5 to p95), light bands all of them."
    return said


def _is_flat(analysis: Analysis, panels: Sequence[Panel]) -> bool:
    """Whether the composite curves of a source look like a line at 1, but are not one."""
    spans = [
        math.log10(p.y.high) - math.log10(p.y.low) for p in panels if p.key.startswith("composite")
    ]
    drawn = [
        v
        for d in DIRECTIONS
        for v in metric(analysis, gain_id("composite", d)) or ()
        if v is not None
    ]
    if not spans or not drawn or not all(math.isfinite(v) and v > 0 for v in drawn):
        return False
    furthest = max(abs(math.log10(v)) for v in drawn)
    return _NOISE < furthest < _FLAT * max(spans)


def _pair(sources: Sources, scope: str, *, key: str, zoom: bool) -> list[Panel]:
    """Forward and backward panel of one scope on one common scale."""
    series = {
        d: [s for source in sources if (s := _series(source, scope, d)) is not None]
        for d in DIRECTIONS
    }
    drawn = [v for lines in series.values() for line in lines for v in _drawn(line)]
    if not drawn:
        return []
    bounds = {d: None if zoom else _threshold(sources, gain_id(scope, d)) for d in DIRECTIONS}
    if zoom:
        y = axes.linear_axis(drawn, include=(1.0,), label="gain")
    else:
        y = axes.gain_axis(drawn, include=[b for b in bounds.values() if b is not None])
    n_sites = max(len(analysis.sites) for _, _, analysis in sources)
    panels = []
    for direction, lines in series.items():
        if not lines:
            continue
        metric_id = gain_id(scope, direction)
        title = f"{scope.capitalize()} {direction} gain" + (", zoomed" if zoom else "")
        words = _said(lines, sources, bounds[direction])
        panels.append(
            Panel(
                key=f"{key}-{direction}",
                title=title,
                metric_id=metric_id,
                x=axes.site_axis(n_sites),
                y=y,
                series=tuple(lines),
                threshold=bounds[direction],
                separators=_separators(sources),
                caption=f"{meaning_of(metric_id).capitalize()}: {READS[direction]}.",
                desc=words,
            )
        )
    return panels


def _series(source: tuple[str, str, Analysis], scope: str, direction: str) -> Series | None:
    """One source's line with its bands over tokens."""
    label, colour, analysis = source
    y = metric(analysis, gain_id(scope, direction))
    if y is None or all(v is None for v in y):
        return None
    bands = []
    if analysis.probe.tokens > 1:
        for low, high, inner in (("min", "max", False), ("p5", "p95", True)):
            lower = metric(analysis, gain_id(scope, direction, low))
            upper = metric(analysis, gain_id(scope, direction, high))
            if lower is not None and upper is not None:
                bands.append(Band(lower=lower, upper=upper, inner=inner))
    return Series(
        label=label,
        colour=colour,
        x=tuple(float(site.index) for site in analysis.sites),
        y=y,
        dashed=direction == "backward",
        marker="square" if direction == "backward" else "circle",
        bands=tuple(bands),
        breaks=breaks_of([site.chain for site in analysis.sites]),
    )


def _drawn(line: Series) -> Values:
    """Everything that needs room on the axis."""
    return line.y + tuple(v for band in line.bands for v in band.lower + band.upper)


def _threshold(sources: Sources, metric_id: str) -> float | None:
    """The strictest upper limit on an id over all sources."""
    found = [limit_on(analysis, metric_id).max for _, _, analysis in sources]
    return min((bound for bound in found if bound is not None and bound > 0), default=None)


def _separators(sources: Sources) -> tuple[Tick, ...]:
    """Where the chains of the first source with several chains start."""
    for _, _, analysis in sources:
        starts = breaks_of([site.chain for site in analysis.sites])
        if starts:
            return tuple(Tick(value=float(i), text=analysis.sites[i].chain) for i in (0, *starts))
    return ()


def _said(lines: Sequence[Series], sources: Sources, bound: float | None) -> str:
    """The finding of a panel in words: the peak of every line, its limit, what is not a number."""
    by_label = {label: analysis for label, _, analysis in sources}
    said = []
    for line in lines:
        text = f"{line.label} {range_of(line, 'site')}"
        peak = highest(line.y)
        if bound is not None and peak is not None and math.isfinite(peak[0]):
            text += f", {'above' if peak[0] > bound else 'within'} the limit {bound:g}"
        said.append(text + odd_of(line, "site") + _not_measured(line, by_label[line.label]) + ".")
    return " ".join(said)


def _not_measured(line: Series, analysis: Analysis) -> str:
    """Sites without a value; for a product also those beyond a site that was not measured."""
    gaps = [i for i, v in enumerate(line.y) if v is None]
    if not gaps:
        return ""
    names = [f"{i} ({one_line(analysis.sites[i].name)})" for i in gaps]
    return f"; no value at {count(len(gaps), 'site')}: {listed(names, at_most=4)}"
