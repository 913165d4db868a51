"""The page as a file: escaped, self-contained, small, readable in a browser without help."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from report_cases import HOSTILE, a_run, broken, hc_against_mhc, hostile

from mhc_diag.comparison import compare
from mhc_diag_reports import html, svg
from mhc_diag_reports.content import page_of
from mhc_diag_reports.page import Panel
from mhc_diag_reports.svg_heat import merged


class Tags(HTMLParser):
    """Tags and attributes, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(content: bytes) -> Tags:
    tags = Tags()
    tags.feed(content.decode())
    return tags


def test_markup_in_names_stays_text() -> None:
    page = html.render(hostile(), runs=[a_run(HOSTILE, "hc")], command=HOSTILE)
    tags = parsed(page)
    assert tags.tags.count("script") == 1
    assert "alert(1)" in "".join(tags.text)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert b"\x1b" not in page
    assert b"\x00" not in page


def test_the_page_asks_nobody_for_anything() -> None:
    page = html.render(hc_against_mhc(), runs=[a_run("hc", "hc")]).decode()
    assert re.search(r"(https?:)?//[a-z0-9-]+\.", page) is None
    assert "@import" not in page
    names = {name for name, _ in parsed(page.encode()).attributes}
    assert not names & {"src", "href", "srcset", "data", "action", "background", "poster"}
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_nothing_is_styled_by_an_attribute() -> None:
    page = html.render(hc_against_mhc(), runs=[a_run("hc", "hc")])
    assert "style" not in {name for name, _ in parsed(page).attributes}


def test_the_policy_names_our_own_style_and_script_by_hash() -> None:
    import base64
    import hashlib

    page = html.render(hc_against_mhc()).decode()
    for tag in ("style", "script"):
        found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page.replace("&#39;", "'")


def test_every_figure_is_xml_with_a_title_and_the_finding_in_words() -> None:
    page = page_of(hostile(), runs=[a_run(HOSTILE, "hc")])
    figures = [figure for section in page.sections for figure in section.figures]
    ids = []
    for figure in figures:
        root = ET.fromstring(svg.draw(figure))
        assert root.findtext("title") == figure.title.replace("\x1b", "\ufffd")
        assert root.findtext("desc") == figure.desc
        assert root.get("role") == "img"
        assert all("style" not in element.attrib for element in root.iter())
        ids += [element.get("id") for element in root.iter() if element.get("id")]
    assert len(figures) > 8
    assert len(set(ids)) == len(ids)


def test_a_line_in_the_picture_stands_where_its_numbers_are() -> None:
    panel = page_of(hc_against_mhc(L=8)).sections[0].figures[2]
    assert isinstance(panel, Panel)
    root = ET.fromstring(svg.draw(panel))
    group = next(g for g in root.iter("g") if g.get("data-label") == "hc")
    path = next(p.attrib["d"] for p in group if p.get("fill") == "none")
    points = [tuple(map(float, pair.split())) for pair in path.removeprefix("M").split("L")]
    box = [float(v) for v in next(root.iter("g")).attrib["data-panel"].split()]
    low, high = np.log10(panel.y.low), np.log10(panel.y.high)
    wanted = np.log10(np.array(panel.series[0].y, dtype=float))
    places = (box[1] + box[3] - np.array([y for _, y in points])) / box[3] * (high - low) + low
    assert places == pytest.approx(wanted, abs=0.004 * (high - low))
    assert [float(v) for v in group.attrib["data-y"].split()] == pytest.approx(
        list(panel.series[0].y), rel=6e-3
    )


@pytest.mark.parametrize(("kind", "shape"), [("inf", "l4.5 8h-9z"), ("nan", "l8 8m0 -8l-8 8")])
def test_what_is_not_finite_is_marked_at_the_top(kind: str, shape: str) -> None:
    panel = page_of(compare(broken(kind))).sections[0].figures[0]
    drawn = svg.draw(panel)
    assert drawn.count(shape) == 1
    assert f">{kind}</text>" in drawn


def test_a_site_that_was_not_measured_is_hatched() -> None:
    panel = page_of(compare(broken("unmeasured"))).sections[0].figures[0]
    drawn = svg.draw(panel)
    assert 'fill="url(#single-forward-hatch-0)"' in drawn
    assert "hatch" not in svg.draw(page_of(hc_against_mhc()).sections[0].figures[0])


def test_equal_cells_are_merged_and_every_cell_is_drawn_once() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, size=(6, 9)).tolist()
    seen = np.full((6, 9), -1)
    for level, path in merged(rows).items():
        for x, y, width in re.findall(r"M(\d+) (\d*)\.5h(\d+)", path):
            part = seen[5 - int(y or 0), int(x) : int(x) + int(width)]
            assert (part == -1).all()
            part[:] = level
    assert seen.tolist() == rows
    assert merged([[4, 4, 4]]) == {4: "M0 .5h3"}


def test_a_large_report_stays_below_half_a_megabyte() -> None:
    comparison = hc_against_mhc(L=122, T=8)
    runs = [a_run("hc", "hc", L=122, S=50), a_run("mhc", "mhc", L=122, S=50, seed=3)]
    assert len(html.render(comparison, runs=runs)) < 500_000


def test_the_same_input_gives_the_same_bytes() -> None:
    runs = [a_run("hc", "hc")]
    assert html.render(hc_against_mhc(), runs=runs) == html.render(hc_against_mhc(), runs=runs)


def test_the_verdict_comes_first_with_all_that_it_depends_on() -> None:
    comparison = hc_against_mhc(L=40)
    text = "".join(parsed(html.render(comparison)).text)
    head = text[: text.index("Key numbers")]
    for part in (
        "UNSTABLE",
        "STABLE",
        "limit at most 2",
        "composite.forward.amax.mean",
        "6 tokens",
    ):
        assert part in head.replace("\u200b", "")


def test_the_command_that_makes_the_page_again_is_on_it() -> None:
    page = html.render(hc_against_mhc(), command="mhc-diag compare a=<b> c")
    assert b"<pre>mhc-diag compare a=&lt;b&gt; c</pre>" in page
