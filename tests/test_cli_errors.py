"""Exit codes and error texts, whatever goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from schemas import assert_valid

from mhc_diag import pipeline
from mhc_diag.errors import CheckpointError

COMMAND = Path(sys.executable).with_name("mhc-diag")


def breaking(error: BaseException) -> Any:
    def analyze(*args: Any, **options: Any) -> None:
        raise error

    return analyze


def test_an_error_is_one_paragraph_of_what_was_asked_came_and_is_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = CheckpointError("read 'x.pt'", "it is\ntorn", "Copy it again.")
    monkeypatch.setattr(pipeline, "analyze", breaking(error))
    ended = run("analyze", "x.pt")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "mhc-diag: read 'x.pt': it is torn. Copy it again.\n"


def test_with_json_the_error_is_the_object_on_stdout(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = CheckpointError("read 'x.pt'", "it is torn", "Copy it again.")
    monkeypatch.setattr(pipeline, "analyze", breaking(error))
    ended = run("analyze", "x.pt", "--json")
    assert (ended.code, ended.err) == (2, "")
    assert_valid(ended.json, "error")
    assert ended.json == {
        "schema": "mhc-diag/error/1",
        "asked": "read 'x.pt'",
        "came": "it is torn",
        "do": "Copy it again.",
        "exit": 2,
    }


@pytest.mark.parametrize("command", ["analyze", "gate"])
def test_a_bug_is_exit_3_and_says_how_to_report_it(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "analyze", breaking(ZeroDivisionError("division by zero")))
    ended = run(command, "x.pt")
    assert (ended.code, ended.out) == (3, "")
    assert "a bug in mhc-diag: ZeroDivisionError: division by zero" in ended.err
    assert "Please report it to the project with the command" in ended.err
    assert "Traceback" not in ended.err
    document = run(command, "x.pt", "--json")
    assert_valid(document.json, "error")
    assert (document.code, document.json["exit"]) == (3, 3)


def test_traceback_shows_where_an_error_arose(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "analyze", breaking(ZeroDivisionError("division by zero")))
    ended = run("analyze", "x.pt", "--traceback")
    assert ended.code == 3
    assert "Traceback (most recent call last)" in ended.err
    with_json = run("analyze", "x.pt", "--traceback", "--json")
    assert "Traceback" in with_json.err
    assert_valid(with_json.json, "error")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError(), 2, "ran out of memory"),
        (SystemExit(0), 2, "ended the process"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 3, "a bug"),
    ],
    ids=["memory", "exit", "ctrl-c", "pipe"],
)
def test_other_ends_have_codes_of_their_own(
    error: BaseException, code: int, text: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "analyze", breaking(error))
    ended = run("gate", "x.pt", "--max-gain", "2")
    assert ended.code == code
    assert text in ended.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["analyze"], "Missing argument 'SOURCE'"),
        (["analyze", "x.pt", "--fast"], "No such option: --fast"),
        (["analyze", "x.pt", "--tokens", "0"], "--tokens"),
        (["analyze", "x.pt", "--probe", "data"], "--probe"),
        (["analyze", "x.pt", "--device", "tpu"], "Write cpu, cuda or cuda:N"),
        (["analyse", "x.pt"], "No such command 'analyse'"),
        (["--fast"], "No such option: --fast"),
        (["inspect", "absent.pt"], "absent.pt"),
    ],
)
def test_a_wrong_command_line_is_exit_2_and_one_line(words: list[str], text: str, run: Run) -> None:
    ended = run(*words)
    assert (ended.code, ended.out) == (2, "")
    assert text in ended.err
    assert len(ended.err.splitlines()) == 1
    assert_valid(run(*words, "--json").json, "error")


def test_no_words_at_all_show_the_help_with_exit_2(run: Run) -> None:
    ended = run()
    assert ended.code == 2
    assert "analyze" in ended.out


def test_names_in_errors_cannot_move_the_cursor(run: Run) -> None:
    ended = run("analyze", "\x1b[2Jred\u202e.pt")
    assert ended.code == 2
    assert "\x1b" not in ended.err
    assert "\u202e" not in ended.err


@pytest.mark.parametrize(
    ("words", "code"),
    [("metrics", 0), ("gate --help", 0), ("metrics --json", 0), ("analyze absent.pt 2>&1", 2)],
)
def test_a_closed_pipe_does_not_change_the_exit_code(words: str, code: int) -> None:
    """``true`` reads nothing: whatever is written meets a closed pipe."""
    pipe = f"( sleep 0.2; {COMMAND} {words} ) | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", pipe],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (f"{code}\n", "")


def test_a_terminal_without_unicode_gets_escapes(checkpoints: dict[str, Path]) -> None:
    done = subprocess.run(
        [COMMAND, "analyze", checkpoints["mhc"]],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.mark.slow
def test_control_c_ends_with_130(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    code = "import time\ndef build(c):\n    print('ready', flush=True)\n    time.sleep(60)\n"
    (tmp_path / "slow_model.py").write_text(code)
    words = ["--model", "slow_model:build", "--inputs", "random:1x4"]
    process = subprocess.Popen(
        [COMMAND, "analyze", checkpoints["hc"], *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
