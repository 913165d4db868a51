"""The monitor under the tricks of training: every microbatch once, nothing else, nothing lost."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import GPT
from torch.utils.checkpoint import checkpoint

import mhc_diag as md
from mhc_diag.errors import NoHyperConnectionsError, OptionError, RunError
from mhc_diag.metrics import measure
from mhc_diag.runs.monitor import MonitorWarning
from mhc_diag.zoo.models import ZooConfig, ZooModel

IDS = torch.arange(64).reshape(4, 16) % 32
ID = "composite.forward.amax.mean"


def zoo(connection: str = "mhc") -> ZooModel:
    torch.manual_seed(0)
    model = ZooModel(ZooConfig(connection=connection, n_blocks=3, width=16, n_heads=2, context=16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "hc_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def truth(model: torch.nn.Module, *batches: torch.Tensor) -> np.ndarray:
    """What a capture of the same passes reads."""
    with torch.no_grad(), md.capture(model) as capture:
        for ids in batches:
            model(ids)
    return measure(capture.trace(), [ID])[ID].filled(np.nan)


def recorded(run: Path, step: int = 0) -> np.ndarray:
    frame = md.read_run(run, ids=[ID], steps=[step])
    return frame[frame["id"] == ID]["value"].to_numpy()


def hooks_on(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


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
    assert counts == [True, False, False, False] * 2 + [True]
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
    import json

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
    import json

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


def test_a_run_of_the_same_model_goes_on_and_another_ones_is_refused(tmp_path: Path) -> None:
    for start in (0, 2):
        model = zoo()
        with md.Monitor(model, tmp_path / "run", every=1) as monitor:
            for step in (start, start + 1):
                model(IDS)
                monitor.step(step)
    assert sorted(md.read_run(tmp_path / "run")["step"].unique()) == [0, 1, 2, 3]
    with pytest.raises(RunError, match="another model's run"):
        md.Monitor(GPT("hc"), tmp_path / "run")


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1) as monitor:
        model(IDS)
        monitor.step(0)
        with md.Monitor(model, tmp_path / "run", every=1) as second:
            model(IDS)
            with pytest.raises(RunError, match="another writer"):
                second.step(0)


def test_a_step_without_a_forward_pass_is_warned_of_once_and_counted(tmp_path: Path) -> None:
    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1) as monitor:
        with pytest.warns(MonitorWarning, match="no training-mode forward pass"):
            monitor.step(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            monitor.step(1)
    assert monitor.problems == 2


def test_a_full_disk_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1) as monitor:
        model(IDS)
        monitor.step(0)
        write = os.write

        def full(*_: Any) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        model(IDS)
        with pytest.warns(MonitorWarning, match="No space left"):
            monitor.step(1)
        monkeypatch.setattr(os, "write", write)
        model(IDS)
        monitor.step(2)
    assert monitor.problems == 1
    assert sorted(md.read_run(tmp_path / "run")["step"].unique()) == [0, 2]


def test_an_exception_in_forward_drops_that_pass_and_skip_drops_a_whole_batch(
    tmp_path: Path,
) -> None:
    model = zoo()
    wanted = truth(model, IDS)
    with md.Monitor(model, tmp_path / "run", every=1, tokens=1000) as monitor:
        with pytest.raises(IndexError, match="index out of range"):
            model(IDS + 10_000)
        model(IDS.flip(0) + 3)
        monitor.skip()
        model(IDS)
        monitor.step(0)
    np.testing.assert_allclose(recorded(tmp_path / "run"), wanted, rtol=1e-9)


def test_nan_matrices_are_recorded_as_nan(tmp_path: Path) -> None:
    model = zoo("hc")
    with torch.no_grad():
        model.blocks[1].hc_attn.static_res[0, 0] = float("nan")
    with md.Monitor(model, tmp_path / "run", every=1) as monitor:
        model(IDS)
        worst = monitor.step(0)
    assert worst is not None
    assert np.isnan(worst[ID])
    assert np.isnan(recorded(tmp_path / "run")[2:]).all()


def test_batches_may_change_their_shape(tmp_path: Path) -> None:
    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1, tokens=1000) as monitor:
        for step, ids in enumerate((IDS, IDS[:1], IDS[:2, :8])):
            model(ids)
            monitor.step(step)
    np.testing.assert_allclose(recorded(tmp_path / "run", 2), truth(model, IDS[:2, :8]), rtol=1e-9)


def test_a_site_that_stays_silent_is_warned_of_and_left_empty(tmp_path: Path) -> None:
    model = zoo()
    model.blocks[2].forward = lambda x: x
    with md.Monitor(model, tmp_path / "run", every=1) as monitor:
        model(IDS)
        with pytest.warns(MonitorWarning, match="blocks.2.hc_mlp. were not measured"):
            monitor.step(0)
    values = recorded(tmp_path / "run")
    assert np.isfinite(values[:4]).all()
    assert len(values) == 4 or np.isnan(values[4:]).all()


def test_detach_and_attach_pause_the_recording(tmp_path: Path) -> None:
    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1) as monitor:
        monitor.detach()
        model(IDS)
        assert monitor.step(0) is None
        monitor.attach()
        model(IDS)
        assert monitor.step(1) is not None
    assert sorted(md.read_run(tmp_path / "run")["step"].unique()) == [1]


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"tokens": 0}, {"ids": ["composite.forward.max"]}]
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        md.Monitor(zoo(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_model_without_hyper_connections_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoHyperConnectionsError, match="looked for"):
        md.Monitor(torch.nn.Linear(2, 2), tmp_path / "run")


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
