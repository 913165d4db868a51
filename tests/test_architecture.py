"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mhc_diag", "cli/mhc_diag_cli", "reports/mhc_diag_reports")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").glob("*.py"))
LONGEST_FILE, LONGEST_BODY = 300, 40
Function = ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def body_lines(function: Function) -> int:
    """Lines of a function without its signature and its docstring."""
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.body[-1].end_lineno or 0) - first[0].lineno + 1 if first else 0


def public_nodes(tree: ast.Module) -> list[Function | ast.ClassDef]:
    """Public functions, classes, and public methods of public classes."""
    found: list[Function | ast.ClassDef] = []
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    while scopes:
        for node in scopes.pop().body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                found.append(node)
                if isinstance(node, ast.ClassDef):
                    scopes.append(node)
    return found


def is_declaration(node: ast.AST) -> bool:
    """Whether a function only says that it exists (``...``), as in a Protocol."""
    match node:
        case ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=value))]):
            return value is ...
    return False


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 40
    assert len(TESTS) > 10


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=named)
def test_no_file_is_longer_than_300_lines(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_function_is_longer_than_40_lines(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    long = {f.name: body_lines(f) for f in functions(tree) if body_lines(f) > LONGEST_BODY}
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_every_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, "the module itself"
    bare = [
        node.name
        for node in public_nodes(tree)
        if not (ast.get_docstring(node) or is_declaration(node))
    ]
    assert not bare


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc", "util"])
def test_no_file_is_a_drawer_for_everything(name: str) -> None:
    assert not [path for path in SOURCES if path.stem == name]


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_exception_is_swallowed(path: Path) -> None:
    """No bare except, and no handler that only passes or continues on everything."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            broad = isinstance(node.type, ast.Name) and node.type.id in {
                "Exception",
                "BaseException",
            }
            silent = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
            assert not (broad and silent), f"swallowed in line {node.lineno}"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=named)
def test_every_suppressed_check_says_why(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for mark in ("# noqa", "# type: ignore"):
            _, found, rest = line.partition(mark)
            if found and mark not in line.partition('"')[2]:
                reason = (
                    rest.partition("]")[2] if mark == "# type: ignore" else rest.partition("  ")[2]
                )
                assert reason.strip(" #"), f"line {number}: {line.strip()}"


@pytest.mark.slow
def test_the_floors_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:]
