"""``mhc-diag inspect``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from factories import make_trace
from run_cases import a_run, without_sites
from schemas import assert_valid


def test_a_checkpoint_is_described_site_by_site(run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("inspect", checkpoints["mhc"])
    assert ended.code == 0
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert any(line.split()[:2] == ["format", "torch-zip"] for line in lines)
    assert any(line.split()[:2] == ["adapter", "zoo_mhc:"] for line in lines)
    names = [line.split()[1] for line in lines if line.split()[:1] and line.split()[0].isdigit()]
    assert names == [f"blocks.{i}.hc_{half}" for i in range(3) for half in ("attn", "mlp")]


def test_the_document_holds_the_same(run: Run, checkpoints: dict[str, Path]) -> None:
    document = run("inspect", checkpoints["mhc"], "--json").json
    assert_valid(document, "inspection")
    assert document["file"]["step"] == 40
    assert document["recognition"]["adapter"] == "zoo_mhc"
    assert [site["index"] for site in document["recognition"]["sites"]] == list(range(6))
    assert {site["streams"] for site in document["recognition"]["sites"]} == {4}
    assert document["why_not"] is None


def test_a_file_without_hyper_connections_is_no_error(
    run: Run, checkpoints: dict[str, Path]
) -> None:
    ended = run("inspect", checkpoints["residual"])
    assert ended.code == 0
    assert "because" in ended.out
    document = run("inspect", checkpoints["residual"], "--json").json
    assert_valid(document, "inspection")
    assert document["recognition"] is None
    assert document["why_not"]


def test_no_tensor_data_is_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    torch.save({"model": {"weight": torch.zeros(1000, 1000)}}, path)
    document = run("inspect", path, "--json").json
    assert document["file"]["tensor_bytes"] == 4_000_000
    assert document["file"]["bytes_read"] < 50_000


def test_a_trace_says_what_it_holds(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.trace.safetensors"
    make_trace(L=4, unmeasured=[2]).save(str(path))
    document = run("inspect", path, "--json").json
    assert_valid(document, "inspection")
    assert document["file"]["format"] == "trace"
    assert len(document["recognition"]["sites"]) == 4
    assert document["recognition"]["skipped"][0]["why"] == "its hook never fired"
    assert "4 streams" not in run("inspect", path).err


def test_a_run_says_what_it_holds(run: Run, tmp_path: Path) -> None:
    path = a_run(tmp_path / "run", {10: 0.1, 30: 0.2})
    document = run("inspect", path, "--json").json
    assert_valid(document, "inspection")
    file, found = document["file"], document["recognition"]
    assert (file["format"], file["records"], file["first_step"], file["step"]) == ("run", 2, 10, 30)
    assert "composite.forward.amax.mean" in file["ids"]
    assert file["scalars"] == ["grad_norm", "loss"]
    assert (found["family"], len(found["sites"])) == ("hc", 6)
    ended = run("inspect", path)
    assert (ended.code, ended.err) == (0, "")
    assert "2, from step 10 on" in ended.out
    assert run("inspect", path, "--adapter", "zoo_hc").code == 2


def test_a_run_without_sites_is_described_too(run: Run, tmp_path: Path) -> None:
    path = without_sites(tmp_path / "run", {10: 3.0})
    document = run("inspect", path, "--json").json
    assert_valid(document, "inspection")
    assert document["recognition"] is None
    assert "without sites" in document["why_not"]


def test_the_list_of_adapters_is_for_machines_and_a_better_one_is_named(
    run: Run, checkpoints: dict[str, Path]
) -> None:
    ended = run("analyze", checkpoints["residual"])
    assert "deepseek_v4" not in ended.err
    assert "deepseek_v4" in run("analyze", checkpoints["residual"], "--json").json["came"]
    ended = run("analyze", checkpoints["hc"], "--adapter", "zoo_mhc")
    assert ended.code == 2
    assert "Leave the adapter out, or take zoo_hc" in ended.err
    assert "--model" not in ended.err


def test_a_file_that_is_no_checkpoint_is_exit_2(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "noise.bin"
    path.write_bytes(np.random.default_rng(0).bytes(300))
    ended = run("inspect", path)
    assert ended.code == 2
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1


def test_names_cannot_reach_the_terminal_as_commands(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    names = ["hc.\x1b[31mred", "hc.[bold]h_res[/bold]", "hc.\u202egnp"]
    torch.save({name: torch.zeros(1) for name in names}, path)
    ended = run("inspect", path)
    assert ended.code == 0
    assert "\x1b" not in ended.out
    assert "\u202e" not in ended.out


@pytest.mark.parametrize("words", [["--adapter", "zoo_mcc"], ["--set", "sinkhorn_iters"]])
def test_a_wrong_option_is_exit_2(words: list[str], run: Run, checkpoints: dict[str, Path]) -> None:
    ended = run("inspect", checkpoints["mhc"], *words)
    assert ended.code == 2
    assert ended.err.startswith("mhc-diag: ")
