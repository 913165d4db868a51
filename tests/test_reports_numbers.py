"""Numbers that stand together, and the words for what was measured on."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from factories import make_chain, make_trace, trace_of
from report_cases import broken, growing
from rich.console import Console

from mhc_diag.analysis import analysis_of
from mhc_diag.comparison import compare
from mhc_diag_reports import html, markdown, said, terminal, texts
from mhc_diag_reports.content import page_of
from mhc_diag_reports.geometry import odd_kinds
from mhc_diag_reports.page import Series
from mhc_diag_reports.summaries import Cell, cell_texts
from mhc_diag_reports.tables import key_numbers, site_table
from mhc_diag_reports.words import verdict_sentence

NAN, INF = float("nan"), float("inf")
GAINS = (1.0047, 1.00059)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0, 1.0047, 1.00059, 1.000037], ["1.000000", "1.004700", "1.000590", "1.000037"]),
        ([0.99952, 1.03], ["0.99952", "1.03000"]),
        ([1.0, 1.05], ["1.00", "1.05"]),
        ([1.0, 1.0], ["1.000000", "1.000000"]),
        ([1.2341, 1.2342], ["1.2341", "1.2342"]),
        ([36.512, 1.0, 1.000037], ["36.5", "1.000000", "1.000037"]),
        ([0.0694, 0.14], ["0.0694", "0.1400"]),
        (
            [1e-7, 0.0477, None, NAN, INF, 0.0],
            ["1.00e-07", "0.0477", texts.MISSING, "nan", "inf", "0"],
        ),
        ([], []),
    ],
)
def test_numbers_of_a_row_share_their_decimals(
    values: list[float | None], shown: list[str]
) -> None:
    assert texts.numbers(values, plain=True) == shown


def test_a_long_column_need_not_tell_every_value_from_every_other() -> None:
    column = list(np.linspace(1.1, 1.2, 1000))
    assert texts.numbers(column, apart=False)[1] == "1.10"
    assert texts.numbers([*column, 1.000037], apart=False)[0] == "1.100000"


@pytest.mark.parametrize(
    ("y", "shown"),
    [
        ((1.0, 1.0000000001), "stays at 1.000000"),
        ((1.0, 1.000037), "stays between 1.000000 and 1.000037"),
        ((1.0001, 1.0), "stays between 1.00000 and 1.00010"),
    ],
)
def test_both_ends_of_a_range_are_written_alike(y: tuple[float, ...], shown: str) -> None:
    line = Series(label="mhc", colour="#000000", x=(0.0, 1.0), y=y)
    assert said.range_of(line, "site") == shown


def test_gains_share_their_decimals_over_the_table_and_other_ids_along_their_row() -> None:
    rows = {
        "composite.forward.amax.mean": [Cell(values=(1.0047,), tail=" at 1")],
        "single.forward.norm.mean": [Cell(values=(1.2,)), Cell()],
        "manifold.row_error.max": [Cell(values=(0.0477,))],
    }
    assert cell_texts(rows) == {
        "composite.forward.amax.mean": ["1.0047 at 1"],
        "single.forward.norm.mean": ["1.2000", texts.MISSING],
        "manifold.row_error.max": ["0.0477"],
    }


def test_all_outputs_write_a_row_alike() -> None:
    sources = [analysis_of(trace_of([make_chain(np.eye(3)[None, None] * g)])) for g in GAINS]
    both = compare(*sources, labels=["a", "b"])
    out = io.StringIO()
    Console(file=out, width=80).print(terminal.comparison_table(both))
    for text in (html.render(both).decode(), markdown.render(both).decode(), out.getvalue()):
        assert "1.00470 at 0" in text
        assert "1.00059 at 0" in text
        assert "1.0047 at 0" not in text
    chain = make_chain(np.eye(3) * np.reshape(GAINS, (2, 1, 1, 1)))
    table = site_table(analysis_of(trace_of([chain])))
    assert [row[2] for row in table.rows] == ["1.00470", "1.00059"]


def shown_of(analysis: object) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(terminal.analysis_table(analysis))  # type: ignore[arg-type]  # an Analysis
    return out.getvalue()


@pytest.mark.parametrize(("kind", "word"), [("nan", "NaN"), ("inf", "NaN|infinite")])
def test_one_site_without_a_number_does_not_hide_the_range_of_the_others(
    kind: str, word: str
) -> None:
    analysis = broken(kind)
    rows = key_numbers([("a", "#000000", analysis)]).rows
    row = next(row for row in rows if "mixing.distance_identity.mean" in row[0])
    assert re.fullmatch(rf"0\.\d+ to \d\.\d+, 1 ({word})", row[1])


def test_nan_and_infinity_are_marked_in_rows_of_their_own() -> None:
    line = Series(label="a", colour="#000000", x=(0.0, 1.0, 2.0, 3.0), y=(INF, NAN, None, 1.0))
    assert odd_kinds(line) == {"inf": [0.0], "nan": [1.0]}
    M = growing(8, 1)
    M[2, 0, 0, 0], M[5, 0, 0, 0] = np.nan, np.inf
    page = html.render(compare(analysis_of(trace_of([make_chain(M)], family="hc")))).decode()
    places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>(?:nan|inf)</text>', page)
    drawn = [svg for svg in page.split("<svg") if ">nan</text>" in svg and ">inf</text>" in svg]
    assert drawn
    assert len({y for _, y in places}) == 2


@pytest.mark.parametrize("render", [verdict_sentence, shown_of])
def test_random_ids_are_called_no_data_and_draws_no_tokens(render: object) -> None:
    drawn = analysis_of(make_trace(family="mhc", inputs="random:2x8 seed 0, not data"))
    assert "of random ids, not data" in " ".join(render(drawn).split())  # type: ignore[operator]  # both make text
    real = analysis_of(make_trace(family="mhc"))
    assert "random" not in render(real)  # type: ignore[operator]  # both make text
    isotropic = analysis_of(make_trace(family="mhc", probe="isotropic", T=5))
    text = " ".join(render(isotropic).split())  # type: ignore[operator]  # both make text
    assert "isotropic probe, 5 draws" in text
    assert "5 tokens" not in text


def test_an_unmeasured_model_gets_no_number_in_its_verdict() -> None:
    analysis = broken("unmeasured")
    sentence = verdict_sentence(analysis)
    assert "no value at site 3, transformer.h.1.hc_mlp (its hook never fired)" in sentence
    assert "at most" not in sentence
    page = html.render(compare(analysis)).decode()
    assert "Not measured: no value at site 3" in page
    assert '<p class="number"><b>' not in page
    assert "at most" not in markdown.render(compare(analysis)).decode().split("\n")[2]
    assert page_of(compare(analysis)).verdicts[0].number == ""
