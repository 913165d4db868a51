"""The monitor under the tricks of training: every microbatch once, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monitored import ID, IDS, hooks_on, recorded, truth, zoo
from torch.utils.checkpoint import checkpoint

import mhc_diag as md
from mhc_diag.zoo.models import ZooModel


def test_two_lines_record_every_nth_step(tmp_path: Path) -> None:
    model = zoo()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = md.Monitor(model, tmp_path / "run", every=3, tokens=1000)
    wanted = {}
    for step in range(8):
        if step % 3 == 0:
            wanted[step] = truth(model, IDS)
        loss = model(IDS).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(step, loss=loss, grad_norm=1.5)
    monitor.close()
    frame = md.read_run(tmp_path / "run")
    assert sorted(frame["step"].unique()) == [0, 3, 6]
    for step, values in wanted.items():
        np.testing.assert_allclose(recorded(tmp_path / "run", step), values, rtol=1e-9)
    assert set(frame[frame["site"].isna()]["id"]) == {"loss", "grad_norm"}
    assert monitor.problems == 0


def test_no_hook_is_on_the_model_between_recorded_steps(tmp_path: Path) -> None:
    model = zoo()
    counts = []
    with md.Monitor(model, tmp_path / "run", every=4) as monitor:
        for step in range(9):
            counts.append(hooks_on(model) > 0)
            model(IDS)
            monitor.step(step)
    # Step 1 is listened to as well: after one step nobody knows how steps are numbered.
    assert counts == [True, True, False, False, True, False, False, False, True]
    assert hooks_on(model) == 0


def test_a_predicate_chooses_the_steps(tmp_path: Path) -> None:
    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=lambda step: step in (1, 2, 5)) as monitor:
        for step in range(7):
            model(IDS)
            monitor.step(step)
    assert sorted(md.read_run(tmp_path / "run")["step"].unique()) == [1, 2, 5]


def test_all_microbatches_count_each_once_and_evaluation_does_not(tmp_path: Path) -> None:
    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1, tokens=1000) as monitor:
        for ids in IDS.split(2):
            model(ids).sum().backward()
        model.eval()
        with torch.no_grad():
            model(IDS.flip(0) + 1)
        model.train()
        monitor.step(0)
    np.testing.assert_allclose(recorded(tmp_path / "run"), truth(model, *IDS.split(2)), rtol=1e-9)


def test_tokens_are_counted_over_all_microbatches_of_a_step(tmp_path: Path) -> None:

    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1, tokens=10) as monitor:
        for ids in IDS.split(1):
            model(ids)
        monitor.step(0)
    record = json.loads((tmp_path / "run" / "stats.jsonl").read_text())
    assert record["probe"]["tokens"] == 10


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_passes_are_not_counted(tmp_path: Path, reentrant: bool) -> None:
    model = zoo()
    plain = truth(model, IDS)
    wrapped = _checkpointed(model, reentrant)
    with md.Monitor(wrapped, tmp_path / "run", every=1, tokens=1000) as monitor:
        wrapped(IDS).sum().backward()
        monitor.step(0)
    np.testing.assert_allclose(recorded(tmp_path / "run"), plain, rtol=1e-9)


def _checkpointed(model: ZooModel, reentrant: bool) -> ZooModel:
    for block in model.blocks:
        forward = block.forward
        block.forward = lambda x, f=forward: checkpoint(f, x, use_reentrant=reentrant)
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("how", ["whole", "blocks", "after warm-up"])
def test_a_compiled_model_keeps_its_graphs_and_is_measured(tmp_path: Path, how: str) -> None:
    from torch._dynamo.testing import CompileCounter

    def graphs(run: Path | None) -> tuple[int, np.ndarray | None]:
        torch._dynamo.reset()
        counter = CompileCounter()
        model = zoo()
        compiled: Any = model
        if how == "blocks":
            for block in model.blocks:
                block.compile(backend=counter, fullgraph=True)
        else:
            compiled = torch.compile(model, backend=counter, fullgraph=True)
        if how == "after warm-up":
            compiled(IDS)
        monitor = md.Monitor(compiled, run, every=2, tokens=1000) if run else None
        for step in range(5):
            compiled(IDS).sum().backward()
            if monitor:
                monitor.step(step)
        if monitor:
            monitor.close()
        return counter.frame_count, None if run is None else truth(model, IDS)

    without, _ = graphs(None)
    with_monitor, wanted = graphs(tmp_path / "run")
    assert with_monitor == without
    assert wanted is not None
    for step in (0, 2, 4):
        np.testing.assert_allclose(recorded(tmp_path / "run", step), wanted, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_a_model_that_is_wrapped_and_cast_says_what_was_applied(tmp_path: Path) -> None:

    model = zoo()
    with (
        md.Monitor(model, tmp_path / "run", every=1) as monitor,
        torch.autocast("cpu", torch.bfloat16),
    ):
        model(IDS)
        monitor.step(0)
    header = json.loads((tmp_path / "run" / "run.json").read_text())
    assert header["model"]["precision"]["applied"] == "bfloat16"


def test_the_sink_gets_the_worst_of_each_id_and_the_scalars(tmp_path: Path) -> None:
    model = zoo("hc")
    seen: list[tuple[dict[str, float], int]] = []
    with md.Monitor(
        model,
        tmp_path / "run",
        every=2,
        tokens=1000,
        sink=lambda numbers, step: seen.append((dict(numbers), step)),
    ) as monitor:
        for step in range(3):
            model(IDS)
            monitor.step(step, loss=torch.tensor(2.5))
    assert [step for _, step in seen] == [0, 2]
    assert seen[0][0]["loss"] == 2.5
    assert seen[0][0][ID] == pytest.approx(truth(model, IDS).max())
    assert len(seen[0][0]) == 13


def test_training_is_the_same_to_the_bit_with_and_without(tmp_path: Path) -> None:
    def trained(run: Path | None) -> list[torch.Tensor]:
        model = zoo()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        monitor = md.Monitor(model, run, every=2, tokens=8) if run else None
        for step in range(4):
            loss = model(IDS).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if monitor:
                monitor.step(step, loss=loss)
        return [*model.parameters(), torch.get_rng_state()]

    assert all(
        torch.equal(a, b) for a, b in zip(trained(None), trained(tmp_path / "run"), strict=True)
    )


def test_steps_may_be_told_only_when_they_are_due(tmp_path: Path) -> None:
    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=50) as monitor:
        for step in (0, 50, 100, 150):
            model(IDS)
            monitor.step(step)
    assert monitor.problems == 0
    assert sorted(md.read_run(tmp_path / "run")["step"].unique()) == [0, 50, 100, 150]


def test_a_predicate_that_counts_its_calls_is_asked_once_per_step(tmp_path: Path) -> None:
    asked: list[int] = []

    def every_third_call(step: int) -> bool:
        asked.append(step)
        return len(asked) % 3 == 0

    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=every_third_call) as monitor:
        for step in range(9):
            model(IDS)
            monitor.step(step)
    assert asked == list(range(10))
    assert sorted(md.read_run(tmp_path / "run")["step"].unique()) == [2, 5, 8]


def test_a_resumed_training_draws_the_tokens_of_an_unbroken_one(tmp_path: Path) -> None:
    rows = []
    for name, first in (("unbroken", 0), ("resumed", 3)):
        model = zoo()
        with md.Monitor(model, tmp_path / name, every=1, tokens=5, first_step=first) as monitor:
            for step in range(first, 5):
                model(IDS)
                monitor.step(step)
        rows.append(recorded(tmp_path / name, 3))
    np.testing.assert_array_equal(rows[0], rows[1])
