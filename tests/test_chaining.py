"""Execution order and chains of running models: what may be multiplied, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hyper_connections.hyper_connections import HyperConnections
from models import GPT, WIDTH, LucidrainsStack
from torch import nn

import mhc_diag as md
from mhc_diag.metrics import measure

ID = "composite.forward.amax.mean"


class Run(nn.Module):
    """Several stacks, run as a function says."""

    def __init__(self, run: Any, **stacks: nn.Module):
        super().__init__()
        self.run = run
        for name, stack in stacks.items():
            self.add_module(name, stack)

    def forward(self, *args: torch.Tensor) -> Any:
        return self.run(self, *args)


def stack(n_blocks: int = 3) -> LucidrainsStack:
    return LucidrainsStack(HyperConnections, n_blocks=n_blocks)


def captured(model: nn.Module, *passes: tuple[Any, ...], **options: Any) -> md.Trace:
    with torch.no_grad(), md.capture(model, **options) as capture:
        for args in passes:
            model(*args)
    return capture.trace()


def chains(trace: md.Trace) -> dict[str, list[str]]:
    return {chain.name: [site.name for site in chain.sites] for chain in trace.chains}


def sites_in(blocks: Iterable[Any]) -> Iterable[Any]:
    return (site for block in blocks for site in block)


def test_shared_blocks_stand_in_the_order_in_which_they_ran() -> None:
    def twice(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.repeat_interleave(4, 0)
        for _ in range(2):
            for site in self.stack.layers[0]:
                x = site(x)
        return x

    trace = captured(Run(twice, stack=stack(1)), (torch.randn(1, 3, WIDTH),))
    names = ["stack.layers.0.0#0", "stack.layers.0.1#0", "stack.layers.0.0#1", "stack.layers.0.1#1"]
    assert chains(trace) == {"main": names}
    assert trace.orientation.verified == "numeric"
    M = trace.chains[0].M.astype(float)
    product = M[3] @ M[2] @ M[1] @ M[0]
    want = np.abs(product.sum(-1)).max(-1).mean()
    assert measure(trace, [ID])[ID][3] == pytest.approx(want, rel=1e-9)


def test_two_stacks_that_each_expand_and_merge_are_two_chains() -> None:
    model = Run(lambda self, x: self.second(self.first(x)), first=stack(), second=stack(2))
    trace = captured(model, (torch.randn(2, 5, WIDTH),))
    assert {name: len(sites) for name, sites in chains(trace).items()} == {"first": 6, "second": 4}
    assert trace.orientation.verified == "numeric"
    alone = captured(model.second, (torch.randn(2, 5, WIDTH),)).chains[0].M.shape
    assert alone[0] == 4


def test_a_second_expansion_within_one_list_of_blocks_begins_a_chain() -> None:
    def merged_between(self: Any, x: torch.Tensor) -> torch.Tensor:
        for block in self.stack.layers:
            x = x.repeat_interleave(4, 0)
            for site in block:
                x = site(x)
            x = x.unflatten(0, (-1, 4)).sum(1)
        return x

    trace = captured(Run(merged_between, stack=stack()), (torch.randn(2, 5, WIDTH),))
    assert [len(sites) for sites in chains(trace).values()] == [2, 2, 2]
    assert trace.orientation.verified == "numeric"


def test_one_stream_of_sites_through_two_lists_of_blocks_is_one_chain() -> None:
    def through(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.repeat_interleave(4, 0)
        for site in (*sites_in(self.dense.layers), *sites_in(self.sparse.layers)):
            x = site(x)
        return x

    trace = captured(Run(through, dense=stack(1), sparse=stack(2)), (torch.randn(1, 3, WIDTH),))
    assert [len(sites) for sites in chains(trace).values()] == [6]
    assert list(chains(trace)) == ["main"]


def test_stages_of_other_resolution_do_not_join_what_they_separate() -> None:
    def unet(self: Any, x: torch.Tensor) -> torch.Tensor:
        down = self.down(x)
        middle = self.middle(down[:, ::2])
        return self.up(middle.repeat_interleave(2, 1))

    model = Run(unet, down=stack(1), middle=stack(1), up=stack(1))
    trace = captured(model, (torch.randn(1, 6, WIDTH),))
    assert {name: len(sites) for name, sites in chains(trace).items()} == {
        "down": 2,
        "middle": 2,
        "up": 2,
    }


def test_a_head_called_mtp_is_auxiliary() -> None:
    model = Run(lambda self, x: self.mtp(self.trunk(x)), trunk=stack(2), mtp=stack(1))
    trace = captured(model, (torch.randn(1, 4, WIDTH),))
    assert [(chain.name, chain.auxiliary) for chain in trace.chains] == [
        ("main", False),
        ("mtp", True),
    ]


def test_a_site_that_is_dropped_in_one_pass_keeps_its_place_as_missing() -> None:
    def some(self: Any, x: torch.Tensor, skip: bool) -> torch.Tensor:
        x = x.repeat_interleave(4, 0)
        for k, site in enumerate(sites_in(self.stack.layers)):
            x = x if skip and k == 2 else site(x)
        return x

    x = torch.randn(1, 4, WIDTH)
    trace = captured(Run(some, stack=stack()), (x, True), (x, False))
    assert trace.chains[0].measured == (True, True, False, True, True, True)
    assert trace.coverage.skipped[0].why == "it fired in 1 of 2 forward passes"
    values = measure(trace, [ID])[ID]
    assert values.mask.tolist() == [False, False, True, True, True, True]


def test_a_known_class_in_a_form_nobody_reads_is_expected_and_missing() -> None:
    model = stack()
    model.layers[1][0] = HyperConnections(
        4, dim=WIDTH, branch=nn.Linear(WIDTH, WIDTH), layer_index=0, num_fracs=2
    )
    trace = captured(model, (torch.randn(1, 4, WIDTH),))
    assert (trace.coverage.expected, trace.coverage.measured) == (6, 5)
    assert trace.coverage.skipped[0].site == "layers.1.0"
    assert "needs a tap" in trace.coverage.skipped[0].why
    assert trace.chains[0].measured[2] is False


def test_of_two_taps_that_fit_a_module_the_later_one_counts_once() -> None:
    identity = md.tap(lambda module, args, output: torch.eye(2).expand(3, 2, 2))
    twice = md.tap(lambda module, args, output: 2 * torch.eye(2).expand(3, 2, 2))
    net = nn.Sequential(nn.Identity(), nn.Identity())
    trace = captured(net, (torch.zeros(3),), taps={"*": identity, "1": twice})
    assert [site.name for site in trace.sites] == ["0", "1"]
    assert trace.chains[0].M[:, 0, 0, 0].tolist() == [1.0, 2.0]


def test_a_microbatch_of_padding_holds_no_token_and_breaks_nothing() -> None:
    model = Run(None, gpt=GPT("hc"))
    model.forward = lambda ids, attention_mask: model.gpt(ids)
    ids = torch.arange(32).reshape(2, 16)
    trace = captured(model, (ids, torch.zeros_like(ids)), (ids, torch.ones_like(ids)))
    assert trace.probe.tokens == 32


def test_tokens_are_shared_out_as_far_as_each_pass_has_them() -> None:
    model = GPT("hc")
    ids = torch.arange(32).reshape(2, 16)
    trace = captured(model, (ids[:1, :4],), (ids,), tokens=20)
    assert trace.probe.tokens == 20


def test_chains_of_different_lengths_are_cut_each_by_itself() -> None:
    model = Run(lambda self, x, y: (self.a(x), self.b(y)), a=stack(1), b=stack(2))
    x, y = torch.randn(1, 40, WIDTH), torch.randn(1, 6, WIDTH)
    trace = captured(model, (x, y), (x, y), tokens=8)
    assert {chain.name: chain.n_tokens for chain in trace.chains} == {"a": 8, "b": 8}


def test_sites_called_one_by_one_from_outside_are_one_pass_until_one_comes_again() -> None:
    model = stack()
    x = torch.randn(2, 5, WIDTH).repeat_interleave(4, 0)
    with torch.no_grad(), md.capture(model) as capture:
        for _ in range(2):
            y = x
            for site in sites_in(model.layers):
                y = site(y)
    trace = capture.trace()
    assert trace.coverage.is_complete
    assert trace.chains[0].M.shape == (6, 20, 4, 4)


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: ({"x": [x]},)])
def test_other_float_inputs_are_other_inputs(wrap: Any) -> None:
    def unwrap(self: Any, batch: Any) -> torch.Tensor:
        x = batch["x"][0] if isinstance(batch, dict) else batch
        return self.stack(x)

    model = Run(unwrap, stack=stack(1))
    a, b = torch.randn(1, 4, WIDTH), torch.randn(1, 4, WIDTH)
    inputs = [captured(model, wrap(x)).probe.inputs for x in (a, a, b)]
    assert inputs[0] == inputs[1] != inputs[2]


def test_a_mask_is_found_in_a_nested_call_and_by_position() -> None:
    inner = Run(lambda self, ids, attention_mask: self.gpt(ids), gpt=GPT("hc"))
    inner.forward = lambda ids, attention_mask: inner.run(inner, ids, attention_mask)
    outer = Run(lambda self, batch: self.inner(batch["ids"], batch["mask"]), inner=inner)
    ids = torch.arange(32).reshape(2, 16)
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    assert captured(outer, ({"ids": ids, "mask": mask},)).probe.tokens == 21
