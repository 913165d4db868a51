"""Which tokens a capture keeps: the same at every site, drawn by the seed, padding left out."""

from __future__ import annotations

import numpy as np
import torch
from models import GPT

import mhc_diag as md

IDS = torch.arange(32).reshape(2, 16)


def test_sampled_tokens_are_the_same_at_every_site_and_a_subset_of_all() -> None:
    model = GPT("hc")
    with torch.no_grad(), md.capture(model) as every:
        model(IDS)
    with torch.no_grad(), md.capture(model, tokens=7, seed=1) as some:
        model(IDS)
    whole, part = every.trace().chains[0].M, some.trace().chains[0].M
    assert part.shape[1] == 7
    rows = [int(np.flatnonzero((whole[0] == one).all((-1, -2)))[0]) for one in part[0]]
    assert len(set(rows)) == 7
    np.testing.assert_array_equal(part, whole[:, rows])


def test_the_draw_follows_the_seed() -> None:
    model = GPT("hc")
    drawn = []
    for seed in (0, 0, 1):
        with torch.no_grad(), md.capture(model, tokens=5, seed=seed) as capture:
            model(IDS)
        drawn.append(capture.trace().chains[0].M)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_tokens_are_spread_evenly_over_forward_passes() -> None:
    model = GPT("hc")
    with torch.no_grad(), md.capture(model, tokens=9) as capture:
        for _ in range(3):
            model(IDS)
    trace = capture.trace()
    assert trace.chains[0].M.shape[1] == trace.probe.tokens == 9


def test_padding_is_left_out_where_an_attention_mask_says_so() -> None:
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gpt = GPT("hc")

        def forward(
            self, ids: torch.Tensor, attention_mask: torch.Tensor | None = None
        ) -> torch.Tensor:
            return self.gpt(ids)

    model = Masked()
    mask = torch.ones_like(IDS)
    mask[1, 4:] = 0
    with torch.no_grad(), md.capture(model) as all_of_them:
        model(IDS)
    with torch.no_grad(), md.capture(model) as capture:
        model(IDS, attention_mask=mask)
    kept = mask.flatten().bool().numpy()
    whole = all_of_them.trace().chains[0].M
    np.testing.assert_array_equal(capture.trace().chains[0].M, whole[:, kept])
