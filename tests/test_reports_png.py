"""The figures as files, drawn by matplotlib."""

from __future__ import annotations

import io
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from report_cases import HOSTILE, a_run, broken, hc_against_mhc

from mhc_diag.comparison import compare
from mhc_diag_reports import colours, png


@pytest.mark.slow
def test_a_png_is_2400_pixels_wide_and_shows_both_sources() -> None:
    with Image.open(io.BytesIO(png.render_png(hc_against_mhc()))) as image:
        assert image.format == "PNG"
        assert image.width == 2400
        assert image.height > 2000
        seen = set(image.convert("RGB").get_flattened_data())
    assert {(0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)} <= seen


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes() -> None:
    comparison = hc_against_mhc(L=4, T=2)
    for draw in (png.render_png, png.render_pdf, png.render_svg):
        assert draw(comparison) == draw(comparison)


def test_pdf_and_svg_are_what_they_say() -> None:
    comparison = hc_against_mhc(L=4, T=2)
    assert png.render_pdf(comparison).startswith(b"%PDF-")
    drawn = png.render_svg(comparison)
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert b"composite.forward.amax.mean" in drawn


@pytest.mark.parametrize("kind", ["inf", "nan", "unmeasured"])
def test_names_with_markup_and_values_that_are_no_numbers_are_drawn(kind: str) -> None:
    comparison = compare(broken(kind), labels=[f"$x_{{ {HOSTILE} 試験"])
    run = a_run("$\\frac{", "hc", L=4, S=3)
    run.values["composite.forward.amax.mean"][1, 2] = np.inf
    run.values["composite.forward.amax.mean"][2, 3] = np.nan
    drawn = png.render_svg(comparison, runs=[run]).decode()
    assert "alert(1)&lt;/script&gt;" in drawn
    assert ("inf" if kind == "unmeasured" else kind) in drawn


@pytest.mark.slow
def test_heatmaps_are_drawn_in_the_colours_of_the_ramp() -> None:
    runs = [a_run("hc", "hc", L=4, S=4)]
    with Image.open(io.BytesIO(png.render_png(hc_against_mhc(L=4, T=2), runs=runs))) as image:
        seen = set(image.convert("RGB").get_flattened_data())
    top = tuple(int(colours.RAMP[-1][i : i + 2], 16) for i in (1, 3, 5))
    assert top in seen


def test_drawing_leaves_the_settings_of_matplotlib_alone_and_opens_no_figure() -> None:
    code = (
        "import sys; sys.path[:0] = ['tests', 'reports'];"
        "import matplotlib as mpl; before = mpl.rcParams.copy();"
        "from report_cases import hc_against_mhc; from mhc_diag_reports import png;"
        "png.render_png(hc_against_mhc(L=2, T=1));"
        "assert mpl.rcParams.copy() == before;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_it_does_not_import_matplotlib() -> None:
    code = "import sys, mhc_diag_reports.png; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
