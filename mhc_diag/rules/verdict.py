"""The verdict: one word, taken from numbers, never from the wording of findings."""

from __future__ import annotations

import numpy as np

from mhc_diag.rules.bounds import breach
from mhc_diag.rules.case import Case
from mhc_diag.rules.provenance import missing_sites
from mhc_diag.rules.records import Verdict


def verdict_of(case: Case) -> Verdict:
    """Contract section 4, on the main chains: not_measured, unstable, inconclusive or stable."""
    if not is_measured(case):
        return "not_measured"
    broken = any(breach(case.values(name), limit) for name, limit in case.limits.items())
    if broken or not _is_finite(case):
        return "unstable"
    return "inconclusive" if case.is_reference_point else "stable"


def is_measured(case: Case) -> bool:
    """Whether all that the verdict needs was measured; with ``allow_partial``, some of each."""
    names = {*case.limits, *({case.witness} & set(case.metrics))} or set(case.metrics)
    gaps = [np.ma.getmaskarray(case.values(name))[case.keep] for name in names]
    if not gaps or any(mask.all() for mask in gaps):  # True as well for no site at all
        return False
    if case.allow_partial:
        return True
    return missing_sites(case) == 0 and not any(mask.any() for mask in gaps)


def _is_finite(case: Case) -> bool:
    return all(
        np.isfinite(case.values(name).compressed()).all()
        for name in case.metrics
        if ".cancellation." not in name  # infinite where a product of finite matrices is 0
    )
