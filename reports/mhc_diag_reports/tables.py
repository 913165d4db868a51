"""Key numbers, sites, settings, provenance and definitions as tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mhc_diag.analysis import Analysis
from mhc_diag.metrics import METRICS
from mhc_diag_reports.page import Column, SourceDetails, Table
from mhc_diag_reports.readings import metric
from mhc_diag_reports.summaries import cell_of, cell_texts
from mhc_diag_reports.texts import MISSING, count, number, numbers, one_line
from mhc_diag_reports.words import (
    APPLIED,
    coverage_of,
    limit_on,
    limit_words,
    meaning_of,
    name_of,
    over_sites,
    probe_of,
    sample_of,
)

KEY_IDS = (
    "single.forward.amax.mean",
    "single.backward.amax.mean",
    "composite.forward.amax.mean",
    "composite.backward.amax.mean",
    "window.forward.amax.mean",
    "window.backward.amax.mean",
    "composite.forward.norm.mean",
    "composite.backward.norm.mean",
    "composite.forward.amax.max",
    "composite.backward.amax.max",
    "manifold.row_error.max",
    "manifold.column_error.max",
    "mixing.distance_identity.mean",
    "spectrum.lambda2.mean",
)
"""What a reader needs to judge a model; the rest is in analysis.json."""
SITE_IDS = (
    "single.forward.amax.mean",
    "single.backward.amax.mean",
    "composite.forward.amax.mean",
    "composite.backward.amax.mean",
    "composite.forward.norm.mean",
    "composite.backward.norm.mean",
    "manifold.row_error.max",
    "manifold.column_error.max",
)

Labelled = Sequence[tuple[str, str, Analysis]]
"""Label, colour, analysis."""


def key_ids(analyses: Iterable[Analysis]) -> tuple[str, ...]:
    """The key ids that any of the analyses has, and their readings after rounding."""
    present = {i for analysis in analyses for i in analysis.summary}
    return tuple(i for key in KEY_IDS for i in (key, APPLIED + key) if i in present)


def key_numbers(sources: Labelled) -> Table:
    """One row per id, one column per source."""
    analyses = [analysis for _, _, analysis in sources]
    rows = []
    for metric_id, texts in key_texts(analyses).items():
        bounds = {limit_words(limit_on(analysis, metric_id)) for _, _, analysis in sources} - {""}
        rows.append(
            (
                f"{name_of(metric_id)}\n{metric_id}",
                *texts,
                " / ".join(sorted(bounds)),
            )
        )
    return Table(
        title="Key numbers",
        columns=(
            Column(text=over_sites(analyses).capitalize()),
            *(Column(text=label, numeric=True, colour=colour) for label, colour, _ in sources),
            Column(text="limit", numeric=True),
        ),
        rows=tuple(rows),
        note=(
            "The number after “at” is the site. Ids without a bad end show their range. "
            f"{MISSING}: not measured."
        ),
    )


def key_texts(analyses: Sequence[Analysis], *, plain: bool = False) -> dict[str, list[str]]:
    """Key id -> one text per analysis, each with the decimals that they need beside each other."""
    return cell_texts(
        {i: [cell_of(analysis, i) for analysis in analyses] for i in key_ids(analyses)}, plain=plain
    )


def site_table(analysis: Analysis) -> Table:
    """One row per site in execution order."""
    ids = [i for i in SITE_IDS if i in analysis.metrics]
    columns = {i: numbers(metric(analysis, i) or (), apart=False) for i in ids}
    several = len(analysis.chains) > 1
    rows = tuple(
        (
            str(site.index),
            *([one_line(site.chain)] if several else []),
            one_line(site.name),
            *(columns[i][k] for i in ids),
        )
        for k, site in enumerate(analysis.sites)
    )
    return Table(
        title=f"All {count(len(rows), 'site')}",
        columns=(
            Column(text="site", numeric=True),
            *([Column(text="chain")] if several else []),
            Column(text="name", code=True),
            *(Column(text=i, numeric=True) for i in ids),
        ),
        rows=rows,
    )


def details_of(label: str, colour: str, analysis: Analysis) -> SourceDetails:
    """Everything about one source that is not in a figure."""
    skipped = analysis.coverage.skipped
    settings = analysis.model.settings
    return SourceDetails(
        label=label,
        colour=colour,
        sites=site_table(analysis),
        facts=_facts(analysis),
        skipped=Table(
            title="Not measured",
            columns=(Column(text="site", code=True), Column(text="why")),
            rows=tuple((one_line(s.site), one_line(s.why)) for s in skipped),
        )
        if skipped
        else None,
        settings=Table(
            title="Settings",
            columns=(Column(text="setting", code=True), Column(text="value"), Column(text="from")),
            rows=tuple(
                (one_line(k), one_line(str(s.value)), s.source) for k, s in settings.items()
            ),
        )
        if settings
        else None,
        provenance=_provenance(analysis),
    )


def _facts(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Coverage, orientation, precision, probe, chains."""
    model, precision = analysis.model, analysis.model.precision
    chains = ", ".join(
        f"{one_line(c.name)}: {count(c.sites, 'site')}, {count(c.streams, 'stream')}, "
        f"{sample_of(analysis, c.tokens)}"
        f"{' (auxiliary, not in the verdict)' if c.auxiliary else ''}"
        for c in analysis.chains
    )
    same = precision.computed == precision.applied
    return (
        ("Model", f"adapter {one_line(model.adapter)}, family {model.family}"),
        ("Coverage", coverage_of(analysis) + _unclaimed(analysis)),
        ("Chains", chains),
        ("Orientation", orientation_of(analysis)),
        (
            "Precision",
            f"computed and applied in {precision.computed}"
            if same
            else f"computed in {precision.computed}, applied in {precision.applied}",
        ),
        ("Probe", probe_of(analysis)),
        (
            "Limits",
            "; ".join(
                f"{pattern} {limit_words(limit)}" for pattern, limit in analysis.limits.items()
            )
            or "none",
        ),
    )


def _unclaimed(analysis: Analysis) -> str:
    """Names that look like hyper-connections and that nothing read."""
    names = analysis.coverage.unclaimed
    if not names:
        return ""
    return f"; not claimed by any adapter: {', '.join(one_line(name) for name in names)}"


def orientation_of(analysis: Analysis) -> str:
    """How M is stored and how that was settled."""
    orientation = analysis.orientation
    stored = f"the implementation stores {orientation.stored}"
    if orientation.verified == "declared" or orientation.error is None:
        return f"{stored}; declared by the adapter, not checked against the model's own arithmetic"
    other = orientation.error_transposed
    against = "" if other is None else f", {number(other)} with the transpose"
    return (
        f"{stored}; verified on the model's own x' = M x + H_post^T f: "
        f"relative error {number(orientation.error)}{against}"
    )


def _provenance(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Where the numbers come from."""
    source, probe = analysis.source, analysis.probe
    return (
        ("Source", one_line(source.path)),
        ("Format", one_line(source.format)),
        ("Bytes read", f"{source.bytes_read:,}".replace(",", " ")),
        ("Step", "not recorded" if source.step is None else str(source.step)),
        ("Inputs", one_line(probe.inputs) or "none"),
        ("Seed", "none" if probe.seed is None else str(probe.seed)),
    )


def definitions(ids: Iterable[str]) -> Table:
    """Every id of the page in words, with formula and ideal value."""
    rows = []
    for metric_id in dict.fromkeys(ids):
        entry = METRICS.get(metric_id.removeprefix(APPLIED))
        rows.append(
            (
                metric_id,
                meaning_of(metric_id) if entry is None else one_line(entry.meaning),
                "" if entry is None else one_line(entry.formula),
                "" if entry is None or entry.ideal is None else f"{entry.ideal:g}",
                "" if entry is None else entry.bad,
            )
        )
    return Table(
        title="Definitions",
        columns=(
            Column(text="metric id", code=True),
            Column(text="meaning"),
            Column(text="formula", code=True),
            Column(text="ideal", numeric=True),
            Column(text="bad end"),
        ),
        rows=tuple(rows),
        note=(
            "M is the matrix as applied: row = destination stream, column = source stream. "
            "Sites are numbered in execution order; products are per token, before averaging."
        ),
    )
