"""MHC102, MHC103, MHC111: matrices that are not what their family promises, or not numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mhc_diag.rules.case import Case, shown, worst
from mhc_diag.rules.records import Finding
from mhc_diag.trace import PROJECTED_FAMILIES

MANIFOLD_TOLERANCE = 1e-2
"""Largest deviation of a row or column sum from 1 that a projection may leave."""
_IDENTITY_TOLERANCE = 1e-6


def not_doubly_stochastic(case: Case) -> Iterator[Finding]:
    """MHC102: a projected family, yet rows or columns do not sum to 1."""
    if case.model.family not in PROJECTED_FAMILIES:
        return
    for axis in ("row", "column"):
        metric_id = f"manifold.{axis}_error.max"
        values = case.values(metric_id)
        finite = np.ma.array(values.data, mask=np.ma.getmaskarray(values) | ~np.isfinite(values))
        at = worst(finite, "high")
        if at is None or at[0] <= MANIFOLD_TOLERANCE:
            continue
        value, site = at
        above = int((finite.filled(0.0) > MANIFOLD_TOLERANCE).sum())
        yield Finding(
            rule="MHC102",
            severity="warning",
            site=site,
            message=(
                f"H_res of family {case.model.family} is not doubly stochastic: {metric_id} is "
                f"{shown(value)} at {case.place(site)}, above {MANIFOLD_TOLERANCE:g} at {above} of "
                f"{int(case.keep.sum())} sites; {case.sample}."
            ),
            evidence={metric_id: value},
            advice=(
                "Project with more Sinkhorn iterations (20 in the paper), check that sinkhorn_iters"
                ", tau and eps here are those of training (--set), and the dtype of the projection."
            ),
        )


def not_finite(case: Case) -> Iterator[Finding]:
    """MHC103: NaN or infinity in the matrices, or a NaN in a reading of finite matrices."""
    metric_id = case.witness
    values = case.values(metric_id)
    hits = np.flatnonzero(~np.isfinite(values.data) & ~np.ma.getmaskarray(values))
    if not hits.size:
        yield from _stray_nan(case)
        return
    first = int(hits[0])
    value = float(values.data[first])
    what = "NaN" if np.isnan(value) else "infinity"
    place = case.place(first)
    where = place if len(hits) == 1 else f"{len(hits)} sites, first at {place}"
    yield Finding(
        rule="MHC103",
        severity="error",
        site=first,
        message=(f"H_res holds {what} at {where}: {metric_id} is {shown(value)}; {case.sample}."),
        evidence={metric_id: value},
        advice=(
            "Go back to the last checkpoint whose matrices are finite, and look at the parameters "
            "and the activations that enter this site."
        ),
    )


def does_not_mix(case: Case) -> Iterator[Finding]:
    """MHC111: H_res is the identity everywhere, or there is one stream."""
    for chain, part in case.ranges():
        if chain.streams == 1 and chain.sites:
            yield Finding(
                rule="MHC111",
                severity="info",
                site=part.start,
                message=(
                    f"Chain {chain.name!r} has one stream: H_res is a number per site, and the "
                    "mixing ids are null."
                ),
                evidence={"streams": 1},
                advice="Hyper-connections need two streams or more (4 in the paper).",
            )
            continue
        name = "mixing.distance_identity.mean"
        distances = case.values(name)[part].compressed()
        if distances.size and bool((distances <= _IDENTITY_TOLERANCE).all()):
            yield Finding(
                rule="MHC111",
                severity="info",
                site=part.start,
                message=(
                    f"H_res is the identity at all {distances.size} measured sites of chain "
                    f"{chain.name!r} ({name} at most {shown(float(distances.max()))}): the streams "
                    "do not mix."
                ),
                evidence={name: float(distances.max())},
                advice="Expected of an untrained or plain residual model; else see what was read.",
            )


def _stray_nan(case: Case) -> Iterator[Finding]:
    for metric_id in case.metrics:
        if ".cancellation." in metric_id:  # 0 / 0 where a product of finite matrices is 0
            continue
        values = case.values(metric_id)
        hits = np.flatnonzero(np.isnan(values.data) & ~np.ma.getmaskarray(values))
        if hits.size:
            site = int(hits[0])
            yield Finding(
                rule="MHC103",
                severity="error",
                site=site,
                message=(
                    f"{metric_id} is not a number at {case.place(site)}, although {case.witness} "
                    f"is finite wherever it was measured; {case.sample}."
                ),
                evidence={metric_id: float("nan")},
                advice="Look at the gains of this site: they are near the end of the double range.",
            )
            return
