"""How the parts of a record look in a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mhc_diag.documents import fields_of
from mhc_diag.rules.records import Finding, Limit
from mhc_diag.trace import Model

if TYPE_CHECKING:
    from mhc_diag.analysis import ChainSummary, Summary


def bad_end(metric_id: str) -> Literal["high", "low", "neither"]:
    """``high``, ``low`` or ``neither``."""
    from mhc_diag.metrics import METRICS

    return METRICS[metric_id.removeprefix("applied.")].bad


def summary_entry(metric_id: str, summary: Summary) -> dict[str, Any]:
    """A summary in a document: ``worst`` and ``site``, or ``min`` and ``max``."""
    if bad_end(metric_id) == "neither":
        return {"min": summary.min, "max": summary.max}
    return {"worst": summary.worst, "site": summary.site}


def limit_entry(limit: Limit) -> dict[str, float]:
    """A limit in a document: only the sides that are bounded."""
    sides = (("min", limit.min), ("max", limit.max))
    return {side: bound for side, bound in sides if bound is not None}


def limits_entry(limits: Mapping[str, Limit]) -> dict[str, Any]:
    """Limits in a document, by metric id or pattern."""
    return {name: limit_entry(limit) for name, limit in limits.items()}


def finding_entry(finding: Finding) -> dict[str, Any]:
    """A finding in a document."""
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "site": finding.site,
        "message": finding.message,
        "evidence": dict(finding.evidence),
        "advice": finding.advice,
    }


def model_entry(model: Model, chains: Iterable[ChainSummary]) -> dict[str, Any]:
    """The recognised model in a document, with its chains."""
    return {
        "adapter": model.adapter,
        "family": model.family,
        "width": model.width,
        "input_dependent": model.input_dependent,
        "chains": [fields_of(chain) for chain in chains],
        "precision": fields_of(model.precision),
        "settings": {
            name: {"value": setting.value, "from": setting.source}
            for name, setting in model.settings.items()
        },
    }
