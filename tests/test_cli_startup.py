"""What is imported before anything is measured; each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "pandas", "matplotlib", "transformers", "jinja2"}
PROGRAM = """
import sys
from mhc_diag_cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("loaded:", " ".join(sorted({name.partition(".")[0] for name in sys.modules})))
sys.exit(code)
"""


def loaded_by(*words: str | Path, code: int = 0) -> set[str]:
    """Names of the packages that a command leaves in ``sys.modules``."""
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["analyze", "--help"], ["--version"], ["rules"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert not loaded_by(*words) & HEAVY


def test_help_does_not_even_import_numpy() -> None:
    assert "numpy" not in loaded_by("--help")


def test_words_that_stay_words_need_no_pydantic(checkpoints: dict[str, Path]) -> None:
    """Typer's converters import it; see mhc_diag_cli.quick."""
    words = ["--json", "--adapter", "zoo_mhc", "--set", "sinkhorn_iters=3"]
    assert "pydantic" not in loaded_by("analyze", checkpoints["mhc"], *words)
    assert "pydantic" in loaded_by("analyze", checkpoints["mhc"], *words, "--max-gain", "3")


@pytest.mark.parametrize(
    "words",
    [
        ["inspect"],
        ["analyze"],
        ["analyze", "--json"],
        ["analyze", "--probe", "isotropic", "--tokens", "4"],
        ["gate", "--max-gain", "1000", "--probe", "static"],
    ],
)
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_reading_a_checkpoint_never_imports_torch_or_pandas(
    words: list[str], form: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    path = checkpoints["mhc"]
    if form == "safetensors":
        from safetensors.torch import save_file
        from torch import load

        path = tmp_path / "mhc.safetensors"
        save_file(load(checkpoints["mhc"], weights_only=True)["model"], path)
    assert not loaded_by(words[0], path, *words[1:]) & HEAVY
