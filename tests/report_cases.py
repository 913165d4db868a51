"""Comparisons and runs for tests of the reports.

Letters: L sites, T tokens, n streams, S steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from factories import make_chain, trace_of

from mhc_diag.analysis import Analysis, analysis_of
from mhc_diag.comparison import Comparison, compare
from mhc_diag.runs.read import RunHistory
from mhc_diag.trace import Family, Setting, Trace

HOSTILE = "<script>alert(1)</script>&\"'\x1b[31m"
HC_SETTINGS = {
    "tanh": Setting(value=True, source="config"),
    "eps": Setting(value=1e-6, source="assumed"),
}


def growing(L: int, T: int, n: int = 4, *, growth: float = 1.06, seed: int = 0) -> np.ndarray:
    """Signed matrices whose products grow with depth, [L, T, n, n]."""
    rng = np.random.default_rng(seed)
    site = np.eye(n) * growth + 0.10 * rng.standard_normal((L, 1, n, n))
    return np.asarray(site + 0.06 * rng.standard_normal((L, T, n, n)))


def projected(L: int, T: int, n: int = 4, *, seed: int = 1) -> np.ndarray:
    """Matrices after a few Sinkhorn rounds: rows exact, columns nearly, [L, T, n, n]."""
    rng = np.random.default_rng(seed)
    M = np.exp(1.5 * np.eye(n) + 1.2 * rng.standard_normal((L, T, n, n)))
    for _ in range(6):
        M = M / M.sum(-2, keepdims=True)
        M = M / M.sum(-1, keepdims=True)
    return np.asarray(M)


def a_trace(
    family: Family, *, L: int = 8, T: int = 6, prefix: str = "transformer.h", **more: Any
) -> Trace:
    """A trace of one family: hc grows, the others are projected."""
    M = growing(L, T) if family == "hc" else projected(L, T)
    return trace_of([make_chain(M, prefix=prefix)], family=family, **more)


def an_analysis(family: Family, **more: Any) -> Analysis:
    """What :func:`a_trace` measures."""
    return analysis_of(a_trace(family, **more))


def hc_against_mhc(*, L: int = 8, T: int = 6) -> Comparison:
    """An unstable HC model with an assumed setting, beside a stable mHC model."""
    return compare(
        hc=an_analysis("hc", L=L, T=T, source="run/hc.pt", settings=HC_SETTINGS),
        mhc=an_analysis("mhc", L=L, T=T, source="run/mhc.pt"),
    )


def broken(kind: str, *, L: int = 8, T: int = 3) -> Analysis:
    """An HC analysis with one site that is infinite, NaN or not measured."""
    M = growing(L, T)
    measured = [True] * L
    if kind == "unmeasured":
        M[3], measured[3] = np.nan, False
    else:
        M[3, 0, 0, 0] = np.inf if kind == "inf" else np.nan
    return analysis_of(trace_of([make_chain(M, measured=measured)], family="hc"))


def a_run(
    label: str, family: Family, *, L: int = 8, S: int = 12, every: int = 100, seed: int = 0
) -> RunHistory:
    """A run whose gain grows with depth and step when the family is hc."""
    rng = np.random.default_rng(seed)
    depth, time = np.linspace(0, 1, L)[None, :], np.linspace(0, 1, S)[:, None]
    size = 3.2 if family == "hc" else 0.05
    wobble = 0.04 * size * rng.standard_normal((S, L)).cumsum(1) / np.sqrt(np.arange(1, L + 1))
    bump = 0.8 * np.exp(-(((time[:, 0] - 0.7) / 0.05) ** 2)) * (family == "hc")
    return RunHistory(
        label=label,
        path=f"runs/{label}",
        steps=np.arange(S) * every,
        sites=a_trace("hc", L=L, T=1).sites,
        values={
            "composite.forward.amax.mean": np.ma.array(10 ** (size * depth * time + wobble)),
            "composite.backward.amax.mean": np.ma.array(10 ** (size * (1 - depth) * time - wobble)),
        },
        scalars={
            "loss": 2.0 + 3.0 * np.exp(-5 * time[:, 0]) + bump,
            "grad_norm": 0.5 + 3 * np.exp(-4 * time[:, 0]) + 20 * bump,
        },
        model={"family": family, "chains": [{"name": "main", "auxiliary": False}]},
    )


def hostile() -> Comparison:
    """Every text that comes from outside is markup."""
    settings = {HOSTILE: Setting(value=HOSTILE, source="assumed")}
    chain = make_chain(projected(4, 2), prefix=HOSTILE, measured=[True, True, True, False])
    trace = trace_of(
        [chain],
        family="mhc",
        source=HOSTILE,
        inputs=HOSTILE,
        settings=settings,
        unclaimed=[HOSTILE],
    )
    return compare(analysis_of(trace), broken("nan"), labels=[HOSTILE, "b\x00\ud800"])
