"""``mhc-diag adapters``, ``metrics``, ``rules``, ``--help`` and ``--version``."""

from __future__ import annotations

import pytest
from conftest import Run
from schemas import assert_valid

import mhc_diag
from mhc_diag.adapters.registry import adapters
from mhc_diag.metrics import METRICS
from mhc_diag.rules import RULES

KNOWN = {"adapters": list(adapters()), "metrics": list(METRICS), "rules": list(RULES)}
COMMANDS = [
    "analyze",
    "compare",
    "gate",
    "inspect",
    "report",
    "metrics",
    "adapters",
    "rules",
    "demo",
]

MEASURING = (
    *("--probe", "--model", "--inputs", "--tokens", "--seed", "--device", "--adapter", "--tap"),
    *("--set", "--step", "--allow-partial"),
)
LIMITING = ("--max-gain", "--max", "--min", "--output")


@pytest.mark.parametrize("command", KNOWN)
def test_a_listing_names_everything_in_order(command: str, run: Run) -> None:
    ended = run(command)
    assert (ended.code, ended.err) == (0, "")
    names = [line.strip() for line in ended.out.splitlines() if line and not line.startswith(" ")]
    assert names == KNOWN[command]


@pytest.mark.parametrize("command", KNOWN)
def test_a_listing_as_json_says_what_it_lists(command: str, run: Run) -> None:
    document = run(command, "--json").json
    assert_valid(document, "listing")
    assert document["kind"] == command
    first = "name" if command == "adapters" else "id"
    assert [entry[first] for entry in document["entries"]] == KNOWN[command]


def test_metrics_takes_a_pattern(run: Run) -> None:
    document = run("metrics", "composite.*.amax.mean", "--json").json
    assert [entry["id"] for entry in document["entries"]] == [
        "composite.forward.amax.mean",
        "composite.backward.amax.mean",
    ]
    assert run("metrics", "nothing.*").code == 2


def test_every_metric_shows_what_its_number_means(run: Run) -> None:
    out = run("metrics", "composite.forward.amax.mean").out
    for label in ("formula", "meaning", "ideal", "bad", "unit", "source"):
        assert label in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_talks_the_same_way(command: str, run: Run) -> None:
    ended = run(command, "--help")
    assert ended.code == 0
    for option in ("--json", "--quiet", "--no-progress", "--traceback"):
        assert option in ended.out


@pytest.mark.parametrize("command", ["analyze", "compare", "gate"])
def test_measuring_commands_share_their_options(command: str, run: Run) -> None:
    out = run(command, "--help").out
    for option in (*MEASURING, *LIMITING):
        assert f"{option} " in out


def test_the_help_lists_every_command(run: Run) -> None:
    out = run("--help").out
    listed = [line.split()[1] for line in out.splitlines() if line.startswith("│ ")]
    assert [name for name in listed if name in COMMANDS] == COMMANDS


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version").out == f"mhc-diag {mhc_diag.__version__}\n"
