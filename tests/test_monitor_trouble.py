"""The monitor when something goes wrong: training goes on, and nothing is lost in silence."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import GPT
from monitored import ID, IDS, recorded, truth, zoo

import mhc_diag as md
from mhc_diag.errors import NoHyperConnectionsError, OptionError, RunError
from mhc_diag.runs.monitor import MonitorWarning


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


def test_a_tap_that_misreads_one_step_loses_that_pass_and_not_the_training(tmp_path: Path) -> None:
    model = zoo()
    shapes = iter([(4, 4), (4,), (4, 4)])

    def sometimes(module: Any, args: Any, output: Any) -> torch.Tensor:
        return torch.ones(next(shapes))

    taps = {"blocks.0.hc_attn": md.tap(sometimes)}
    with md.Monitor(model, tmp_path / "run", every=1, taps=taps) as monitor:
        model(IDS)
        monitor.step(0)
        with pytest.warns(MonitorWarning) as warned:
            model(IDS)
        with pytest.warns(MonitorWarning, match="no training-mode forward pass"):
            monitor.step(1)
        model(IDS)
        monitor.step(2)
    assert "H_res has shape [4]" in str(warned[0].message)
    assert sorted(md.read_run(tmp_path / "run")["step"].unique()) == [0, 2]


def test_a_sink_that_raises_is_warned_of_and_the_record_is_kept(tmp_path: Path) -> None:
    def broken(numbers: Any, step: int) -> None:
        raise ConnectionError("no route")

    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1, sink=broken) as monitor:
        model(IDS)
        with pytest.warns(MonitorWarning, match="ConnectionError: no route"):
            monitor.step(0)
    assert sorted(md.read_run(tmp_path / "run")["step"].unique()) == [0]


def test_a_model_that_is_edited_after_attach_is_noticed_and_can_be_attached_anew(
    tmp_path: Path,
) -> None:
    model = zoo()
    with md.Monitor(model, tmp_path / "run", every=1) as monitor:
        model(IDS)
        monitor.step(0)
        model.blocks[1] = zoo().blocks[1]
        model(IDS)
        with pytest.warns(MonitorWarning, match="2 of 6 sites"):
            monitor.step(1)
        monitor.attach()
        model(IDS)
        monitor.step(2)
    assert monitor.problems == 1
    assert np.isfinite(recorded(tmp_path / "run", 2)).all()


def test_a_failed_backward_is_left_out_with_skip(tmp_path: Path) -> None:
    model = zoo()
    wanted = truth(model, IDS)
    with md.Monitor(model, tmp_path / "run", every=1, tokens=1000) as monitor:
        with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar"):
            model(IDS + 3).backward()
        monitor.skip()
        model(IDS).sum().backward()
        monitor.step(0)
    np.testing.assert_allclose(recorded(tmp_path / "run"), wanted, rtol=1e-9)
