"""Capture: nothing is changed, nothing is left behind, nothing is lost without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hyper_connections.hyper_connections import HyperConnections
from models import GPT, WIDTH, LucidrainsStack
from torch.utils.checkpoint import checkpoint

import mhc_diag as md
from mhc_diag.errors import CaptureError, ModelError, NoHyperConnectionsError, OptionError

IDS = torch.arange(32).reshape(2, 16)


def hooks_on(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_outputs_gradients_and_random_state_are_the_same_to_the_bit() -> None:
    outcomes = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = GPT("mhc")
        dropout = torch.nn.Dropout(0.3)
        torch.manual_seed(3)
        if watched:
            with md.capture(model, tokens=5):
                loss = dropout(model(IDS)).square().sum()
        else:
            loss = dropout(model(IDS)).square().sum()
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        outcomes.append([loss.detach(), torch.get_rng_state(), *gradients])
    assert len(outcomes[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_hooks_are_gone_after_the_context_and_after_an_exception() -> None:
    model = GPT("hc")
    before = hooks_on(model)
    with md.capture(model):
        assert hooks_on(model) > before
    assert hooks_on(model) == before
    with pytest.raises(ZeroDivisionError), md.capture(model):
        _ = 1 / 0
    assert hooks_on(model) == before


def test_a_capture_that_is_entered_cannot_be_entered_again() -> None:
    model = GPT("hc")
    before = hooks_on(model)
    capture = md.capture(model)
    with capture:
        there = hooks_on(model)
        with pytest.raises(CaptureError, match="entered already"), capture:
            pass
        assert hooks_on(model) == there
        model(IDS)
    assert hooks_on(model) == before
    with torch.no_grad(), capture:  # one that was left may go on
        model(IDS)
    assert hooks_on(model) == before
    assert capture.trace().probe.tokens == 64


def test_a_forward_that_raises_is_dropped_whole_and_the_next_one_counts() -> None:
    model = GPT("hc")

    def boom(*_: Any) -> None:
        raise RuntimeError("boom")

    handle = model.transformer["h"][2]["hc_mlp"].register_forward_pre_hook(boom)
    with md.capture(model) as capture:
        with pytest.raises(RuntimeError, match="boom"):
            model(IDS)
        handle.remove()
        model(IDS[:1])
    trace = capture.trace()
    assert trace.probe.tokens == 16
    assert trace.coverage.is_complete


def test_a_capture_without_a_forward_pass_says_so() -> None:
    with md.capture(GPT("hc")) as capture:
        pass
    with pytest.raises(CaptureError, match="0 of 6 sites fired"):
        capture.trace()


def test_a_model_without_hyper_connections_is_told_what_was_looked_for() -> None:
    with pytest.raises(NoHyperConnectionsError, match="DeepseekV4HyperConnection.*Give taps"):
        md.capture(torch.nn.Linear(2, 2))


def test_something_that_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="dict is no nn.Module"):
        md.capture({})


def test_fewer_than_one_token_is_refused() -> None:
    with pytest.raises(OptionError, match="tokens=0"):
        md.capture(GPT("hc"), tokens=0)


def test_several_forward_passes_are_more_tokens_of_one_measurement() -> None:
    model = GPT("mhc")
    with torch.no_grad(), md.capture(model) as both:
        model(IDS)
        model(IDS + 0)
    with torch.no_grad(), md.capture(model) as one:
        model(IDS)
    twice, once = both.trace().chains[0].M, one.trace().chains[0].M
    np.testing.assert_array_equal(twice, np.concatenate([once, once], axis=1))


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_passes_of_activation_checkpointing_are_not_counted(reentrant: bool) -> None:
    class Checkpointed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = LucidrainsStack(HyperConnections)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.repeat_interleave(4, 0)
            for block in self.stack.layers:
                for site in block:
                    x = checkpoint(site, x, use_reentrant=reentrant)
            return x

    model = Checkpointed()
    x = torch.randn(2, 5, WIDTH, requires_grad=True)
    with md.capture(model) as capture:
        model(x).sum().backward()
    trace = capture.trace()
    assert trace.chains[0].M.shape == (6, 10, 4, 4)
    assert [site.name for site in trace.sites] == [
        f"stack.layers.{i}.{j}" for i in range(3) for j in range(2)
    ]


def test_a_module_that_runs_twice_in_one_pass_is_two_sites() -> None:
    class Loop(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = LucidrainsStack(HyperConnections, n_blocks=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.repeat_interleave(4, 0)
            for _ in range(3):
                x = self.stack.layers[0][0](x)
            return self.stack.layers[0][1](x)

    with torch.no_grad(), md.capture(Loop()) as capture:
        capture._model(torch.randn(1, 2, WIDTH))
    trace = capture.trace()
    names = [f"stack.layers.0.0#{k}" for k in range(3)]
    assert [site.name for site in trace.sites] == [*names, "stack.layers.0.1"]
    assert trace.orientation.verified == "numeric"


def test_a_site_that_never_fires_is_counted_named_and_not_measured() -> None:
    class Skips(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gpt = GPT("hc")

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.gpt.transformer["wte"](ids).repeat_interleave(4, 0)
            blocks = self.gpt.transformer["h"]
            return blocks[2]["hc_mlp"](blocks[0]["hc_attn"](x))

    with torch.no_grad(), md.capture(Skips()) as capture:
        capture._model(IDS)
    trace = capture.trace()
    assert trace.coverage.expected == 6
    assert trace.coverage.measured == 2
    assert not trace.coverage.is_complete
    assert {one.site for one in trace.coverage.skipped} == {
        f"gpt.transformer.h.{name}" for name in ("0.hc_mlp", "1.hc_attn", "1.hc_mlp", "2.hc_attn")
    }
    assert trace.chains[0].measured == (True, False, False, False, False, True)
    assert np.isnan(trace.chains[0].M[1]).all()


def test_a_compiled_model_is_captured_even_after_warm_up() -> None:
    model = GPT("mhc")
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        want = compiled(IDS)
        with md.capture(compiled) as capture:
            got = compiled(IDS)
        with md.capture(model) as plain:
            model(IDS)
    torch.testing.assert_close(got, want)
    trace = capture.trace()
    assert trace.sites[0].name == "transformer.h.0.hc_attn"
    np.testing.assert_array_equal(trace.chains[0].M, plain.trace().chains[0].M)


def test_the_gram_matrix_holds_stream_norms_and_the_branch_output() -> None:
    model = GPT("mhc")
    seen: dict[str, Any] = {}
    site = model.transformer["h"][1]["hc_attn"]
    site.branch.register_forward_hook(lambda m, a, o: seen.update(f=o))
    site.register_forward_pre_hook(lambda m, a: seen.update(x=a[0]))
    with torch.no_grad(), md.capture(model) as capture:
        model(IDS)
    gram = capture.trace().chains[0].gram[2]
    x = seen["x"].unflatten(0, (-1, 4)).movedim(1, -2).reshape(32, 4, WIDTH)
    both = torch.cat([x, seen["f"].reshape(32, 1, WIDTH)], 1).double()
    np.testing.assert_allclose(gram, both @ both.mT, rtol=1e-3, atol=1e-3)


def test_the_inputs_are_identified_by_their_hash() -> None:
    model = GPT("hc")
    hashes = []
    for ids in (IDS, IDS, IDS.flip(0)):
        with torch.no_grad(), md.capture(model) as capture:
            model(ids)
        hashes.append(capture.trace().probe.inputs)
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[0].startswith("sha256:")


def test_a_bfloat16_model_says_what_was_computed_and_what_was_applied() -> None:
    model = LucidrainsStack(HyperConnections).to(torch.bfloat16)
    with torch.no_grad(), md.capture(model) as capture:
        model(torch.randn(2, 5, WIDTH, dtype=torch.bfloat16))
    trace = capture.trace()
    assert trace.model.precision.computed == "bfloat16"
    assert trace.chains[0].M.dtype == np.float32
    assert trace.orientation.verified == "numeric"


def test_the_user_may_say_the_orientation_and_the_closure_contradicts_a_wrong_word() -> None:
    model = GPT("mhc")
    traces = {}
    for word in ("M^T", "M"):
        with torch.no_grad(), md.capture(model, settings={"orientation": word}) as capture:
            model(IDS)
        traces[word] = capture.trace()
    right, wrong = traces["M^T"], traces["M"]
    np.testing.assert_array_equal(np.swapaxes(wrong.chains[0].M, -1, -2), right.chains[0].M)
    assert (wrong.orientation.stored, wrong.orientation.verified) == ("M", "declared")
    assert wrong.orientation.error > 1e-3
    assert wrong.model.settings["orientation"].source == "option"
    with pytest.raises(OptionError, match="'H' is neither M nor M"):
        md.capture(model, settings={"orientation": "H"})


def test_a_star_in_a_tap_stays_within_one_segment_of_the_name() -> None:
    def identity(module: Any, args: Any, output: Any) -> torch.Tensor:
        return torch.eye(2).expand(4, 2, 2)

    model = GPT("hc")
    with (
        torch.no_grad(),
        md.capture(model, taps={"transformer.h.*.hc_*": md.tap(identity)}) as capture,
    ):
        model(IDS)
    assert len(capture.trace().sites) == 6


def test_a_setting_that_the_adapter_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'sinkhorn_iters'"):
        md.capture(GPT("mhc"), settings={"sinkhorn_iter": 5})
