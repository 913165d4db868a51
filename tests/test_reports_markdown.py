"""The summary for a pull request."""

from __future__ import annotations

import re
from dataclasses import replace

from report_cases import HOSTILE, a_run, hc_against_mhc, hostile

from mhc_diag.comparison import Failure, compare
from mhc_diag.limits import gate
from mhc_diag.rules.records import Finding
from mhc_diag_reports import markdown, texts


def test_it_holds_verdicts_numbers_and_curves() -> None:
    comparison = hc_against_mhc(L=24)
    text = markdown.render(comparison, command="mhc-diag compare a b").decode()
    assert "- **hc: ✕ UNSTABLE**" in text
    assert "- **mhc: ✓ STABLE**" in text
    summary = comparison.analyses[0].summary["composite.forward.amax.mean"]
    row = next(x for x in text.splitlines() if x.startswith("| `composite.forward.amax.mean`"))
    assert row.split(" | ")[1] == f"{texts.number(summary.worst, plain=True)} at {summary.site}"
    assert re.search(r"\| hc \| forward \| [▁-█]+ \|", text)
    assert "    mhc-diag compare a b" in text


def test_every_row_of_a_table_has_as_many_cells() -> None:
    comparison = replace(hostile(), labels=("a|b", "c`|`"))
    for text in (markdown.render(comparison), markdown.render_gate(gate(comparison.analyses[0]))):
        tables: list[list[int]] = [[]]
        for line in text.decode().splitlines():
            if line.startswith("|"):
                tables[-1].append(len(re.findall(r"(?<!\\)\|", line)))
            elif tables[-1]:
                tables.append([])
        assert len(tables) > 1
        assert all(len(set(table)) <= 1 for table in tables)


def test_names_are_no_markup() -> None:
    comparison = replace(hostile(), differences=("@everyone <b> [x](https://e.example) *y*",))
    text = markdown.render(comparison, runs=[a_run(HOSTILE, "hc")], command=HOSTILE).decode()
    outside = re.sub(r"^    .*$|`[^`\n]*`", "", text, flags=re.MULTILINE)
    assert re.search(r"(?<!\\)<", outside) is None
    assert "\x1b" not in text
    assert "@everyone" not in text
    assert r"\[x\](https\://e.example\)"[:-2] in text
    assert r"\*y\*" in text


def test_code_cannot_be_left() -> None:
    assert markdown.code("a`b``c") == "``` a`b``c ```"
    assert markdown.code("a|b") == r"`a\|b`"
    assert markdown.code("plain") == "`plain`"


def test_the_gate_says_its_answer_first_and_every_limit() -> None:
    result = gate(hc_against_mhc(L=24).analyses[0])
    text = markdown.render_gate(result).decode()
    assert text.startswith("## ✕ FAILED: run/hc.pt")
    assert text.count("✕ broken") == 2
    assert text.count("| beside |") == len(result.beside)


def test_a_summary_does_not_grow_without_bound() -> None:
    analysis = hc_against_mhc().analyses[1]
    finding = Finding(rule="MHC112", severity="info", message="x" * 50)
    many = compare(replace(analysis, findings=(finding,) * 40_000), labels=["m"])
    text = markdown.render(many)
    assert len(text) < 1 << 20
    assert b"- and 39970 more" in text


def test_a_source_that_failed_is_named() -> None:
    failure = Failure(label="gone", asked="analyze 'x'", came="no such file", do="Look.")
    text = markdown.render(replace(hc_against_mhc(), failed=(failure,))).decode()
    assert "- **gone: ∅ NOT MEASURED**, analyze 'x': no such file. Look." in text
