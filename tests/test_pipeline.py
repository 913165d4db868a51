from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_trace
from hyper_connections import get_init_and_expand_reduce_stream_functions
from torch import nn

import mhc_diag as md
from mhc_diag.errors import ModelError, OptionError

GAIN = "composite.forward.amax.mean"


class Tiny(nn.Module):
    """Two hyper-connected branches over four streams; token ids in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        init, self.expand, self.reduce = get_init_and_expand_reduce_stream_functions(4)
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList(
            [init(dim=8, branch=nn.Linear(8, 8), layer_index=i) for i in range(3)]
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.expand(self.embed(ids))
        for block in self.blocks:
            x = block(x)
        return self.reduce(x)


def tiny(*, seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    model = Tiny()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def build(checkpoint: Mapping[str, Any]) -> nn.Module:
    model = Tiny()
    model.load_state_dict(checkpoint["model"])
    return model


def broken(checkpoint: Mapping[str, Any]) -> nn.Module:
    model = build(checkpoint)
    model.embed = nn.Embedding(2, 8)  # too small for the ids
    return model


def talkative(checkpoint: Mapping[str, Any]) -> nn.Module:
    model = build(checkpoint)

    def speak(*_: Any) -> None:
        raise ValueError("x" * 5000 + "\nand more")

    model.embed.register_forward_hook(speak)
    return model


def with_dropout(model: Tiny) -> Tiny:
    model.embed = nn.Sequential(model.embed, nn.Dropout(0.5))
    return model


IDS = torch.tensor([[1, 4, 2, 9, 9], [3, 0, 10, 7, 5]])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "hc.pt"
    torch.save({"model": tiny().state_dict(), "step": 7}, path)
    return path


def test_a_bare_checkpoint_is_measured_statically(checkpoint: Path) -> None:
    analysis = md.analyze(str(checkpoint))
    assert (analysis.probe.kind, analysis.probe.tokens) == ("static", 1)
    assert (analysis.source.path, analysis.source.format) == (str(checkpoint), "torch-zip")
    assert (analysis.source.step, analysis.model.family) == (7, "hc")
    assert (analysis.coverage.expected, analysis.coverage.measured) == (3, 3)
    assert analysis.verdict in {"inconclusive", "unstable"}


def test_isotropic_draws_are_seeded_and_counted(checkpoint: Path) -> None:
    first, again, other = (
        md.analyze(checkpoint, probe="isotropic", tokens=16, seed=seed) for seed in (1, 1, 2)
    )
    assert first.probe.tokens == 16
    assert np.array_equal(first[GAIN], again[GAIN])
    assert not np.array_equal(first[GAIN], other[GAIN])
    assert md.analyze(checkpoint, probe="isotropic").probe.tokens == 256


@pytest.mark.parametrize("model", [build, tiny()], ids=["callable", "module"])
@pytest.mark.parametrize("inputs", [IDS, (IDS,), {"ids": IDS}], ids=["tensor", "tuple", "mapping"])
def test_model_and_inputs_are_measured_on_tokens(checkpoint: Path, model: Any, inputs: Any) -> None:
    analysis = md.analyze(checkpoint, model=model, inputs=inputs)
    assert (analysis.probe.kind, analysis.probe.tokens) == ("tokens", 10)
    assert (analysis.source.path, analysis.source.step) == (str(checkpoint), 7)
    with md.capture(tiny()) as capture:
        tiny()  # another model: not captured
        capture._model(IDS)
    direct = md.analyze(capture.trace())
    assert analysis[GAIN].data == pytest.approx(direct[GAIN].data, rel=1e-6)
    assert analysis.probe.inputs == direct.probe.inputs
    assert analysis.verdict != "inconclusive"


def test_inputs_from_a_file_and_random_ones_say_what_they_are(checkpoint: Path) -> None:
    np.save(checkpoint.parent / "ids.npy", IDS.numpy())
    analysis = md.analyze(checkpoint, model=build, inputs=str(checkpoint.parent / "ids.npy"))
    assert analysis.probe.inputs.startswith("sha256:")
    drawn = md.analyze(checkpoint, model=build, inputs="random:2x3", seed=5)
    assert drawn.probe.tokens == 6
    assert "not data" in drawn.probe.inputs


def test_fewer_tokens_are_drawn_when_asked(checkpoint: Path) -> None:
    assert md.analyze(checkpoint, model=build, inputs=IDS, tokens=4).probe.tokens == 4


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"probe": "tokens"}, "no inputs"),
        ({"probe": "tokens", "model": build}, "no inputs"),
        ({"model": build}, "no inputs"),
        ({"probe": "tokens", "inputs": IDS}, "no model"),
        ({"inputs": IDS}, "no model"),
        ({"probe": "static", "taps": {"x": object()}}, "taps need a model"),
        ({"step": 8}, "it is of step 7"),
        ({"probe": "static", "inputs": IDS}, "parameters alone; inputs would change nothing"),
        ({"probe": "static", "model": build, "inputs": IDS}, "alone; model, inputs would"),
        ({"probe": "static", "tokens": 5}, "the static probe .* tokens would change nothing"),
        ({"tokens": 5}, "the static probe .* tokens would change nothing"),
        ({"probe": "isotropic", "tokens": 5, "model": build}, "the isotropic probe .* model"),
    ],
    ids=[
        *("bare", "probe-model", "model", "probe-inputs", "inputs", "taps", "step"),
        *("static-inputs", "static-both", "static-tokens", "tokens", "isotropic-model"),
    ],
)
def test_half_of_what_is_needed_is_refused(
    checkpoint: Path, wishes: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        md.analyze(checkpoint, **wishes)


def test_a_model_that_raises_is_named_with_what_it_said(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="the model raised IndexError"):
        md.analyze(checkpoint, model=broken, inputs=IDS)


def test_what_a_model_says_is_cut_to_one_short_paragraph(checkpoint: Path) -> None:
    with pytest.raises(
        ModelError, match=r"the model raised ValueError: x+ \.\.\.\. Check"
    ) as caught:
        md.analyze(checkpoint, model=talkative, inputs=IDS)
    assert len(caught.value.came) < 340
    assert "\n" not in str(caught.value)


def test_the_callers_module_runs_in_evaluation_mode_and_has_its_modes_again(
    checkpoint: Path,
) -> None:
    plain = md.analyze(checkpoint, model=tiny(), inputs=IDS)
    model = with_dropout(tiny()).train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    assert {True, False} == set(modes)
    measured = md.analyze(checkpoint, model=model, inputs=IDS)
    assert np.array_equal(measured[GAIN].data, plain[GAIN].data)
    assert [module.training for module in model.modules()] == modes
    model.embed[0] = nn.Embedding(2, 8)
    with pytest.raises(ModelError):
        md.analyze(checkpoint, model=model, inputs=IDS)
    assert model.training


def test_the_callers_module_stays_in_its_mode_and_on_its_device(checkpoint: Path) -> None:
    model = tiny().train()
    md.analyze(checkpoint, model=model, inputs=IDS)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_saved_trace_is_read_back_to_the_same_numbers(tmp_path: Path) -> None:
    trace = make_trace(L=5)
    path = tmp_path / "x.trace.safetensors"
    trace.save(str(path))
    read, direct = md.analyze(path), md.analyze(trace)
    assert read.source.format == "trace"
    for name in direct:
        assert np.array_equal(
            read[name].filled(np.nan), direct[name].filled(np.nan), equal_nan=True
        )
    with pytest.raises(OptionError, match="its probe is tokens"):
        md.analyze(path, probe="static")
    with pytest.raises(OptionError, match="settings cannot change matrices"):
        md.analyze(path, settings={"tau": 1.0})
    for late in ({"tokens": 2}, {"inputs": np.arange(3)}, {"model": build}, {"adapter": "zoo_hc"}):
        for source in (path, trace):
            with pytest.raises(OptionError, match=f"{next(iter(late))} cannot change matrices"):
                md.analyze(source, **late)
    assert md.analyze(path, settings={}, taps={}).verdict == direct.verdict
    with pytest.raises(OptionError, match="it is of step 1000"):
        md.analyze(trace, step=3)
    assert md.analyze(trace, step=1000, probe="tokens").verdict == direct.verdict


def test_limits_and_partial_coverage_reach_the_verdict() -> None:
    loud = make_trace(spread=1.0, L=10)
    assert md.analyze(loud).verdict == "unstable"
    from mhc_diag.limits import limits_of

    assert md.analyze(loud, limits=limits_of(max_gain=1e9)).verdict == "stable"
    gap = make_trace(family="mhc", unmeasured=[4])
    assert md.analyze(gap).verdict == "not_measured"
    assert md.analyze(gap, allow_partial=True).verdict == "stable"
