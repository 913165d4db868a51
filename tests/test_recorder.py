"""What a logger is told of each id: its bad end, in the order of every summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from factories import make_chain, make_trace, signed_matrices, trace_of

from mhc_diag.analysis import analysis_of
from mhc_diag.runs.recorder import Recorder
from mhc_diag.trace import Trace

AMIN, NORM = "single.forward.amin.mean", "single.forward.norm.max"


def told(trace: Trace, folder: Path) -> Mapping[str, float]:
    recorder = Recorder(folder / "run", ids=(AMIN, NORM), sink=None)
    shown = recorder.record(0, trace, {})
    recorder.close()
    return shown


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_comes_before_numbers_at_both_ends(tmp_path: Path, bad: float) -> None:
    M = np.abs(signed_matrices((4, 2, 3, 3)))
    M[2, 0] = bad
    trace = trace_of([make_chain(M)])
    summary = analysis_of(trace, ids=[AMIN, NORM]).summary
    np.testing.assert_equal(
        dict(told(trace, tmp_path)), {name: summary[name].worst for name in (AMIN, NORM)}
    )
    np.testing.assert_equal(summary[AMIN].worst, bad)


def test_a_nan_comes_before_an_infinity(tmp_path: Path) -> None:
    M = np.abs(signed_matrices((4, 2, 3, 3)))
    M[1, 0], M[2, 0] = np.inf, np.nan
    shown = told(trace_of([make_chain(M)]), tmp_path)
    assert np.isnan(shown[AMIN])
    assert np.isnan(shown[NORM])


def test_auxiliary_chains_and_gaps_do_not_count(tmp_path: Path) -> None:
    trace = make_trace(L=4, family="mhc", auxiliary_sites=3, unmeasured=[1])
    shown = told(trace, tmp_path)
    assert shown[NORM] == pytest.approx(1.0)
    assert shown[AMIN] == pytest.approx(1.0)
    nothing = make_trace(L=1, family="mhc", unmeasured=[0])
    assert dict(told(nothing, tmp_path / "other")) == {}
