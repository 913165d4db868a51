from __future__ import annotations

import math

import numpy as np
import pytest
from factories import make_chain, make_trace, trace_of

from mhc_diag.analysis import Analysis, analysis_of
from mhc_diag.rules import NEEDED, RULES
from mhc_diag.rules.records import Finding, Limit
from mhc_diag.trace import Orientation, Precision, Setting


def found(analysis: Analysis, rule: str) -> list[Finding]:
    return [finding for finding in analysis.findings if finding.rule == rule]


def constant(matrix: list[list[float]], *, L: int = 4, T: int = 3) -> np.ndarray:
    M = np.asarray(matrix, dtype=np.float64)
    return np.broadcast_to(M, (L, T, *M.shape)).copy()


def test_every_rule_says_what_it_is_and_what_to_do() -> None:
    assert list(RULES) == [f"MHC{number}" for number in range(101, 114)]
    for rule_id, rule in RULES.items():
        assert rule.id == rule_id
        assert rule.title
        assert rule.looks_at
        assert rule.advice.endswith(".")


def test_ids_that_rules_need_exist() -> None:
    from mhc_diag.metrics import METRICS

    assert set(NEEDED) <= set(METRICS)


def test_gain_above_limit_is_found_once_per_id_at_its_worst_site() -> None:
    analysis = analysis_of(trace_of([make_chain(constant([[1.5, 0.5], [0.0, 1.0]]))]))
    first, second = found(analysis, "MHC101")
    assert first.message == (
        "composite.forward.amax.mean reaches 9.125 at site 3 (transformer.h.1.hc_mlp), "
        "above the limit 2.0; 3 tokens."
    )
    assert (first.severity, first.site) == ("error", 3)
    assert first.evidence == {"composite.forward.amax.mean": 9.125}
    assert "Sinkhorn" in first.advice
    assert "site 0 (transformer.h.0.hc_attn), whose single.forward.norm.mean of 2.0" in first.advice
    assert (list(second.evidence), second.site) == (["composite.backward.amax.mean"], 0)
    assert analysis.verdict == "unstable"


def test_the_limit_itself_is_still_within() -> None:
    trace = trace_of([make_chain(constant([[2.0, 0.0], [0.0, 1.0]], L=1))])
    assert analysis_of(trace).verdict == "stable"
    above = trace_of([make_chain(constant([[2.0000001, 0.0], [0.0, 1.0]], L=1))])
    assert "reaches 2.0000001 at site 0" in found(analysis_of(above), "MHC101")[0].message


def test_a_lower_limit_that_is_broken_names_the_smallest_value() -> None:
    trace = trace_of([make_chain(constant([[0.5, 0.0], [0.0, 1.0]]))])
    limits = {"composite.forward.amin.mean": Limit(min=0.1)}
    [finding] = found(analysis_of(trace, limits=limits), "MHC101")
    assert finding.message.startswith(
        "composite.forward.amin.mean falls to 0.0625 at site 3 (transformer.h.1.hc_mlp), below the"
    )


@pytest.mark.parametrize(
    ("bad", "word"), [(np.nan, "is not a number"), (np.inf, "is infinite")], ids=["nan", "inf"]
)
def test_what_is_not_finite_breaks_every_limit_and_is_named(bad: float, word: str) -> None:
    M = constant([[1.0, 0.0], [0.0, 1.0]])
    M[2, 1, 0, 0] = bad
    analysis = analysis_of(
        trace_of([make_chain(M)]), limits={"single.forward.amax.mean": Limit(max=1e9)}
    )
    assert analysis.verdict == "unstable"
    assert word in found(analysis, "MHC101")[0].message
    [finding] = found(analysis, "MHC103")
    assert finding.site == 2
    assert ("NaN" if np.isnan(bad) else "infinity") in finding.message
    assert "at site 2 (transformer.h.1.hc_attn)" in finding.message


def test_a_nan_under_no_limit_is_unstable_all_the_same() -> None:
    M = constant([[1.0, 0.0], [0.0, 1.0]])
    M[0, 0] = np.nan
    analysis = analysis_of(trace_of([make_chain(M)], family="mhc"), limits={})
    assert analysis.verdict == "unstable"


def test_a_projected_family_off_its_manifold_is_a_warning_with_the_worst_site() -> None:
    M = np.tile(np.eye(2), (5, 2, 1, 1))
    M[3, 0] = [[1.05, 0.0], [0.0, 1.0]]
    analysis = analysis_of(trace_of([make_chain(M)], family="mhc"))
    rows, columns = found(analysis, "MHC102")
    assert (rows.site, rows.severity) == (3, "warning")
    assert "manifold.row_error.max is 0.05 at site 3" in rows.message
    assert "above 0.01 at 1 of 5 sites" in rows.message
    assert list(columns.evidence) == ["manifold.column_error.max"]
    assert not found(analysis_of(trace_of([make_chain(M)], family="hc")), "MHC102")


def test_an_unmeasured_site_is_an_error_and_a_warning_when_partial_is_allowed() -> None:
    trace = make_trace(L=4, family="mhc", unmeasured=[2])
    strict = analysis_of(trace)
    [finding] = found(strict, "MHC104")
    assert finding.severity == "error"
    assert finding.message == (
        "1 of 4 sites was not measured: transformer.h.1.hc_attn (its hook never fired)."
    )
    assert strict.verdict == "not_measured"
    partial = analysis_of(trace, allow_partial=True)
    assert found(partial, "MHC104")[0].severity == "warning"
    assert partial.verdict == "stable"


def test_partial_measurement_never_passes_a_limit_without_any_value() -> None:
    trace = make_trace(L=4, family="mhc", unmeasured=[0])  # no forward composite anywhere
    assert analysis_of(trace, allow_partial=True).verdict == "not_measured"


def test_a_site_missing_in_an_auxiliary_chain_does_not_touch_the_verdict() -> None:
    main = make_trace(L=3, family="mhc").chains[0]
    extra = make_chain(
        constant([[1.0, 0.0], [0.0, 1.0]], T=5), name="mtp0", start=3, auxiliary=True,
        measured=[True, False, True, True],
    )  # fmt: skip
    analysis = analysis_of(trace_of([main, extra], family="mhc"))
    assert analysis.verdict == "stable"
    [finding] = found(analysis, "MHC104")
    assert finding.severity == "warning"
    assert "auxiliary" in finding.message


def test_a_limit_on_an_undefined_id_is_not_measured() -> None:
    trace = trace_of([make_chain(np.ones((3, 2, 1, 1)))], family="mhc")
    analysis = analysis_of(trace, limits={"mixing.entropy.mean": Limit(min=0.1)})
    assert analysis.verdict == "not_measured"
    assert (
        "mixing.entropy.mean could not be taken at 3 of 3" in found(analysis, "MHC104")[0].message
    )


def test_a_limited_id_without_a_value_at_one_site_is_not_measured() -> None:
    M = np.tile(np.full((2, 2), 0.5), (3, 2, 1, 1))
    M[1, :, 0] = 0.0  # a row of zeros has no entropy
    trace = trace_of([make_chain(M)])
    limits = {"mixing.entropy.mean": Limit(min=0.1)}
    assert analysis_of(trace, limits=limits).verdict == "not_measured"
    assert analysis_of(trace, limits=limits, allow_partial=True).verdict == "stable"


def test_nothing_expected_is_not_measured() -> None:
    analysis = analysis_of(trace_of([make_chain(np.ones((0, 2, 2, 2)))]))
    assert analysis.verdict == "not_measured"
    assert found(analysis, "MHC104")[0].severity == "error"


def test_assumed_settings_are_named_with_the_words_that_give_them() -> None:
    settings = {
        "sinkhorn_iters": Setting(value=20, source="assumed"),
        "tau": Setting(value=0.05, source="config"),
        "eps": Setting(value=1e-6, source="assumed"),
    }
    [finding] = found(analysis_of(make_trace(family="mhc", settings=settings)), "MHC105")
    assert finding.message.startswith("sinkhorn_iters=20, eps=1e-06 are assumed, the defaults of")
    assert "--set sinkhorn_iters=20 --set eps=1e-06" in finding.advice
    assert "config.json" in finding.advice
    assert "tau" not in finding.message


def test_cancellation_says_how_many_digits_are_left() -> None:
    spread = 1e4
    rotation = np.array([[1.0, spread], [0.0, 1.0]])
    back = np.array([[1.0, -spread], [0.0, 1.0]])
    M = np.stack([rotation, back, rotation, back])[:, None]
    analysis = analysis_of(trace_of([make_chain(M)]))
    assert not found(analysis, "MHC106")  # 2e4 of 1e6
    M[0, 0, 0, 1], M[1, 0, 0, 1] = 1e7, -1e7
    [forward, backward] = found(analysis_of(trace_of([make_chain(M)])), "MHC106")
    assert "about 8 of 16 decimal digits" in forward.message
    assert forward.site == 3
    assert backward.severity == "warning"


def test_a_gain_beyond_the_double_range_is_stated_as_its_logarithm() -> None:
    M = constant([[1e50, 0.0], [0.0, 1.0]], L=8)
    analysis = analysis_of(trace_of([make_chain(M)]))
    forward, backward = found(analysis, "MHC107")
    assert forward.site == 7
    assert "about 10^400.0" in forward.message
    assert forward.evidence["log10(composite.forward.norm.max)"] == pytest.approx(400)
    assert (backward.site, math.isinf(backward.evidence["composite.backward.norm.max"])) == (
        0,
        True,
    )
    assert analysis.verdict == "unstable"
    assert not found(analysis, "MHC103")


@pytest.mark.parametrize("probe", ["static", "isotropic"])
def test_a_reference_point_is_inconclusive_only_where_data_matter(probe: str) -> None:
    calm = analysis_of(make_trace(spread=0.01, probe=probe))
    assert calm.verdict == "inconclusive"
    assert found(calm, "MHC108")[0].severity == "info"
    assert analysis_of(make_trace(spread=0.01, probe="tokens")).verdict == "stable"
    assert analysis_of(make_trace(family="mhc", probe=probe)).verdict == "stable"
    fixed = make_trace(spread=0.01, probe=probe, input_dependent=False)
    assert analysis_of(fixed).verdict == "stable"
    assert analysis_of(make_trace(spread=2.0, probe=probe)).verdict == "unstable"


@pytest.mark.parametrize(
    ("error", "swapped", "severity"),
    [(1e-7, 2e-2, None), (2e-2, 1e-7, "error"), (0.5, 0.4, "warning"), (np.nan, 0.1, "warning")],
    ids=["right", "swapped", "neither", "nan"],
)
def test_closure_tells_the_orientation(error: float, swapped: float, severity: str | None) -> None:
    orientation = Orientation(stored="M", verified="numeric", error=error, error_transposed=swapped)
    findings = found(analysis_of(make_trace(orientation=orientation)), "MHC110")
    assert [finding.severity for finding in findings] == ([severity] if severity else [])


def test_a_taps_word_for_the_orientation_is_not_taken_in_silence() -> None:
    from dataclasses import replace

    trace = make_trace(orientation=Orientation(stored="M"))
    tapped = replace(trace, model=replace(trace.model, adapter="tap"))
    assert "was not checked" in found(analysis_of(tapped), "MHC110")[0].message
    assert not found(analysis_of(trace), "MHC110")


def test_the_closure_of_a_rounded_copy_may_be_off_by_its_rounding() -> None:
    orientation = Orientation(stored="M", verified="numeric", error=4e-3, error_transposed=0.5)
    rounded = Precision(computed="float32", applied="bfloat16")
    trace = make_trace(orientation=orientation, precision=rounded)
    assert not found(analysis_of(trace), "MHC110")
    assert found(analysis_of(make_trace(orientation=orientation)), "MHC110")


def test_identity_and_one_stream_are_said_not_to_mix() -> None:
    [finding] = found(analysis_of(make_trace(family="identity")), "MHC111")
    assert "identity at all 6 measured sites" in finding.message
    one = analysis_of(trace_of([make_chain(np.ones((3, 2, 1, 1)))], family="mhc"))
    assert "one stream" in found(one, "MHC111")[0].message
    assert not found(analysis_of(make_trace(family="mhc")), "MHC111")


def test_unclaimed_names_are_counted_and_shown() -> None:
    names = [f"model.mtp.{i}.hc_res" for i in range(5)]
    [finding] = found(analysis_of(make_trace(unclaimed=names)), "MHC112")
    assert finding.message.startswith("5 names look like hyper-connections")
    assert finding.message.endswith("model.mtp.2.hc_res and 2 more.")


def test_auxiliary_chains_are_reported_and_not_counted() -> None:
    analysis = analysis_of(make_trace(L=4, family="mhc", auxiliary_sites=3))
    assert analysis.verdict == "stable"
    gains = found(analysis, "MHC101")
    assert gains
    assert all(finding.severity == "warning" for finding in gains)
    assert all("auxiliary chain, no part of the verdict." in f.message for f in gains)
    assert all(f.site is not None and f.site >= 4 for f in gains)


def test_errors_stand_before_warnings_and_infos() -> None:
    trace = make_trace(spread=1.0, probe="static", unclaimed=["x.hc_res"])
    ranks = [{"error": 0, "warning": 1, "info": 2}[f.severity] for f in analysis_of(trace).findings]
    assert ranks == sorted(ranks)
    assert set(ranks) == {0, 1, 2}
