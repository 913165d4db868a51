"""What ``import mhc_diag`` offers, and that nothing takes its place."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mhc_diag
import mhc_diag_cli
import mhc_diag_reports

PUBLIC = [
    "Analysis",
    "Chain",
    "Comparison",
    "Finding",
    "MhcDiagError",
    "Monitor",
    "Site",
    "Trace",
    "__version__",
    "analyze",
    "capture",
    "compare",
    "gate",
    "load_trace",
    "read_run",
    "register_adapter",
    "report",
    "tap",
]


def every_module() -> list[str]:
    return [
        module.name
        for package in (mhc_diag, mhc_diag_cli, mhc_diag_reports)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]


def test_the_public_names_are_the_documented_ones() -> None:
    assert mhc_diag.__all__ == PUBLIC
    assert dir(mhc_diag) == PUBLIC


def test_no_module_shadows_a_public_name() -> None:
    """Importing ``mhc_diag.gate`` would make ``md.gate`` a module; none is called so."""
    for name in every_module():
        importlib.import_module(name)
    for name in PUBLIC:
        value = getattr(mhc_diag, name)
        assert isinstance(value, str) if name == "__version__" else callable(value), name


def test_names_are_still_right_after_every_module_was_imported_first() -> None:
    """In a fresh process, so that no name was resolved before."""
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "import mhc_diag\n"
        "public = [name for name in mhc_diag.__all__ if name[0] != '_']\n"
        "bad = [name for name in public if not callable(getattr(mhc_diag, name))]\n"
        "print(bad)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *every_module()],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_name_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'analyse'; it has .*analyze"):
        mhc_diag.analyse  # noqa: B018  the look-up is the test


def test_import_mhc_diag_imports_nothing_heavy() -> None:
    program = (
        "import sys, mhc_diag; print({'torch','pandas','matplotlib','numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


def test_no_module_has_the_name_of_a_public_name() -> None:
    inside = {path.stem for path in Path(mhc_diag.__file__).parent.glob("*")}
    assert not inside & set(PUBLIC)
