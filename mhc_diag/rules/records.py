"""What a rule says: findings, limits, verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
Verdict = Literal["stable", "unstable", "inconclusive", "not_measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Bounds for one metric id or a pattern of ids; None is no bound."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence computed from the data, with its evidence."""

    rule: str
    """Stable id of the rule, MHC101 and so on."""
    severity: Severity
    message: str
    """What was found: the number, its metric id, the place."""
    site: int | None = None
    """Index of the site that it is about; None for the model as a whole."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Metric id (or other name) -> number."""
    advice: str = ""
    """What the user can do about it."""
