"""The page in a real browser: with and without scripts, under a strict policy, light and dark."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from report_cases import a_run, hc_against_mhc, hostile

from mhc_diag_reports import html

pytestmark = [pytest.mark.slow, pytest.mark.browser]

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
JENKINS = "sandbox allow-same-origin; default-src 'none'; img-src 'self'; style-src 'self';"
"""What Jenkins serves artifacts with: no scripts, no inline styles, no data images."""
HC, MHC = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)


@dataclass
class Site:
    """A folder behind a web server on this machine."""

    folder: Path
    url: str = ""
    policy: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Serves a folder with a policy of the test's choice and remembers what was asked for."""
    served = Site(folder=tmp_path)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            if served.policy:
                self.send_header("Content-Security-Policy", served.policy)
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            served.asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def browse(url: str, home: Path, *flags: str) -> tuple[str, str]:
    """What chromium prints and logs for a page."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed, and CI must not skip the browser tests")
        pytest.skip("chromium is not installed: the page was NOT seen in a browser")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={home / 'profile'}", *flags, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr


def colours_of(picture: Path) -> set[tuple[int, ...]]:
    """All colours of a screenshot."""
    import numpy as np
    from PIL import Image

    with Image.open(picture) as image:
        flat = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {tuple(map(int, colour)) for colour in np.unique(flat, axis=0)}


@pytest.mark.parametrize(
    "policy", ["", "sandbox", JENKINS], ids=["plain", "without scripts", "Jenkins"]
)
def test_a_browser_shows_the_figures_and_asks_for_nothing(site: Site, policy: str) -> None:
    page = html.render(hc_against_mhc(), runs=[a_run("hc", "hc")])
    (site.folder / "report.html").write_bytes(page)
    site.policy = policy
    shot = site.folder / "shot.png"
    flags = (f"--screenshot={shot}", "--window-size=1200,5000")
    _, log = browse(f"{site.url}/report.html", site.folder, *flags)
    assert set(site.asked) <= {"/report.html", "/favicon.ico"}
    assert {HC, MHC} <= colours_of(shot)
    if not policy:
        assert "CONSOLE" not in log


def test_hostile_names_run_nothing(site: Site) -> None:
    (site.folder / "report.html").write_bytes(html.render(hostile(), command="<img src=x>"))
    dom, log = browse(f"{site.url}/report.html", site.folder, "--dump-dom")
    assert "CONSOLE" not in log
    assert set(site.asked) <= {"/report.html", "/favicon.ico"}
    assert dom.count("<script") == 1


@pytest.mark.parametrize("width", [420, 1240])
def test_the_page_is_never_wider_than_the_window(tmp_path: Path, width: int) -> None:
    page = re.sub(r"<meta http-equiv[^>]*>", "", html.render(hostile()).decode())
    probe = f"""<script>
const frame = document.createElement("iframe");
frame.width = {width};
frame.onload = () => {{
  const root = frame.contentDocument.documentElement;
  document.title = `${{root.scrollWidth}} of ${{root.clientWidth}}`;
}};
frame.src = "page.html";
document.body.append(frame);
</script>"""
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "frame.html").write_text(f"<body>{probe}</body>", encoding="utf-8")
    url = (tmp_path / "frame.html").as_uri()
    dom, _ = browse(url, tmp_path, "--dump-dom", "--allow-file-access-from-files")
    found = re.search(r"<title>(\d+) of (\d+)</title>", dom)
    assert found is not None
    assert int(found[1]) <= int(found[2]) <= width


def test_dark_ground_gets_its_own_colours(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(html.render(hc_against_mhc()))
    shot = tmp_path / "shot.png"
    browse(
        (tmp_path / "page.html").as_uri(),
        tmp_path,
        f"--screenshot={shot}",
        "--window-size=1200,3000",
        "--blink-settings=preferredColorScheme=0",
    )
    seen = colours_of(shot)
    assert {(0x14, 0x16, 0x1A), (0xF0, 0x80, 0x3C), (0x4D, 0xA6, 0xE0)} <= seen
    assert (255, 255, 255) not in seen


def test_the_read_out_names_the_values_under_the_pointer(tmp_path: Path) -> None:
    page = html.render(hc_against_mhc(L=8)).decode()
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    probe = """<script>
const svg = document.querySelector("svg"), box = svg.getBoundingClientRect();
const at = {clientX: box.left + box.width / 2, clientY: box.top + 99};
svg.dispatchEvent(new PointerEvent("pointermove", at));
document.title = [...svg.querySelectorAll("g[data-panel] > text")].pop().textContent;
</script></body>"""
    (tmp_path / "page.html").write_text(page.replace("</body>", probe), encoding="utf-8")
    dom, _ = browse((tmp_path / "page.html").as_uri(), tmp_path, "--dump-dom")
    assert re.search(r"<title>site \d  hc [\d.]+  mhc [\d.]+</title>", dom)
