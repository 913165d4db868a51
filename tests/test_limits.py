from __future__ import annotations

import json
import math

import numpy as np
import pytest
from factories import make_chain, make_trace, trace_of

from mhc_diag.analysis import Analysis, analysis_of
from mhc_diag.errors import OptionError
from mhc_diag.limits import gate, limits_of
from mhc_diag.rules.records import Limit
from mhc_diag.trace import Precision

FORWARD, BACKWARD = "composite.forward.amax.mean", "composite.backward.amax.mean"


def repeated(matrix: list[list[float]], *, L: int = 1, T: int = 2) -> np.ndarray:
    M = np.asarray(matrix, dtype=np.float64)
    return np.broadcast_to(M, (L, T, *M.shape)).copy()


def analysed(M: np.ndarray, **more: object) -> Analysis:
    return analysis_of(trace_of([make_chain(M)], **more), ids=[])  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(("max_gain", "code"), [(4.0, 0), (3.0, 0), (2.999, 1)])
def test_exit_code_follows_the_limit(max_gain: float, code: int) -> None:
    result = gate(analysed(repeated([[2.0, 1.0], [0.0, 1.0]])), max_gain=max_gain)
    assert (result.exit_code, result.passed) == (code, code == 0)
    assert [r.id for r in result.results] == [FORWARD, BACKWARD]
    assert result.results[0].value == 3.0
    assert result.results[0].site == 0


def test_without_limits_those_of_the_analysis_hold() -> None:
    trace = trace_of([make_chain(repeated([[3.0, 0.0], [0.0, 1.0]]))])
    assert gate(analysis_of(trace)).status == "failed"  # 2.0
    assert gate(analysis_of(trace, limits=limits_of(max_gain=5.0))).status == "passed"


def test_limits_of_the_analysis_stay_beside_those_of_the_gate() -> None:
    trace = trace_of([make_chain(repeated([[3.0, 0.0], [0.0, 0.1]]))])
    strict = {"single.forward.norm.max": 2.0}
    taken = analysis_of(trace, limits=limits_of(4.0, strict, {"single.*.amin.min": 0.05}))
    result = gate(taken, maxima={"single.backward.norm.max": 9.0})
    assert {r.id: r.passed for r in result.results} == {
        "single.forward.norm.max": False,
        "single.backward.norm.max": True,
        "single.forward.amin.min": True,
        "single.backward.amin.min": True,
        FORWARD: True,
        BACKWARD: True,
    }
    assert gate(taken, max_gain=3.5, maxima={"single.forward.norm.max": 3.0}).passed
    assert not gate(taken, minima={"single.*.amin.min": 0.5}, maxima=strict).passed


def test_a_given_limit_wins_over_those_of_the_analysis_ids_over_patterns() -> None:
    trace = trace_of([make_chain(repeated([[3.0, 0.0], [0.0, 1.0]]))])
    lenient = analysis_of(trace, limits=limits_of(maxima={FORWARD: 9.0, BACKWARD: 9.0}))
    assert gate(lenient).passed
    assert {r.limit.max for r in gate(lenient, max_gain=2.5).results} == {2.5}
    both = gate(lenient, max_gain=2.5, maxima={FORWARD: 4.0})
    assert {r.id: r.limit.max for r in both.results} == {FORWARD: 4.0, BACKWARD: 2.5}
    wide = analysis_of(trace, limits={"composite.forward.amax.*": Limit(max=1.0)})
    assert gate(wide, maxima={"composite.*.amax.*": 5.0}).passed
    low = analysis_of(trace, limits={FORWARD: Limit(min=5.0, max=1.0)})
    [result] = gate(low, maxima={FORWARD: 4.0}).results
    assert (result.limit, result.passed) == (Limit(min=5.0, max=4.0), False)


def test_a_limit_on_one_more_id_leaves_the_default_in_place() -> None:
    loud = analysed(repeated([[3.0, 0.0], [0.0, 1.0]]))
    result = gate(loud, maxima={"single.forward.norm.max": 10.0})
    assert {r.id: r.passed for r in result.results} == {
        "single.forward.norm.max": True,
        FORWARD: False,
        BACKWARD: False,
    }
    assert gate(loud, maxima={FORWARD: 4.0, BACKWARD: 4.0}).passed
    assert not gate(loud, maxima={FORWARD: 4.0}).passed


def test_a_lower_bound_fails_what_dies_out() -> None:
    fading = analysed(repeated([[0.5, 0.0], [0.0, 1.0]], L=4))
    result = gate(fading, minima={"composite.*.amin.mean": 0.1})
    broken = {r.id: r.value for r in result.results if not r.passed}
    assert broken == {"composite.forward.amin.mean": 0.0625, "composite.backward.amin.mean": 0.0625}
    assert gate(fading, minima={"composite.*.amin.mean": 0.01}).passed


def test_upper_and_lower_bound_of_one_id_stand_together() -> None:
    limits = limits_of(maxima={FORWARD: 3.0}, minima={FORWARD: 0.9})
    assert limits[FORWARD] == Limit(min=0.9, max=3.0)
    assert limits["composite.*.amax.mean"] == Limit(max=2.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_breaks_every_limit(bad: float) -> None:
    M = repeated([[1.0, 0.0], [0.0, 1.0]], L=3)
    M[1, 0, 0, 0] = bad
    result = gate(analysed(M, family="mhc"), max_gain=1e300)
    assert result.exit_code == 1
    assert not any(r.passed for r in result.results)


def test_a_gap_at_a_limited_id_is_not_measured_and_never_a_pass() -> None:
    trace = make_trace(L=5, family="mhc", unmeasured=[3])
    result = gate(analysis_of(trace), max_gain=2.0)
    assert (result.status, result.exit_code) == ("not_measured", 2)
    assert [r.passed for r in result.results] == [None, None]
    assert gate(analysis_of(trace, allow_partial=True), max_gain=2.0).passed
    headless = analysis_of(make_trace(L=5, family="mhc", unmeasured=[0]), allow_partial=True)
    assert gate(headless, max_gain=2.0).status == "not_measured"


def test_an_auxiliary_chain_cannot_fail_the_gate() -> None:
    loud_head = analysis_of(make_trace(L=4, family="mhc", auxiliary_sites=3))
    assert gate(loud_head, max_gain=1.5).passed


def test_a_limit_on_the_applied_readings_sees_the_rounding() -> None:
    M = repeated([[1.00390625 - 2**-10, 0.0], [0.0, 1.0]])  # bfloat16 rounds it up to 1.0078125
    name = f"applied.{FORWARD}"
    same = analysed(M)
    assert gate(same, max_gain=1.0035, maxima={name: 1.0035}).passed
    rounded = analysed(M, precision=Precision(computed="float32", applied="bfloat16"))
    result = gate(rounded, max_gain=1.0035, maxima={name: 1.0001})
    assert gate(rounded, max_gain=1.0035).passed
    value = next(r.value for r in result.results if r.id == name)
    assert value in {1.0, 1.0078125}
    assert value != M[0, 0, 0, 0]


def test_cancellation_holds_the_gain_down_and_strict_fails_it() -> None:
    M = repeated([[10.0, -10.0], [0.0, 1.0]])
    result = gate(analysed(M), max_gain=15.0)
    assert result.passed
    assert result.beside["composite.forward.norm.mean"].worst == 20.0
    [finding] = [f for f in result.findings if f.rule == "MHC109"]
    assert finding.message == (
        "composite.forward.amax.mean holds its limit 15.0, yet composite.forward.norm.mean reaches "
        "20.0 at site 0 (transformer.h.0.hc_attn): held down by cancellation within rows; 2 tokens."
    )
    assert gate(analysed(M), max_gain=15.0, strict=True).exit_code == 1
    assert gate(analysed(M), max_gain=25.0, strict=True).passed


def test_averaging_holds_the_gain_down() -> None:
    M = repeated([[1.0, 0.0], [0.0, 1.0]], T=10)
    M[0, 0] *= 5.0
    result = gate(analysed(M))
    hidden = {name for f in result.findings if f.rule == "MHC109" for name in f.evidence}
    assert result.passed
    assert hidden == {"composite.forward.amax.max", "composite.backward.amax.max"}
    assert "averaging over tokens" in result.findings[0].message


def test_a_broken_limit_has_nothing_held_down() -> None:
    M = repeated([[10.0, -10.0], [0.0, 1.0]])
    assert not [f for f in gate(analysed(M), max_gain=0.5).findings if f.rule == "MHC109"]


def test_a_reference_point_passes_only_when_the_probe_was_written() -> None:
    calm = analysis_of(make_trace(spread=0.01, probe="static"))
    assert gate(calm, probe_written=False).exit_code == 2
    assert gate(calm, probe_written=False).status == "inconclusive"
    assert gate(calm, probe_written=True).passed
    loud = analysis_of(make_trace(spread=2.0, probe="static"))
    assert gate(loud, probe_written=False).exit_code == 1


def test_limits_that_make_no_sense_are_refused() -> None:
    analysis = analysed(repeated([[1.0, 0.0], [0.0, 1.0]]))
    with pytest.raises(OptionError, match="no metric id matches"):
        gate(analysis, maxima={"composite.forward.gain": 2.0})
    with pytest.raises(OptionError, match="finite number"):
        gate(analysis, max_gain=math.nan)


def test_document_holds_limits_results_and_the_analysis_against_them() -> None:
    result = gate(analysed(repeated([[3.0, 0.0], [0.0, 1.0]])), max_gain=2.5)
    document = json.loads(result.to_json())
    assert document["limits"] == document["analysis"]["limits"]
    assert document["limits"] == {"composite.*.amax.mean": {"max": 2.5}}
    assert document["results"][0] == {
        "id": FORWARD, "limit": {"max": 2.5}, "value": 3.0, "site": 0, "passed": False,
    }  # fmt: skip
    assert (document["status"], document["exit"]) == ("failed", 1)
