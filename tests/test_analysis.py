from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from factories import doubly_stochastic, make_chain, make_trace, trace_of

from mhc_diag.analysis import analysis_of, judged
from mhc_diag.errors import OptionError
from mhc_diag.metrics import METRICS
from mhc_diag.rules.records import Limit
from mhc_diag.trace import Precision


def prefix_gain(M: np.ndarray) -> list[float]:
    """Slow twin of composite.forward.amax.mean."""
    gains = []
    for l in range(len(M)):
        per_token = []
        for t in range(M.shape[1]):
            A = np.eye(M.shape[-1])
            for k in range(l + 1):
                A = M[k, t] @ A
            per_token.append(np.abs(A.sum(axis=1)).max())
        gains.append(float(np.mean(per_token)))
    return gains


def test_values_agree_with_a_slow_loop() -> None:
    trace = make_trace(L=7, T=4, spread=0.3)
    values = analysis_of(trace)["composite.forward.amax.mean"]
    assert values.filled(np.nan) == pytest.approx(prefix_gain(trace.chains[0].M), rel=1e-9)


def test_an_unknown_id_names_the_nearest() -> None:
    analysis = analysis_of(make_trace())
    with pytest.raises(OptionError, match=r"Did you mean 'composite\.forward\.amax\.mean'"):
        analysis["composite.forward.amax.maen"]


def test_applied_ids_of_one_precision_are_the_plain_ids() -> None:
    analysis = analysis_of(make_trace())
    assert "applied.single.forward.amax.mean" in analysis
    assert analysis["applied.single.forward.amax.mean"] is analysis["single.forward.amax.mean"]
    assert "applied.single.forward.amax.mean" not in list(analysis)


def test_applied_ids_of_another_precision_are_their_own() -> None:
    precision = Precision(computed="float32", applied="bfloat16")
    analysis = analysis_of(make_trace(precision=precision))
    name = "single.forward.amax.mean"
    assert not np.array_equal(analysis[f"applied.{name}"], analysis[name])
    assert analysis[f"applied.{name}"].data == pytest.approx(analysis[name].data, rel=1e-2)
    limited = analysis_of(make_trace(precision=precision), limits={f"applied.{name}": Limit(max=1)})
    assert limited.verdict == "unstable"


def test_summary_takes_the_bad_end_and_leaves_auxiliary_chains_out() -> None:
    analysis = analysis_of(make_trace(L=5, family="mhc", auxiliary_sites=2))
    name = "composite.forward.amax.mean"
    assert analysis[name][5:].max() > 3  # the auxiliary chain is loud
    assert analysis.summary[name].worst == pytest.approx(1)
    low = analysis.summary["composite.forward.amin.mean"]
    assert low.worst == analysis["composite.forward.amin.mean"][:5].min()
    neither = next(n for n in METRICS if METRICS[n].bad == "neither")
    span = analysis.summary[neither]
    assert (span.worst, span.site) == (None, None)
    assert (span.min, span.max) == (analysis[neither][:5].min(), analysis[neither][:5].max())


def test_asking_for_some_ids_still_takes_the_same_verdict() -> None:
    trace = make_trace(spread=0.5, L=10)
    some = analysis_of(trace, ids=["spectrum.lambda2.mean"])
    whole = analysis_of(trace)
    assert "spectrum.lambda2.mean" in some
    assert len(some.metrics) < len(whole.metrics)
    assert (some.verdict, some.findings) == (whole.verdict, whole.findings)


def test_other_limits_give_another_verdict_on_the_same_numbers() -> None:
    analysis = analysis_of(make_trace(spread=0.3, L=12), ids=[])
    assert analysis.verdict == "unstable"
    calm = judged(analysis, {"composite.*.amax.mean": Limit(max=1e6)})
    assert calm.verdict == "stable"
    assert not [f for f in calm.findings if f.rule == "MHC101"]
    window = judged(analysis, {"window.forward.norm.mean": Limit(max=1.0)})  # measured when needed
    assert "window.forward.norm.mean" in window
    assert window.verdict == "unstable"


def test_frame_has_one_row_per_site_and_one_column_per_id() -> None:
    analysis = analysis_of(make_trace(L=4, unmeasured=[2], auxiliary_sites=1))
    frame = analysis.frame()
    assert list(frame.columns[:5]) == ["index", "chain", "name", "layer", "sublayer"]
    assert list(frame.columns[5:]) == list(analysis.metrics)
    assert frame["index"].tolist() == [0, 1, 2, 3, 4]
    assert frame["chain"].tolist() == ["main"] * 4 + ["mtp0"]
    assert frame["single.forward.amax.mean"].isna().tolist() == [False, False, True, False, False]


def test_document_holds_nulls_for_gaps_and_words_for_what_is_not_finite() -> None:
    M = doubly_stochastic((4, 2, 3, 3))
    M[1] = np.nan
    chain = make_chain(M, measured=[True, False, True, True])
    chain.M[3, 0, 0, 0] = np.inf
    text = analysis_of(trace_of([chain], family="mhc")).to_json()
    assert "NaN" not in text.replace("holds NaN", "")
    document = json.loads(text, parse_constant=pytest.fail)
    values = document["metrics"]["single.forward.norm.max"]
    assert values[1] is None
    assert values[3] == "inf"
    assert values[0] == analysis_of(trace_of([chain]))["single.forward.norm.max"][0]


def test_json_is_stable_and_keeps_every_digit(tmp_path: Path) -> None:
    trace = make_trace()
    analysis = analysis_of(trace)
    text = analysis.to_json(tmp_path / "analysis.json")
    assert (tmp_path / "analysis.json").read_text() == text == analysis_of(trace).to_json()
    document = json.loads(text)
    assert list(document) == [
        "schema", "tool", "source", "model", "orientation", "probe", "coverage", "sites",
        "metrics", "summary", "limits", "findings", "verdict",
    ]  # fmt: skip
    for name, values in document["metrics"].items():
        assert values == [None if v is np.ma.masked else float(v) for v in analysis[name]]
    assert document["limits"] == {"composite.*.amax.mean": {"max": 2.0}}


def test_repr_is_one_short_line() -> None:
    assert repr(analysis_of(make_trace(L=40, spread=1.0))).startswith(
        "<Analysis of 'run/hc.pt': unstable, tokens probe, 5 tokens, 40 of 40 sites"
    )


def test_an_analysis_imports_neither_torch_nor_pandas_nor_matplotlib() -> None:
    code = (
        "import sys; from factories import make_trace; from mhc_diag.analysis import analysis_of;"
        "analysis_of(make_trace()).to_json();"
        "print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{here}:{here.parent}"},
    )
    assert done.stdout.strip() == "[]"
