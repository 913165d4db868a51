"""The answer of a gate: one row per limit and per number beside it, the same on every output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mhc_diag.limits import GateResult, Status
from mhc_diag_reports.page import Column, GateAnswer, Table
from mhc_diag_reports.texts import MISSING, numbers
from mhc_diag_reports.words import coverage_of, limit_words, missing_of, short_probe

STATUS: Mapping[Status, tuple[str, str]] = {
    "passed": ("✓", "PASSED"),
    "failed": ("✕", "FAILED"),
    "inconclusive": ("?", "INCONCLUSIVE"),
    "not_measured": ("∅", "NOT MEASURED"),
}
_SIGN = {True: "✓ within", False: "✕ broken", None: "∅ not measured"}
_BESIDE = "beside"
_ABSENT = "not recorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One id with its value, as text."""

    id: str
    value: str
    site: str
    limit: str
    """``at most 2``; empty beside a limit."""
    sign: str
    passed: bool | None = None
    limited: bool = True
    """Whether a limit stands on the id; else it is printed beside one."""


def gate_rows(result: GateResult, *, plain: bool = False) -> list[GateRow]:
    """Limits first, then what stands beside them; the values share their decimals.

    Args:
        result: the gate's answer.
        plain: as for :func:`~mhc_diag_reports.texts.number`.
    """
    beside = result.beside
    shown = [None if r.passed is None else r.value for r in result.results]
    texts = numbers([*shown, *(s.worst for s in beside.values())], plain=plain, apart=False)
    rows = [
        GateRow(
            id=entry.id,
            value=text,
            site="" if entry.site is None or text == MISSING else str(entry.site),
            limit=limit_words(entry.limit),
            sign=_SIGN[entry.passed],
            passed=entry.passed,
        )
        for entry, text in zip(result.results, texts, strict=False)
    ]
    rows += [
        GateRow(
            id=name,
            value=text,
            site="" if summary.site is None else str(summary.site),
            limit="",
            sign=_ABSENT if summary.worst is None else _BESIDE,
            limited=False,
        )
        for (name, summary), text in zip(beside.items(), texts[len(shown) :], strict=True)
    ]
    return rows


def gate_sentence(result: GateResult) -> str:
    """``exit 0: tokens probe, 256 tokens, 24 of 24 sites measured``."""
    analysis = result.analysis
    strict = ", strict" if result.strict else ""
    gap = f"; {missing_of(analysis)}" if result.status == "not_measured" else ""
    probe = f"{short_probe(analysis)}, {coverage_of(analysis)}"
    return f"exit {result.exit_code}{strict}: {probe}{gap}"


def answer_of(result: GateResult) -> GateAnswer:
    """The gate as a part of the page."""
    icon, word = STATUS[result.status]
    return GateAnswer(
        status=result.status,
        icon=icon,
        word=word,
        sentence=gate_sentence(result),
        limits=Table(
            title="Limits",
            columns=(
                Column(text="limited id", code=True),
                Column(text="value", numeric=True),
                Column(text="site", numeric=True),
                Column(text="limit", numeric=True),
                Column(text="answer"),
            ),
            rows=tuple((r.id, r.value, r.site, r.limit, r.sign) for r in gate_rows(result)),
            note="Beside the limits: what cancellation (norm) or averaging (max) could hold down.",
        ),
    )
