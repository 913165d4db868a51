"""Draws the pictures of the README from the checkpoints in examples/; run from the repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import mhc_diag as md
from mhc_diag.trace import Source
from mhc_diag.zoo.data import sample_ids
from mhc_diag.zoo.models import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = {"HC": "hc.pt", "mHC": "mhc.pt"}


def measured(name: str) -> md.Analysis:
    """One example on a batch of the standard library's text, the same for all of them."""
    model = load_checkpoint(ROOT / "examples" / name)
    with torch.no_grad(), md.capture(model) as capture:
        model(sample_ids())
    trace = capture.trace(inputs="standard library text")
    return md.analyze(replace(trace, source=Source(path=f"examples/{name}", format="model")))


if __name__ == "__main__":
    analyses = [measured(name) for name in EXAMPLES.values()]
    md.report(analyses, ROOT / "docs" / "gains.png", labels=list(EXAMPLES))
