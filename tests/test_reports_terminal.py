"""Tables on the terminal: 80 columns, no colour, hostile names."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from report_cases import a_trace, an_analysis, broken, hc_against_mhc, hostile
from rich.console import Console, RenderableType

from mhc_diag.analysis import analysis_of
from mhc_diag.comparison import Failure, compare
from mhc_diag.limits import gate
from mhc_diag.trace import Precision
from mhc_diag_reports import terminal, texts
from mhc_diag_reports.sparks import sparkline, top_of


def shown(table: RenderableType, width: int = 80) -> str:
    """What a terminal of ``width`` columns without colour shows."""
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, force_terminal=True, legacy_windows=False).print(
        table
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


@pytest.mark.parametrize("width", [60, 80, 132])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    comparison = hc_against_mhc(L=122)
    for table in (
        terminal.analysis_table(comparison.analyses[0]),
        terminal.comparison_table(comparison),
        terminal.gate_table(gate(comparison.analyses[0])),
        terminal.comparison_table(hostile()),
    ):
        assert max(map(len, shown(table, width).splitlines())) <= width


def test_the_numbers_are_those_of_the_analysis() -> None:
    analysis = an_analysis("hc", L=24)
    text = shown(terminal.analysis_table(analysis))
    row = next(line for line in text.splitlines() if line.startswith("composite.*.amax.mean"))
    for way in ("forward", "backward"):
        summary = analysis.summary[f"composite.{way}.amax.mean"]
        assert f"{texts.number(summary.worst, plain=True)} at {summary.site}" in row
    assert "at most 2" in row


def test_the_verdict_says_probe_tokens_limit_and_coverage() -> None:
    text = " ".join(shown(terminal.analysis_table(an_analysis("hc", L=24))).split())
    last = text[text.rindex("UNSTABLE") :]
    for part in ("composite.", "at site", "limit at most 2", "tokens probe, 6 tokens"):
        assert part in last
    assert "24 of 24 sites measured" in last


def test_signs_do_not_depend_on_colour() -> None:
    comparison = hc_against_mhc(L=24)
    text = shown(terminal.comparison_table(comparison))
    assert "✕ UNSTABLE" in text
    assert "✓ STABLE" in text
    assert "✕ error MHC101" in text


def test_names_cannot_move_the_cursor_or_be_markup() -> None:
    comparison = replace(
        hostile(), labels=("[red]x[/red]\x1b[2J", "b"), differences=("[bold]\x1b[H",)
    )
    text = shown(terminal.comparison_table(comparison))
    assert "[red]x[/red]" in text
    assert "[bold]" in text
    assert "\x1b" not in text
    assert "\x1b" not in shown(terminal.analysis_table(comparison.analyses[0]))


def test_the_gate_shows_what_stands_beside_the_limit_and_what_was_assumed() -> None:
    analysis = hc_against_mhc(L=24).analyses[0]
    result = gate(analysis, max_gain=1e6)
    text = shown(terminal.gate_table(result))
    assert "✓ PASSED (exit 0)" in text
    for metric_id, summary in result.beside.items():
        row = next(line for line in text.splitlines() if line.startswith(metric_id))
        assert texts.number(summary.worst, plain=True) in row
    assert "Assumed: eps = 1e-06" in text


@pytest.mark.parametrize(
    ("kind", "answer"), [("nan", "✕ FAILED (exit 1)"), ("unmeasured", "∅ NOT MEASURED (exit 2)")]
)
def test_the_gate_names_its_answer_and_its_exit_code(kind: str, answer: str) -> None:
    assert answer in shown(terminal.gate_table(gate(broken(kind))))


def test_a_rounded_copy_gets_its_own_rows() -> None:
    precision = Precision(computed="float32", applied="bfloat16")
    text = shown(terminal.analysis_table(analysis_of(a_trace("mhc", precision=precision))))
    assert "applied.composite.*.amax.mean" in text


def test_a_source_that_failed_is_named_with_the_way_out() -> None:
    failure = Failure(label="gone", asked="analyze 'x.pt'", came="no such file", do="Look there.")
    comparison = replace(hc_against_mhc(), failed=(failure,))
    text = " ".join(shown(terminal.comparison_table(comparison)).split())
    assert "gone: ∅ NOT MEASURED: it could not be measured" in text
    assert "no such file" not in text  # the error itself goes to stderr, once


def test_many_sources_are_compared_below_each_other() -> None:
    analysis = an_analysis("mhc", L=2, T=1)
    labels = [f"source-{k}" for k in range(7)]
    text = shown(terminal.comparison_table(compare(*[analysis] * 7, labels=labels)))
    assert text.count("worst over sites") == 3
    assert all(text.count(label) >= 3 for label in labels)


def test_a_sparkline_is_logarithmic_and_marks_what_is_no_number() -> None:
    values = [1.0, 10.0, 100.0, None, float("inf"), float("nan"), 0.5]
    assert sparkline(values, top=100.0) == "▁▅█·∞!▁"
    assert sparkline([1.0] * 100, top=top_of([1.0])) == "▁" * 34
    assert max(sparkline([1.0, 1.0, 5.0] * 40, top=5.0)) == "█"


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys, mhc_diag_reports.terminal;"
        "assert not {'matplotlib', 'jinja2', 'pandas', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
