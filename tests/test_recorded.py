from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from factories import make_trace
from run_cases import a_run
from test_schemas import validator

import mhc_diag as md
from mhc_diag import documents, entries
from mhc_diag.analysis import Analysis, analysis_of
from mhc_diag.errors import NoHyperConnectionsError, OptionError, RunError
from mhc_diag.runs.read import load_run
from mhc_diag.runs.store import RunWriter
from mhc_diag.trace import Precision, Setting

GAIN = "composite.forward.amax.mean"
STEPS = {10: 0.01, 20: 0.1, 30: 1.5}
"""Step -> spread of the matrices recorded there."""


def analysed(spread: float) -> Analysis:
    settings = {"tau": Setting(value=0.05, source="assumed")}
    return analysis_of(make_trace(spread=spread, settings=settings, auxiliary_sites=2))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    first = analysed(0.01)
    with RunWriter(
        tmp_path / "hc",
        sites=first.sites,
        model=entries.model_entry(first.model, first.chains),
        orientation=documents.fields_of(first.orientation),
    ) as writer:
        for step, spread in STEPS.items():
            writer.write(step, analysed(spread).metrics, {"loss": 1.0})
    return tmp_path / "hc"


@pytest.mark.parametrize("step", STEPS)
def test_a_recorded_step_is_analysed_as_its_trace_was(run: Path, step: int) -> None:
    read, direct = md.analyze(run, step=step), analysed(STEPS[step])
    assert len(read.metrics) == 12
    for name in read:
        assert read[name].tolist() == direct[name].tolist()
        assert read.summary[name] == direct.summary[name]
    assert read.verdict == direct.verdict
    assert (read.model, read.chains, read.orientation) == (
        direct.model,
        direct.chains,
        direct.orientation,
    )
    assert (read.source.format, read.source.step, read.probe.tokens) == ("run", step, 5)
    gains = [f.message for f in read.findings if f.rule == "MHC101"]
    assert gains == [f.message for f in direct.findings if f.rule == "MHC101"]
    validator("analysis").validate(json.loads(read.to_json()))


def test_the_last_step_is_the_default(run: Path) -> None:
    assert md.analyze(str(run)).source.step == 30
    assert md.analyze(str(run)).verdict == "unstable"


@pytest.mark.parametrize(
    ("probe", "said", "differs"),
    [
        ({}, "training batch at step 30", True),
        (
            {"inputs": "inputs that are not token ids"},
            "inputs that are not token ids at step 30",
            True,
        ),
        ({"inputs": ""}, "training batch at step 30", True),
        ({"inputs": "sha256:1; ids"}, "sha256:1; ids at step 30", True),
        ({"inputs": "sha256:1; sha256:2"}, "sha256:1; sha256:2", False),
        ({"kind": "static", "inputs": "zero dynamic input"}, "zero dynamic input", False),
        ({"kind": "isotropic", "inputs": "x ~ N(0, I)"}, "x ~ N(0, I)", False),
    ],
)
def test_steps_differ_in_their_inputs_only_when_they_do(
    probe: dict[str, str], said: str, differs: bool, tmp_path: Path
) -> None:
    one = analysed(0.01)
    whole = {"kind": "tokens", "tokens": 7, "seed": 3, "inputs": "", **probe} if probe else {}
    with RunWriter(
        tmp_path / "hc",
        sites=one.sites,
        model=entries.model_entry(one.model, one.chains),
        orientation=documents.fields_of(one.orientation),
    ) as writer:
        for step in (10, 30):
            writer.write(step, one.metrics, probe=whole)
    early, late = (md.analyze(tmp_path / "hc", step=step) for step in (10, 30))
    assert late.probe.inputs == said
    assert bool(md.compare(early, late).differences) is differs
    if probe:
        assert (late.probe.kind, late.probe.tokens) == (whole["kind"], 7)
        assert [chain.tokens for chain in late.chains] == [7, 7]
        assert late.identity.inputs == said


def test_a_run_knows_the_probe_of_every_step(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {1: 0.1, 2: 0.1}, inputs="sha256:0f")
    wanted = {"kind": "tokens", "tokens": 5, "seed": 0, "inputs": "sha256:0f"}
    assert load_run(run).probes == (wanted, wanted)


def test_a_probe_that_makes_no_sense_is_a_damaged_run(tmp_path: Path) -> None:
    run = a_run(tmp_path / "hc", {1: 0.1})
    text = (run / "stats.jsonl").read_text()
    (run / "stats.jsonl").write_text(text.replace('"kind"', '"sort"'))
    with pytest.raises(RunError, match="does not say"):
        md.analyze(run)


def test_the_probe_of_a_recorded_step_may_be_named_but_not_changed(tmp_path: Path) -> None:
    run = a_run(tmp_path / "mhc", {1: 0.0}, probe="static", inputs="zero dynamic input")
    assert md.analyze(run, probe="static").probe.kind == "static"
    with pytest.raises(OptionError, match="probe cannot change readings .* on static"):
        md.analyze(run, probe="tokens")


def test_steps_of_one_run_differ_in_their_inputs(run: Path) -> None:
    both = md.compare(md.analyze(run, step=10), md.analyze(run, step=30))
    assert both.labels == ("hc step 10", "hc step 30")
    assert both.differences == (
        (
            "Inputs (different): hc step 10: training batch at step 10; "
            "hc step 30: training batch at step 30"
        ),
    )


def test_a_step_that_was_not_recorded_names_the_nearest(run: Path) -> None:
    with pytest.raises(OptionError, match=r"10 to 30, without it\. The nearest is --step 20"):
        md.analyze(run, step=18)


def test_options_that_come_too_late_are_refused(run: Path) -> None:
    with pytest.raises(OptionError, match="settings cannot change readings"):
        md.analyze(run, settings={"tau": 1.0})
    with pytest.raises(OptionError, match="probe cannot change readings"):
        md.analyze(run, probe="static")
    assert md.analyze(run, probe="tokens", settings={}).source.step == 30


def test_an_id_that_the_run_lacks_is_never_a_pass(run: Path) -> None:
    result = md.gate(md.analyze(run, step=10), maxima={"window.forward.norm.mean": 9.0})
    assert (result.status, result.exit_code) == ("not_measured", 2)
    assert md.gate(md.analyze(run, step=10)).passed


def test_a_site_without_values_is_not_measured(tmp_path: Path) -> None:
    gap = analysis_of(make_trace(L=4, family="mhc", unmeasured=[1]))
    with RunWriter(
        tmp_path / "mhc",
        sites=gap.sites,
        model=entries.model_entry(gap.model, gap.chains),
        orientation=documents.fields_of(gap.orientation),
    ) as writer:
        writer.write(1, gap.metrics)
    read = md.analyze(tmp_path / "mhc")
    assert (read.coverage.expected, read.coverage.measured) == (4, 3)
    assert read.coverage.skipped[0].site == gap.sites[1].name
    assert read.verdict == "not_measured"
    assert md.analyze(tmp_path / "mhc", allow_partial=True).verdict == "stable"


def test_a_nan_in_a_record_is_unstable_and_named(tmp_path: Path) -> None:
    trace = make_trace(L=4, family="mhc", precision=Precision())
    trace.chains[0].M[2, 0, 0, 0] = np.nan
    sick = analysis_of(trace)
    with RunWriter(
        tmp_path / "mhc",
        sites=sick.sites,
        model=entries.model_entry(sick.model, sick.chains),
        orientation=documents.fields_of(sick.orientation),
    ) as writer:
        writer.write(1, sick.metrics)
    read = md.analyze(tmp_path / "mhc")
    assert read.verdict == "unstable"
    [finding] = [f for f in read.findings if f.rule == "MHC103"]
    assert finding.message.startswith("H_res holds NaN at site 2")


def test_a_run_without_sites_or_steps_says_so(tmp_path: Path) -> None:
    RunWriter(tmp_path / "residual", sites=(), model={"family": "residual"}, ids=()).close()
    with pytest.raises(NoHyperConnectionsError, match="residual"):
        md.analyze(tmp_path / "residual")
    one = analysed(0.01)
    RunWriter(tmp_path / "empty", sites=one.sites, model={"family": "hc"}).close()
    with pytest.raises(RunError, match="no recorded step yet"):
        md.analyze(tmp_path / "empty")
    with RunWriter(tmp_path / "vague", sites=one.sites, model={"family": "hc"}) as writer:
        writer.write(1, one.metrics)
    with pytest.raises(RunError, match="does not say the whole model: 'adapter'"):
        md.analyze(tmp_path / "vague")
