"""MHC107, MHC113: products of matrices that a double cannot hold, at either end of its range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mhc_diag.rules.case import Case, shown, worst
from mhc_diag.rules.gains import gain_advice
from mhc_diag.rules.records import Finding

_SMALLEST = float(np.finfo(np.float64).tiny)
"""Below it a double loses its digits, until it is 0."""
_Flags = np.ndarray[Any, np.dtype[np.bool_]]


def beyond_double(case: Case) -> Iterator[Finding]:
    """MHC107: a gain of finite matrices that no double can hold, once per direction."""
    whole = _sites_of_finite_chains(case)
    for way in ("forward", "backward"):
        for metric_id in _products(case, way):
            values = case.values(metric_id)
            hits = np.flatnonzero(np.isinf(values.data) & ~np.ma.getmaskarray(values) & whole)
            if not hits.size:
                continue
            first, last = int(hits[0]), int(hits[-1])
            site = last if way == "forward" else first
            power = _log10(case, metric_id, site)
            size = "" if power is None else f", about 10^{power:.1f}"
            yield Finding(
                rule="MHC107",
                severity="error",
                site=site,
                message=(
                    f"{metric_id} is beyond the range of a double at {case.place(site)}{size}; "
                    f"{len(hits)} of {int(case.keep.sum())} sites; {case.sample}."
                ),
                evidence={metric_id: math.inf}
                | ({} if power is None else {f"log10({metric_id})": power}),
                advice=gain_advice(case, metric_id, site),
            )
            break


def vanishing(case: Case) -> Iterator[Finding]:
    """MHC113: a gain too small for a double, and a product that is 0; once each per direction."""
    for way in ("forward", "backward"):
        small = {name: hits for name in _products(case, way) if (hits := _tiny(case, name)).any()}
        powers = _powers(case, small)
        faint = {name: hits & np.isfinite(powers[name]) for name, hits in small.items()}
        name = next((name for name, hits in faint.items() if hits.any()), None)
        if name is not None:
            yield _faint(case, name, np.flatnonzero(faint[name]), powers[name])
        gone = {
            name: small[name] & (case.values(name).data == 0) & ~faint[name]
            for name in small
            if _is_zero_with_its_product(name)
        }
        name = next((name for name, hits in gone.items() if hits.any()), None)
        if name is not None:
            yield _gone(case, name, np.flatnonzero(gone[name]))


def _faint(case: Case, metric_id: str, sites: Any, powers: Any) -> Finding:
    """The finding of a gain that underflows at ``sites``; ``powers`` are its log10 [L]."""
    site = int(sites[-1] if ".forward." in metric_id else sites[0])
    value, power = float(case.values(metric_id).data[site]), float(powers[site])
    return Finding(
        rule="MHC113",
        severity="warning",
        site=site,
        message=(
            f"{metric_id} is below the range of a double at {case.place(site)}: about "
            f"10^{power:.1f}, shown as {shown(value)}; {len(sites)} of {int(case.keep.sum())} "
            f"sites; {case.sample}."
        ),
        evidence={metric_id: value, f"log10({metric_id})": power},
        advice=_fading(case, metric_id, site),
    )


def _gone(case: Case, metric_id: str, sites: Any) -> Finding:
    """The finding of a product that is 0 at ``sites``; named is the one where it becomes 0."""
    site = int(sites[0] if ".forward." in metric_id else sites[-1])
    unsure = "" if case.trace else ", or too small for a double (the matrices are not at hand)"
    some = "" if metric_id.endswith(".norm.max") else " for some tokens"
    return Finding(
        rule="MHC113",
        severity="warning",
        site=site,
        message=(
            f"{metric_id} is exactly 0 at {case.place(site)}{unsure}: nothing passes from stream "
            f"to stream{some}; {len(sites)} of {int(case.keep.sum())} sites; {case.sample}."
        ),
        evidence={metric_id: 0.0},
        advice=_fading(case, metric_id, site),
    )


def _fading(case: Case, metric_id: str, site: int) -> str:
    """What to do about a product that fades away, with the site that takes most from it."""
    way = "forward" if ".forward." in metric_id else "backward"
    if ".norm." not in metric_id:
        return f"Read composite.{way}.norm there: it says whether the product itself fades away."
    part = case.chain_of(site)
    part = slice(part.start, site + 1) if way == "forward" else slice(site, part.stop)
    single = f"single.{way}.norm.mean"
    values = case.values(single)
    outside = np.ones(len(values), dtype=bool)
    outside[part] = False
    at = worst(np.ma.array(values.data, mask=np.ma.getmaskarray(values) | outside), "low")
    look = "" if at is None else f"look first at {case.place(at[1])}, whose {single} of "
    least = "" if at is None else f"{shown(at[0])} is the smallest, and "
    return (
        "The residual path carries no signal there, branch outputs alone do: "
        f"{look}{least}check what was read. --min composite.{way}.norm.min=X puts a limit on it."
    )


def _tiny(case: Case, metric_id: str) -> _Flags:
    """Where a measured value is 0, or a norm so small that its digits are lost, [L]."""
    values = case.values(metric_id)
    size = np.abs(values.data)
    tiny = (size == 0) | ((size < _SMALLEST) & (".norm." in metric_id))
    return np.asarray(tiny & ~np.ma.getmaskarray(values))


def _is_zero_with_its_product(metric_id: str) -> bool:
    """A norm is 0 only where the product is; sums, means of matrices and windows may cancel."""
    return metric_id.removeprefix("applied.").startswith("composite.") and (
        ".norm." in metric_id and not metric_id.endswith(".mean_matrix")
    )


def _powers(case: Case, small: Mapping[str, _Flags]) -> dict[str, Any]:
    """Id -> log10 of its values [L]; of the doubles themselves where the matrices are gone."""
    if not small:
        return {}
    with np.errstate(divide="ignore"):
        if case.trace is None:
            return {name: np.log10(np.abs(case.values(name).data)) for name in small}
        from mhc_diag.metrics import read_out

        return {name: read.log10() for name, read in read_out(case.trace, small).items()}


def _sites_of_finite_chains(case: Case) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Sites of chains in which every measured matrix is finite, [L] bool."""
    whole = np.zeros(len(case.sites), dtype=bool)
    values = case.values(case.witness)
    finite = np.isfinite(values.data) | np.ma.getmaskarray(values)
    for _, part in case.ranges():
        whole[part] = bool(finite[part].all())
    return whole


def _products(case: Case, way: str) -> list[str]:
    """Ids of products, the most telling first."""
    first = [f"composite.{way}.norm.max", f"window.{way}.norm.max"]
    heads = tuple(f"{scope}.{way}." for scope in ("composite", "window"))
    rest = [name for name in case.metrics if name.removeprefix("applied.").startswith(heads)]
    return [name for name in first if name in case.metrics] + [
        name for name in rest if name not in first and ".cancellation." not in name
    ]


def _log10(case: Case, metric_id: str, site: int) -> float | None:
    """The decimal logarithm of a value beyond the double range, where the matrices are at hand."""
    if case.trace is None:
        return None
    from mhc_diag.metrics import log10_of

    power = float(log10_of(case.trace, metric_id, site))
    return power if math.isfinite(power) else None
