"""The page as one self-contained file: no request, readable without styles and scripts."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mhc_diag_reports import colours, svg
from mhc_diag_reports.content import page_of
from mhc_diag_reports.page import Figure, Page
from mhc_diag_reports.texts import clean
from mhc_diag_reports.words import SEVERITY_ICON

_PIECE = re.compile(r"[^./_]+[./_]*|[./_]+")

if TYPE_CHECKING:
    from mhc_diag.comparison import Comparison
    from mhc_diag.limits import GateResult
    from mhc_diag.runs.read import RunHistory


def render(
    comparison: Comparison,
    *,
    runs: Sequence[RunHistory] = (),
    command: str = "",
    gate: GateResult | None = None,
) -> bytes:
    """The report of a comparison and its runs as UTF-8; the same input gives the same bytes."""
    return render_page(page_of(comparison, runs=runs, command=command, gate=gate))


def render_page(page: Page) -> bytes:
    """A page record as HTML. Everything in it is escaped; only our own SVG goes in as it is."""
    style, script = _style(), _asset("page.js")
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            page=page,
            style=Markup(style),  # noqa: S704  our own file, no foreign text
            script=Markup(script),  # noqa: S704  the same
            policy=_policy(style, script),
            severity_icon=SEVERITY_ICON,
        )
    )
    return clean(text).encode()


def figure_markup(figure: Figure) -> Markup:
    """Inline SVG; :mod:`mhc_diag_reports.svg` escapes every text in it."""
    return Markup(svg.draw(figure))  # noqa: S704  escaped where it is made


def breakable(text: str) -> Markup:
    """``text`` escaped, with places where a line may break behind dots and slashes."""
    return Markup("<wbr>").join(_PIECE.findall(text))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mhc_diag_reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure_markup
    environment.filters["breakable"] = breakable
    return environment


@cache
def _asset(name: str) -> str:
    """A file of the templates folder."""
    return (
        (resources.files("mhc_diag_reports") / "templates" / name)
        .read_text(encoding="utf-8")
        .strip()
    )


@cache
def _style() -> str:
    """The style sheet, with the colours of the figures on a dark ground."""
    return _asset("page.css").replace("/* figures on dark */", colours.css_on_dark())


def _policy(style: str, script: str) -> str:
    """A content security policy that allows our own style and script alone, by their hashes."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    allowed = f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
