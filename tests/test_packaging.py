"""sdist -> wheel -> a fresh environment -> the command, from a foreign folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"mhc_diag", "mhc_diag_cli", "mhc_diag_reports"}
FOLDERS = {
    "mhc_diag": ROOT / "mhc_diag",
    "mhc_diag_cli": ROOT / "cli" / "mhc_diag_cli",
    "mhc_diag_reports": ROOT / "reports" / "mhc_diag_reports",
}
pytestmark = pytest.mark.slow


def call(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command in ``cwd``; its stdout."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "LANG": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    target = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "-o", target, ROOT, cwd=target)
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; what it depends on is borrowed from this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    call(*pip, "--no-index", "--prefix", folder, "--ignore-installed", wheel, cwd=folder)
    borrowed = "import sys; sys.path.append({!r})".format(sysconfig.get_path("purelib"))
    (site / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    return folder


def test_the_wheel_holds_exactly_the_three_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {PurePosixPath(name).parts[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    call(Path(sys.executable).with_name("check-wheel-contents"), wheel, cwd=ROOT)


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    wanted = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in FOLDERS.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not wanted - inside
    assert {f"{name}/py.typed" for name in PACKAGES} <= inside
    assert any(name.startswith("mhc_diag/schemas/") for name in inside)
    assert any(name.startswith("mhc_diag_reports/templates/") for name in inside)


def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "Makefile",
        "constraints.txt",
        "LICENSE",
        "tests/conftest.py",
    } <= names
    assert not {
        name for name in names if name.startswith((".venv", ".git/")) or "__pycache__" in name
    }


def test_the_command_runs_from_a_foreign_folder(fresh: Path, tmp_path: Path) -> None:
    out = call(fresh / "bin" / "mhc-diag", "--help", cwd=tmp_path)
    for command in (
        "analyze",
        "compare",
        "gate",
        "inspect",
        "metrics",
        "adapters",
        "rules",
        "demo",
    ):
        assert command in out


def test_the_code_that_runs_is_the_wheels(fresh: Path, tmp_path: Path) -> None:
    program = (
        "import mhc_diag, mhc_diag_cli, mhc_diag_reports as r; print(mhc_diag.__file__, r.__file__)"
    )
    out = call(fresh / "bin" / "python", "-c", program, cwd=tmp_path)
    assert all(Path(path).is_relative_to(fresh) for path in out.split())


def test_nothing_with_a_general_name_lands_in_site_packages(fresh: Path) -> None:
    (site,) = fresh.glob("lib/python*/site-packages")
    tops = {path.name for path in site.iterdir()}
    assert not tops & {"cli", "reports", "tests", "examples", "benchmarks", "docs"}


def test_renderers_are_found_in_the_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    program = "from mhc_diag.render import renderers; print(*sorted(renderers()))"
    out = call(fresh / "bin" / "python", "-c", program, cwd=tmp_path)
    assert set(out.split()) >= {".html", ".png", ".pdf", ".svg", ".md"}


def test_schemas_are_read_from_the_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    program = "from mhc_diag.documents import schema; print(schema('analysis/1')['$id'])"
    assert "analysis" in call(fresh / "bin" / "python", "-c", program, cwd=tmp_path)
