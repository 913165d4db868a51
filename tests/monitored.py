"""A tiny model to watch, and what a capture of the same passes reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import mhc_diag as md
from mhc_diag.metrics import measure
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
