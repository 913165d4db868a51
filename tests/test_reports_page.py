"""What is on the page, as data: panels, scales, tables, words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import make_chain, make_trace, signed_matrices, trace_of
from report_cases import a_run, an_analysis, broken, hc_against_mhc, projected

from mhc_diag.analysis import analysis_of
from mhc_diag.comparison import Failure, compare
from mhc_diag.rules.records import Limit
from mhc_diag_reports import texts, words
from mhc_diag_reports.content import page_of
from mhc_diag_reports.geometry import stretches
from mhc_diag_reports.page import Page
from mhc_diag_reports.tables import key_numbers, site_table


def panels_of(page: Page, section: str = "gains") -> dict[str, Any]:
    return {f.key: f for s in page.sections if s.key == section for f in s.figures}


def test_the_four_panels_of_the_paper_come_first_and_in_order() -> None:
    page = page_of(hc_against_mhc())
    keys = [figure.key for figure in page.sections[0].figures]
    assert keys[:4] == [
        "single-forward",
        "single-backward",
        "composite-forward",
        "composite-backward",
    ]
    assert [f.metric_id for f in page.sections[0].figures[:4]] == [
        "single.forward.amax.mean",
        "single.backward.amax.mean",
        "composite.forward.amax.mean",
        "composite.backward.amax.mean",
    ]


def test_a_panel_shows_exactly_the_numbers_of_the_analysis() -> None:
    comparison = hc_against_mhc()
    panel = panels_of(page_of(comparison))["composite-backward"]
    for line, analysis in zip(panel.series, comparison.analyses, strict=True):
        assert list(line.y) == analysis["composite.backward.amax.mean"].tolist()
        inner = next(band for band in line.bands if band.inner)
        assert list(inner.lower) == analysis["composite.backward.amax.p5"].tolist()
        assert list(inner.upper) == analysis["composite.backward.amax.p95"].tolist()


def test_sources_and_directions_share_one_scale_and_families_keep_their_colours() -> None:
    panels = panels_of(page_of(hc_against_mhc()))
    assert panels["composite-forward"].y == panels["composite-backward"].y
    assert [line.colour for line in panels["single-forward"].series] == ["#D55E00", "#0072B2"]
    assert not any(line.dashed for line in panels["single-forward"].series)
    assert all(line.dashed for line in panels["single-backward"].series)
    assert {line.marker for line in panels["single-backward"].series} == {"square"}


def test_a_flat_source_is_zoomed_and_a_growing_one_is_not() -> None:
    panels = panels_of(page_of(hc_against_mhc(L=40)))
    assert [line.label for line in panels["zoom-forward"].series] == ["mhc"]
    assert panels["zoom-forward"].y.high < 1.5
    assert not panels["zoom-forward"].y.log


def test_a_model_that_is_exactly_the_identity_is_not_zoomed_into_noise() -> None:
    page = page_of(compare(analysis_of(make_trace(family="identity"))))
    assert "zoom-forward" not in panels_of(page)


def test_bands_are_there_only_with_more_than_one_token() -> None:
    one = panels_of(page_of(compare(an_analysis("hc", T=1))))["single-forward"]
    many = panels_of(page_of(compare(an_analysis("hc", T=4))))["single-forward"]
    assert one.series[0].bands == ()
    assert [band.inner for band in many.series[0].bands] == [False, True]


def test_the_limit_stands_on_the_composite_panels_alone() -> None:
    panels = panels_of(page_of(hc_against_mhc()))
    assert panels["composite-forward"].threshold == 2.0
    assert panels["single-forward"].threshold is None
    assert panels["composite-forward"].y.low < 1.0 < 2.0 < panels["composite-forward"].y.high


def test_a_single_id_overrides_the_pattern_in_the_panel_and_in_the_verdict() -> None:
    limits = {
        "composite.*.amax.mean": Limit(max=2.0),
        "composite.forward.amax.mean": Limit(max=900),
    }
    analysis = analysis_of(trace_of([make_chain(projected(4, 2))]), limits=limits)
    panels = panels_of(page_of(compare(analysis)))
    assert panels["composite-forward"].threshold == 900
    assert panels["composite-backward"].threshold == 2.0


@pytest.mark.parametrize(("kind", "word"), [("inf", "3 (inf)"), ("nan", "3 (nan)")])
def test_what_is_not_finite_is_named_and_kept_as_a_value(kind: str, word: str) -> None:
    panel = panels_of(page_of(compare(broken(kind))))["single-forward"]
    value = panel.series[0].y[3]
    assert value is not None
    assert not math.isfinite(value)
    assert f"not finite at 1 site: {word}" in panel.desc


def test_an_unmeasured_site_is_a_named_gap_and_no_number() -> None:
    page = page_of(compare(broken("unmeasured")))
    panel = panels_of(page)["single-forward"]
    assert panel.series[0].y[3] is None
    assert "no value at 1 site: 3 (transformer.h.1.hc_mlp)" in panel.desc
    assert page.verdicts[0].word == "NOT MEASURED"
    assert page.verdicts[0].missing == (
        "no value at site 3, transformer.h.1.hc_mlp (its hook never fired)"
    )
    assert (page.verdicts[0].number, page.verdicts[0].limit) == ("", "")
    beyond = panels_of(page)["composite-forward"].series[0].y[3:]
    before = panels_of(page)["composite-backward"].series[0].y[:4]
    assert {*beyond, *before} == {None}
    assert page.key_numbers.columns[0].text == "Worst over measured sites"
    assert page.details[0].skipped is not None
    assert page.details[0].skipped.rows == (("transformer.h.1.hc_mlp", "its hook never fired"),)


def test_the_description_says_above_or_within_from_the_data() -> None:
    panel = panels_of(page_of(hc_against_mhc(L=40)))["composite-forward"]
    hc, mhc = panel.desc.split(". mhc")
    assert "above the limit 2" in hc
    assert "within the limit 2" in mhc


def test_lines_stop_at_the_end_of_a_chain() -> None:
    chains = [
        make_chain(projected(3, 2)),
        make_chain(projected(2, 2), name="decoder", start=3, prefix="dec"),
    ]
    panel = panels_of(page_of(compare(analysis_of(trace_of(chains, family="mhc")))))[
        "single-forward"
    ]
    assert panel.series[0].breaks == (3,)
    assert [(mark.value, mark.text) for mark in panel.separators] == [
        (0.0, "main"),
        (3.0, "decoder"),
    ]
    assert list(stretches([True] * 5, (3,))) == [range(3), range(3, 5)]


def test_the_deciding_number_is_the_one_furthest_beyond_its_limit() -> None:
    analysis = an_analysis("hc", L=40)
    line = page_of(compare(analysis)).verdicts[0]
    worst = max(
        (analysis.summary[f"composite.{way}.amax.mean"].worst, way)
        for way in ("forward", "backward")
    )
    assert line.number == texts.number(worst[0])
    assert line.metric_id == f"composite.{worst[1]}.amax.mean"
    assert (line.icon, line.word, line.limit) == ("✕", "UNSTABLE", "limit at most 2")


def test_a_value_that_is_not_finite_decides_although_no_limit_covers_it() -> None:
    analysis = broken("inf")
    held = replace(
        analysis,
        metrics={k: v for k, v in analysis.metrics.items() if k.startswith("single.")},
        summary={k: v for k, v in analysis.summary.items() if k.startswith("single.")},
        trace=None,
    )
    decided = words.deciding(held)
    assert decided is not None
    assert decided.id.startswith("single.")
    assert words.bound_words(decided) == "every value must be finite"


def test_a_source_that_could_not_be_measured_is_on_the_page() -> None:
    comparison = replace(
        hc_against_mhc(),
        failed=(Failure(label="gone", asked="analyze 'x.pt'", came="no such file", do="Look."),),
    )
    page = page_of(comparison)
    assert (page.verdicts[-1].label, page.verdicts[-1].word) == ("gone", "NOT MEASURED")
    assert page.verdicts[-1].probe == "analyze 'x.pt': no such file."
    assert page.lead == "Of 3 sources, 1 unstable, 1 stable and 1 not measured."


def test_findings_are_ordered_by_severity_across_sources() -> None:
    found = [card.severity for card in page_of(hc_against_mhc(L=40)).cards]
    order = {"error": 0, "warning": 1, "info": 2}
    assert {"error", "warning"} <= set(found)
    assert found == sorted(found, key=order.__getitem__)


def test_tables_hold_the_numbers_of_the_analysis() -> None:
    analysis = an_analysis("hc")
    table = site_table(analysis)
    heads = [column.text for column in table.columns]
    column = heads.index("composite.forward.amax.mean")
    shown = [float(row[column]) for row in table.rows]
    assert shown == pytest.approx(analysis["composite.forward.amax.mean"].tolist(), rel=6e-3)
    summary = analysis.summary["composite.forward.amax.mean"]
    row = next(
        r
        for r in key_numbers([("x", "#000000", analysis)]).rows
        if "composite.forward.amax.mean" in r[0]
    )
    assert row[1] == f"{texts.number(summary.worst)} at {summary.site}"
    assert row[2] == "at most 2"


def test_every_id_on_the_page_is_defined() -> None:
    page = page_of(hc_against_mhc())
    defined = {row[0] for row in page.definitions.rows}
    shown = {f.metric_id for s in page.sections for f in s.figures}
    shown |= {row[0].split("\n")[1] for row in page.key_numbers.rows}
    shown |= {c.text for d in page.details for c in d.sites.columns if "." in c.text}
    assert shown <= defined
    assert all(row[1] for row in page.definitions.rows)


def test_the_same_page_comes_out_twice() -> None:
    comparison, runs = hc_against_mhc(), [a_run("hc", "hc")]
    assert page_of(comparison, runs=runs) == page_of(comparison, runs=runs)


def test_nothing_measured_at_all_still_makes_a_page() -> None:
    M = np.full((3, 2, 4, 4), np.nan)
    page = page_of(compare(analysis_of(trace_of([make_chain(M, measured=[False] * 3)]))))
    assert page.verdicts[0].number == ""
    assert [section.key for section in page.sections] == []


def test_more_sources_than_colours_are_all_drawn() -> None:
    analyses = [
        analysis_of(trace_of([make_chain(signed_matrices((3, 2, 4, 4), seed=k))])) for k in range(9)
    ]
    page = page_of(compare(*analyses, labels=[f"s{k}" for k in range(9)]))
    assert len(panels_of(page)["single-forward"].series) == 9
