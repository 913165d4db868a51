"""``mhc-diag analyze``, and what all commands share: streams, files, inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from factories import make_trace
from schemas import assert_valid

import mhc_diag as md

MODEL = "mhc_diag.zoo.models:build"


def test_a_checkpoint_gives_a_table_and_a_verdict(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("analyze", checkpoints["mhc"])
    assert (ended.code, ended.err) == (0, "")
    assert "composite.*.amax.mean" in ended.out
    assert "static probe" in ended.out
    assert "✓ STABLE: " in ended.out


def test_an_unstable_model_is_still_exit_0(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("analyze", checkpoints["hc"], "--max-gain", "1.01", "--json")
    assert ended.code == 0
    assert ended.json["verdict"] == "unstable"


def test_the_document_is_what_the_library_writes(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("analyze", checkpoints["mhc"], "--json")
    assert_valid(ended.json, "analysis")
    assert ended.out == md.analyze(str(checkpoints["mhc"])).to_json()
    assert ended.err == ""


def test_the_limit_reaches_the_verdict(run: Run, checkpoints: dict[str, Path]) -> None:
    words = ["--max", "single.forward.norm.max=1e9", "--min", "composite.forward.amin.min=-5"]
    limits = run("analyze", checkpoints["mhc"], "--max-gain", "7", *words, "--json").json["limits"]
    assert limits["composite.*.amax.mean"] == {"max": 7.0}
    assert limits["single.forward.norm.max"] == {"max": 1e9}
    assert limits["composite.forward.amin.min"] == {"min": -5.0}


def test_a_setting_reaches_the_model(run: Run, checkpoints: dict[str, Path]) -> None:
    settings = run("analyze", checkpoints["mhc"], "--set", "sinkhorn_iters=3", "--json").json
    assert settings["model"]["settings"]["sinkhorn_iters"] == {"value": 3, "from": "option"}


def test_probe_tokens_and_seed_reach_the_measurement(
    run: Run, checkpoints: dict[str, Path]
) -> None:
    words = ["--probe", "isotropic", "--tokens", "7", "--seed", "3"]
    probe = run("analyze", checkpoints["hc"], *words, "--json").json["probe"]
    assert (probe["kind"], probe["tokens"], probe["seed"]) == ("isotropic", 7, 3)


def test_a_model_runs_on_given_ids(run: Run, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(24).reshape(2, 12))
    words = ["--model", MODEL, "--inputs", tmp_path / "ids.npy"]
    document = run("analyze", checkpoints["hc"], *words, "--json").json
    assert_valid(document, "analysis")
    assert (document["probe"]["kind"], document["probe"]["tokens"]) == ("tokens", 24)
    assert document["probe"]["inputs"].startswith("sha256:")
    assert document["orientation"]["verified"] == "numeric"


def test_random_ids_are_marked_as_no_data(run: Run, checkpoints: dict[str, Path]) -> None:
    words = ["--model", MODEL, "--inputs", "random:2x8"]
    document = run("analyze", checkpoints["hc"], *words, "--json").json
    assert "not data" in document["probe"]["inputs"]


def test_probe_tokens_without_inputs_is_exit_2(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("analyze", checkpoints["hc"], "--probe", "tokens")
    assert ended.code == 2
    assert "Give --inputs" in ended.err


def test_a_tap_reads_a_model_that_no_adapter_is_asked_for(
    run: Run, checkpoints: dict[str, Path]
) -> None:
    words = ["--model", MODEL, "--inputs", "random:2x8"]
    halves = [f"--tap=blocks.*.hc_{half}=output[1]:M" for half in ("attn", "mlp")]
    tapped = run("analyze", checkpoints["hc"], *words, *halves, "--json")
    plain = run("analyze", checkpoints["hc"], *words, "--json")
    assert tapped.json["model"]["adapter"] == "tap"
    name = "composite.forward.amax.mean"
    assert tapped.json["metrics"][name] == pytest.approx(plain.json["metrics"][name], rel=1e-6)


@pytest.fixture
def chatty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    code = (
        "from mhc_diag.zoo.models import build as make\n"
        "def build(checkpoint):\n"
        "    print('number of parameters: 0.01M')\n"
        "    return make(checkpoint)\n"
    )
    (tmp_path / "chatty_model.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "chatty_model:build"


def test_a_model_that_prints_does_not_reach_stdout(
    run: Run, checkpoints: dict[str, Path], chatty: str
) -> None:
    ended = run("analyze", checkpoints["hc"], "--model", chatty, "--inputs", "random:1x4", "--json")
    assert_valid(ended.json, "analysis")
    assert ended.err == "number of parameters: 0.01M\n"


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    path = tmp_path / "partial.trace.safetensors"
    make_trace(L=6, family="mhc", unmeasured=[2]).save(str(path))
    return path


def test_an_incomplete_measurement_prints_its_analysis_and_is_exit_2(
    run: Run, partial: Path
) -> None:
    ended = run("analyze", partial, "--json")
    assert ended.code == 2
    assert_valid(ended.json, "analysis")
    assert ended.json["verdict"] == "not_measured"
    assert run("analyze", partial).code == 2


def test_allow_partial_turns_it_into_a_warning(run: Run, partial: Path) -> None:
    ended = run("analyze", partial, "--allow-partial", "--json")
    assert ended.code == 0
    assert ended.json["verdict"] == "stable"
    assert [f["severity"] for f in ended.json["findings"] if f["rule"] == "MHC104"] == ["warning"]


def test_nothing_found_is_exit_2_with_one_paragraph(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("analyze", checkpoints["residual"])
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("mhc-diag: ")
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.trace.safetensors", "a.md", "a.html"])
def test_an_output_is_written_and_said(
    name: str, run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    ended = run("analyze", checkpoints["hc"], "-o", tmp_path / name)
    assert ended.code == 0
    assert (tmp_path / name).stat().st_size > 100
    assert ended.err == f"wrote {tmp_path / name}\n"


def test_several_outputs_and_a_folder(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    words = ["-o", tmp_path / "a.json", "-o", f"{tmp_path}/report/", "--quiet"]
    ended = run("analyze", checkpoints["hc"], *words)
    assert (ended.code, ended.err) == (0, "")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names >= {"report.html", "analysis.json"}
    assert any(name.endswith(".png") for name in names)
    assert json.loads((tmp_path / "a.json").read_text())["verdict"]


def test_the_report_names_the_command_that_made_it(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    run("analyze", checkpoints["hc"], "--max-gain", "3", "-o", tmp_path / "a.html")
    assert "mhc-diag analyze" in (tmp_path / "a.html").read_text()


def test_an_output_never_replaces_an_input(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    source = tmp_path / "x.trace.safetensors"
    make_trace().save(str(source))
    before = source.read_bytes()
    ended = run("analyze", source, "-o", source, "--force")
    assert (ended.code, ended.out) == (2, "")
    assert "an output never replaces an input" in ended.err
    assert source.read_bytes() == before


def test_inputs_of_the_model_are_inputs_of_the_command(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    ids = tmp_path / "ids.json"
    ids.write_text("[[1, 2, 3]]")
    words = ["--model", MODEL, "--inputs", ids, "-o", ids]
    assert run("analyze", checkpoints["hc"], *words).code == 2
    assert ids.read_text() == "[[1, 2, 3]]"


def test_a_trace_is_replaced_only_by_force(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "x.trace.safetensors"
    assert run("analyze", checkpoints["hc"], "-o", target).code == 0
    assert run("analyze", checkpoints["hc"], "-o", target).code == 2
    assert run("analyze", checkpoints["hc"], "-o", target, "--force").code == 0


@pytest.mark.parametrize("command", ["analyze", "gate", "compare", "report"])
def test_an_unknown_suffix_is_told_before_anything_is_read(
    command: str, run: Run, tmp_path: Path
) -> None:
    words = ["no.pt", "no-other.pt"] if command == "compare" else ["no.pt"]
    ended = run(command, *words, "-o", tmp_path / "x.docx")
    assert (ended.code, ended.out) == (2, "")
    assert "the suffix '.docx' says no kind of output" in ended.err
    assert "no.pt" not in ended.err


@pytest.mark.parametrize("name", ["x.docx", "x", "absent/x.json"])
def test_an_output_that_cannot_be_written_leaves_one_error_on_stdout(
    name: str, run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    ended = run("analyze", checkpoints["hc"], "-o", tmp_path / name, "--json")
    assert ended.code == 2
    assert_valid(ended.json, "error")


def test_a_trace_is_measured_like_the_file_it_came_from(
    run: Run, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "x.trace.safetensors"
    first = run("analyze", checkpoints["hc"], "-o", target, "--json").json
    second = run("analyze", target, "--json").json
    different: list[Any] = [key for key in first if first[key] != second[key]]
    assert different == ["source"]
