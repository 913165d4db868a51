"""Products that a double cannot hold are said, at the lower end as at the upper one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_chain, make_trace, trace_of

from mhc_diag.analysis import Analysis, analysis_of, judged
from mhc_diag.rules.records import Finding, Limit


def analysed(M: np.ndarray) -> Analysis:
    return analysis_of(trace_of([make_chain(M)]))


def vanished(analysis: Analysis) -> list[Finding]:
    return [finding for finding in analysis.findings if finding.rule == "MHC113"]


def repeated(matrix: np.ndarray, L: int) -> np.ndarray:
    return np.tile(matrix, (L, 3, 1, 1))


def test_a_gain_below_the_double_range_is_stated_as_its_logarithm() -> None:
    analysis = analysed(repeated(1e-10 * np.eye(4), 40))
    assert analysis["composite.forward.amax.mean"][-1] == 0.0
    forward, backward = vanished(analysis)
    assert (forward.site, backward.site) == (39, 0)
    assert forward.severity == "warning"
    assert "about 10^-400.0, shown as 0.0; 10 of 40 sites" in forward.message
    assert forward.evidence["log10(composite.forward.norm.max)"] == pytest.approx(-400)
    assert "site 0 (transformer.h.0.hc_attn), whose single.forward.norm.mean" in forward.advice


def test_a_norm_that_has_lost_its_digits_is_said_before_it_is_zero() -> None:
    forward, _ = vanished(analysed(repeated(1e-80 * np.eye(2), 4)))
    assert "about 10^-320.0, shown as 1e-320; 1 of 4 sites" in forward.message
    assert not vanished(analysed(repeated(1e-75 * np.eye(2), 4)))


def test_a_smaller_reading_than_the_norm_may_underflow_alone() -> None:
    M = np.broadcast_to(np.diag([1e-200, 1e-250]), (2, 3, 2, 2)).copy()
    M[1] = np.diag([1.0, 1e-100])
    forward = vanished(analysed(M))[0]
    assert next(iter(forward.evidence)).startswith("composite.forward.amin.")
    assert "about 10^-350.0" in forward.message
    assert forward.advice.startswith("Read composite.forward.norm there")


def test_a_zero_matrix_is_named_where_the_product_becomes_zero() -> None:
    M = repeated(np.eye(4), 6)
    M[2] = 0.0
    forward, backward = vanished(analysed(M))
    assert (forward.site, backward.site) == (2, 2)
    assert "composite.forward.norm.max is exactly 0 at site 2" in forward.message
    assert "4 of 6 sites" in forward.message
    assert "3 of 6 sites" in backward.message


def test_a_zero_matrix_of_one_token_is_said_too() -> None:
    M = repeated(np.eye(4), 6)
    M[2, 1] = 0.0
    forward, _ = vanished(analysed(M))
    assert "composite.forward.norm.min is exactly 0 at site 2" in forward.message
    assert "for some tokens" in forward.message


def test_sums_that_cancel_to_zero_are_no_vanished_product() -> None:
    analysis = analysed(np.tile([[1.0, -1.0], [0.5, -0.5]], (1, 3, 1, 1)))
    assert analysis["composite.forward.amax.max"][0] == 0.0
    assert not vanished(analysis)
    assert not vanished(analysis_of(make_trace(family="mhc", L=30)))


def test_a_limit_from_below_makes_it_unstable() -> None:
    trace = trace_of([make_chain(repeated(1e-10 * np.eye(4), 40))])
    assert analysis_of(trace).verdict == "stable"
    limits = {"composite.forward.norm.min": Limit(min=1e-9)}
    assert analysis_of(trace, limits=limits).verdict == "unstable"


def test_without_the_matrices_a_zero_says_that_it_may_be_either() -> None:
    whole = analysed(repeated(1e-50 * np.eye(4), 8))
    recorded = judged(replace(whole, trace=None), whole.limits)
    forward, _ = vanished(recorded)
    assert "exactly 0 at site 6" in forward.message
    assert "or too small for a double (the matrices are not at hand)" in forward.message
