"""The checkpoints in examples/ are small, complete, and show what their README says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mhc_diag as md
from mhc_diag.zoo.models import load_checkpoint

EXAMPLES = Path(__file__).parent.parent / "examples"
FORWARD, BACKWARD = "composite.forward.amax.mean", "composite.backward.amax.mean"


def on_tokens(name: str) -> md.Analysis:
    return md.analyze(
        EXAMPLES / name,
        model="mhc_diag.zoo.models:build",
        inputs="mhc_diag.zoo.data:sample_ids",
    )


@pytest.mark.parametrize("name", ["hc.pt", "mhc.pt", "mhc_lite.pt"])
def test_an_example_is_small_and_runs(name: str) -> None:
    assert (EXAMPLES / name).stat().st_size <= 1_200_000
    model = load_checkpoint(EXAMPLES / name)
    assert model.config.n_blocks == 12
    ids = torch.randint(256, (1, 64), generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(model(ids)).all()


def test_hc_explodes_on_data_more_than_its_parameters_say() -> None:
    tokens, static = on_tokens("hc.pt"), md.analyze(EXAMPLES / "hc.pt")
    assert tokens.verdict == static.verdict == "unstable"
    assert tokens[FORWARD].max() >= 10
    assert tokens[FORWARD].max() > 2 * static[FORWARD].max()
    assert tokens.orientation.verified == "numeric"


@pytest.mark.parametrize(("name", "limit"), [("mhc.pt", 1.1), ("mhc_lite.pt", 1.0001)])
def test_projected_models_hold_their_gain(name: str, limit: float) -> None:
    tokens = on_tokens(name)
    assert tokens.verdict == "stable"
    assert max(tokens[FORWARD].max(), tokens[BACKWARD].max()) <= limit
    assert tokens.orientation.verified == "numeric"
    assert tokens["mixing.off_diagonal.mean"].min() > 0.02  # not just identity everywhere


def test_the_readme_tells_the_static_numbers_of_these_files() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for name in ("hc.pt", "mhc.pt", "mhc_lite.pt"):
        told = re.search(rf"`{name}` .*\| ([0-9.]+) \|$", text, re.MULTILINE)
        assert told is not None
        digits = len(told[1].split(".")[1])
        measured = float(np.max(md.analyze(EXAMPLES / name)[FORWARD]))
        assert f"{measured:.{digits}f}" == told[1]
