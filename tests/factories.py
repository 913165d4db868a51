"""Small traces of random signed, non-symmetric matrices, for tests.

Letters: L sites, T tokens, n streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mhc_diag.trace import (
    Chain,
    Coverage,
    Family,
    Model,
    Orientation,
    Precision,
    Probe,
    ProbeKind,
    Setting,
    Site,
    Skipped,
    Source,
    Sublayer,
    Trace,
)

ADAPTERS = {
    "hc": "lucidrains-hc",
    "mhc": "lucidrains-mhc",
    "mhc-lite": "mhc-lite",
    "kromhc": "kromhc",
    "identity": "identity",
    "custom": "tap",
}


def signed_matrices(shape: Sequence[int], *, spread: float = 0.1, seed: int = 0) -> np.ndarray:
    """Identity plus Gaussian noise, [L, T, n, n]; signed and non-symmetric."""
    rng = np.random.default_rng(seed)
    return np.eye(shape[-1]) + spread * rng.standard_normal(tuple(shape))


def doubly_stochastic(shape: Sequence[int], *, seed: int = 0) -> np.ndarray:
    """Random mixtures of permutations, [L, T, n, n]: exact to rounding and not symmetric."""
    L, T, n, _ = shape
    rng = np.random.default_rng(seed)
    permutations = np.stack([np.eye(n)[rng.permutation(n)] for _ in range(4)])
    weights = rng.dirichlet(np.ones(4), size=(L, T))
    return np.einsum("ltk,kij->ltij", weights, permutations)


def make_chain(
    M: np.ndarray,
    *,
    name: str = "main",
    start: int = 0,
    measured: Sequence[bool] | None = None,
    auxiliary: bool = False,
    prefix: str = "transformer.h",
) -> Chain:
    """A chain over given matrices; sites alternate attention and MLP."""
    halves: tuple[Sublayer, Sublayer] = ("attn", "mlp")
    sites = tuple(
        Site(
            index=start + l,
            chain=name,
            name=f"{prefix}.{l // 2}.hc_{halves[l % 2]}",
            layer=l // 2,
            sublayer=halves[l % 2],
        )
        for l in range(M.shape[0])
    )
    kept = tuple(measured) if measured is not None else (True,) * M.shape[0]
    return Chain(name=name, sites=sites, M=M, measured=kept, auxiliary=auxiliary)


def trace_of(
    chains: Sequence[Chain],
    *,
    family: Family = "hc",
    probe: ProbeKind = "tokens",
    inputs: str = "sha256:0f1e",
    seed: int = 0,
    source: str = "run/hc.pt",
    step: int | None = 1000,
    precision: Precision | None = None,
    settings: dict[str, Setting] | None = None,
    orientation: Orientation | None = None,
    unclaimed: Sequence[str] = (),
    input_dependent: bool = True,
) -> Trace:
    """A trace over chains; coverage is counted from their ``measured`` flags."""
    sites = [(s, m) for c in chains for s, m in zip(c.sites, c.measured, strict=True)]
    return Trace(
        source=Source(path=source, format="torch-zip", bytes_read=4096, step=step),
        model=Model(
            adapter=ADAPTERS[family],
            family=family,
            width=64,
            precision=precision or Precision(),
            settings=settings or {},
            input_dependent=input_dependent,
        ),
        orientation=orientation
        or Orientation(stored="M^T", verified="numeric", error=1e-7, error_transposed=2e-2),
        probe=Probe(kind=probe, tokens=chains[0].n_tokens, seed=seed, inputs=inputs),
        coverage=Coverage(
            expected=len(sites),
            measured=sum(m for _, m in sites),
            skipped=tuple(
                Skipped(site=s.name, why="its hook never fired") for s, m in sites if not m
            ),
            unclaimed=tuple(unclaimed),
        ),
        chains=tuple(chains),
    )


def make_trace(
    *,
    L: int = 6,
    T: int = 5,
    n: int = 4,
    family: Family = "hc",
    spread: float | None = None,
    matrix_seed: int = 0,
    unmeasured: Sequence[int] = (),
    auxiliary_sites: int = 0,
    **more: Any,
) -> Trace:
    """A trace of L sites in chain ``main`` and, on request, an auxiliary chain ``mtp0``.

    Families hc and custom get identity plus noise of the given spread; the projected ones get
    doubly stochastic matrices unless ``spread`` is given. ``more`` goes to :func:`trace_of`
    (probe, inputs, seed, source, step, precision, settings, orientation, unclaimed).
    """
    shape = (L, T, n, n)
    if family in {"hc", "custom"} or spread is not None:
        M = signed_matrices(shape, spread=0.1 if spread is None else spread, seed=matrix_seed)
    elif family == "identity":
        M = np.broadcast_to(np.eye(n), shape).copy()
    else:
        M = doubly_stochastic(shape, seed=matrix_seed)
    measured = [l not in unmeasured for l in range(L)]
    M[[l for l in range(L) if l in unmeasured]] = np.nan
    chains = [make_chain(M, measured=measured)]
    if auxiliary_sites:
        extra = signed_matrices((auxiliary_sites, T, n, n), spread=2.0, seed=matrix_seed + 1)
        chains.append(make_chain(extra, name="mtp0", start=L, auxiliary=True, prefix="mtp.0"))
    return trace_of(chains, family=family, **more)
