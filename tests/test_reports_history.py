"""Runs over training on the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from report_cases import a_run, hc_against_mhc

from mhc_diag_reports.content import page_of
from mhc_diag_reports.page import Heatmap, Page, Panel


def panels_of(page: Page, section: str = "gains") -> dict[str, Any]:
    return {f.key: f for s in page.sections if s.key == section for f in s.figures}


def test_runs_give_curves_over_steps_heatmaps_and_small_multiples() -> None:
    runs = [a_run("hc", "hc", L=8, S=12), a_run("mhc", "mhc", L=8, S=12)]
    page = page_of(hc_against_mhc(), runs=runs)
    assert [section.key for section in page.sections] == ["gains", "training", "maps", "steps"]
    training = panels_of(page, "training")
    assert list(training) == ["worst", "scalar-loss", "scalar-grad-norm"]
    assert len({panel.x for panel in training.values()}) == 1
    forward = training["worst"].series[0]
    assert list(forward.y) == runs[0].values["composite.forward.amax.mean"].max(1).tolist()
    maps = [f for s in page.sections if s.key == "maps" for f in s.figures]
    assert [m.key for m in maps if isinstance(m, Heatmap)] == [
        "map-0-forward",
        "map-0-backward",
        "map-1-forward",
        "map-1-backward",
    ]
    assert len({(m.decades, m.floor) for m in maps if isinstance(m, Heatmap)}) == 1
    steps = [f for s in page.sections if s.key == "steps" for f in s.figures]
    assert steps[0].title == "Step 0"
    assert steps[-1].title == "Step 1100"
    assert len({f.y for f in steps if isinstance(f, Panel)}) == 1


def test_auxiliary_chains_stay_out_of_the_worst_gain_of_a_run() -> None:
    run = a_run("hc", "hc", L=4, S=3)
    sites = (*run.sites[:3], replace(run.sites[3], chain="mtp0"))
    values = {k: np.ma.array(v) for k, v in run.values.items()}
    values["composite.forward.amax.mean"][:, 3] = 1e6
    model = {"family": "hc", "chains": [{"name": "mtp0", "auxiliary": True}]}
    page = page_of(hc_against_mhc(), runs=[replace(run, sites=sites, values=values, model=model)])
    assert max(panels_of(page, "training")["worst"].series[0].y) < 1e6


def test_a_loss_without_a_number_is_counted_and_not_drawn_as_one() -> None:
    run = a_run("hc", "hc", S=5)
    loss = run.scalars["loss"].copy()
    loss[2:4] = np.nan
    page = page_of(hc_against_mhc(), runs=[replace(run, scalars={"loss": loss})])
    panel = panels_of(page, "training")["scalar-loss"]
    assert panel.series[0].y[2:4] == (None, None)
    assert "2 steps without a number (NaN or not recorded)" in panel.desc


def test_many_steps_are_thinned_without_losing_the_peak_and_the_page_says_so() -> None:
    run = a_run("hc", "hc", L=3, S=1000)
    values = {k: np.ma.array(v) for k, v in run.values.items()}
    values["composite.forward.amax.mean"][777, 1] = 1e9
    page = page_of(hc_against_mhc(), runs=[replace(run, values=values)])
    worst = panels_of(page, "training")["worst"].series[0]
    assert len(worst.y) == 400
    assert max(worst.y) == 1e9
    heat = panels_of(page, "maps")["map-0-forward"]
    assert len(heat.values[0]) == 200
    assert max(heat.values[1]) == 1e9
    assert heat.caption == "Each column is the worst of up to 5 recorded steps."
