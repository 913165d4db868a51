"""MHC101, MHC106, MHC109: gains above their limit, and how far to trust their digits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mhc_diag.rules.bounds import Breach, breach
from mhc_diag.rules.case import Case, shown, worst
from mhc_diag.rules.records import Finding, Limit
from mhc_diag.trace import PROJECTED_FAMILIES

CANCELLATION_LIMIT = 1e6
"""Below it, every number is good to 1e-6 of its norm reading (contract section 2)."""
BESIDE = tuple(
    f"composite.{way}.{reading}"
    for reading in ("norm.mean", "amax.max")
    for way in ("forward", "backward")
)
"""Ids that the gate prints beside its limit: what cancellation and averaging can hide."""
_DIGITS_OF_DOUBLE = 53 * math.log10(2)


def gain_above_limit(case: Case) -> Iterator[Finding]:
    """MHC101: once per limited id, at its worst site."""
    for metric_id, limit in case.limits.items():
        found = breach(case.values(metric_id), limit)
        if found is not None:
            yield Finding(
                rule="MHC101",
                severity="error",
                site=found.site,
                message=_broken(case, metric_id, limit, found),
                evidence={metric_id: found.value},
                advice=gain_advice(case, metric_id, found.site),
            )


def digits_lost(case: Case) -> Iterator[Finding]:
    """MHC106: the composite cancels so far that digits of a double are lost."""
    for way in ("forward", "backward"):
        metric_id = f"composite.{way}.cancellation.max"
        at = worst(_without(np.isnan, case.values(metric_id)), "high")
        if at is None or at[0] <= CANCELLATION_LIMIT:
            continue
        value, site = at
        left = max(0, math.floor(_DIGITS_OF_DOUBLE - math.log10(value))) if value < math.inf else 0
        yield Finding(
            rule="MHC106",
            severity="warning",
            site=site,
            message=(
                f"{metric_id} reaches {shown(value)} at {case.place(site)}: terms of the product "
                f"cancel, about {left} of 16 decimal digits are left in the {way} composites "
                f"there; {case.sample}."
            ),
            evidence={metric_id: value},
            advice=f"Read composite.{way}.norm there, which cancels least, and the window ids.",
        )


def held_down(case: Case) -> Iterator[Finding]:
    """MHC109: the limit on the mean gain holds, but not for the norm or for the worst token."""
    for way in ("forward", "backward"):
        gain = f"composite.{way}.amax.mean"
        limit = Limit(max=case.limits.get(gain, Limit()).max)
        if limit.max is None or breach(case.values(gain), limit):
            continue
        for metric_id in (name for name in BESIDE if f".{way}." in name):
            found = breach(case.values(metric_id), limit)
            if found is None:
                continue
            why = "cancellation within rows" if ".norm." in metric_id else "averaging over tokens"
            why = why.replace("rows", "columns") if way == "backward" else why
            yield Finding(
                rule="MHC109",
                severity="warning",
                site=found.site,
                message=(
                    f"{gain} holds its limit {shown(limit.max)}, yet {metric_id} reaches "
                    f"{shown(found.value, beside=limit.max)} at {case.place(found.site)}: held "
                    f"down by {why}; {case.sample}."
                ),
                evidence={metric_id: found.value},
                advice=f"Limit {metric_id} itself (--max {metric_id}=X), or pass --strict.",
            )


def gain_advice(case: Case, metric_id: str, site: int) -> str:
    """What to do about a gain at a site, with the site that contributes most."""
    if not math.isfinite(case.values(case.witness).filled(0.0)[case.keep].sum()):
        return "Look at the first site that is not finite (MHC103) before any gain."
    family = case.model.family
    if family in PROJECTED_FAMILIES:
        cure = (
            f"H_res of family {family} is projected, so its gain should stay near 1: compare the "
            "settings (sinkhorn_iters, eps, tau) and the precision with those of training"
        )
    else:
        known = "known to be " if family == "custom" else ""
        cure = (
            f"H_res of family {family} is not {known}projected: project it onto the doubly "
            "stochastic matrices (Sinkhorn, as mHC does) or bound it"
        )
    loud = _loudest(case, metric_id, site)
    if loud is None:
        return f"{cure}."
    name, value, where = loud
    return f"{cure}; look first at {case.place(where)}, whose {name} of {shown(value)} adds most."


def _broken(case: Case, metric_id: str, limit: Limit, found: Breach) -> str:
    place, sample = case.place(found.site), case.sample
    if found.side == "nan":
        return f"{metric_id} is not a number at {place}, which breaks every limit; {sample}."
    if found.side == "inf":
        return f"{metric_id} is infinite at {place}, which breaks every limit; {sample}."
    bound = limit.max if found.side == "max" else limit.min
    assert bound is not None
    verb, side = ("reaches", "above") if found.side == "max" else ("falls to", "below")
    value = shown(found.value, beside=bound)
    return f"{metric_id} {verb} {value} at {place}, {side} the limit {shown(bound)}; {sample}."


def _loudest(case: Case, metric_id: str, site: int) -> tuple[str, float, int] | None:
    """The single-site gain that contributes most to a product: id, value, site."""
    way = "backward" if ".backward." in metric_id else "forward"
    names = [f"single.{way}.{reading}.mean" for reading in ("norm", "amax")]
    name = next((name for name in names if name in case.metrics), names[0])
    values = case.values(name)
    part = case.chain_of(site)
    if metric_id.removeprefix("applied.").startswith("composite."):
        start, stop = (part.start, site + 1) if way == "forward" else (site, part.stop)
        part = slice(start, stop)
    outside = np.ones(len(values), dtype=bool)
    outside[part] = False
    found = worst(np.ma.array(values.data, mask=np.ma.getmaskarray(values) | outside), "high")
    return None if found is None else (name, *found)


def _without(test: np.ufunc, values: np.ma.MaskedArray[Any, Any]) -> np.ma.MaskedArray[Any, Any]:
    """Values with those masked that a test names, [L]."""
    return np.ma.array(values.data, mask=np.ma.getmaskarray(values) | test(values.data))
