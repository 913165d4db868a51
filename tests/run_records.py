"""A writer of small runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mhc_diag.runs.store import RunWriter
from mhc_diag.trace import Site

MODEL = {"adapter": "zoo_hc", "family": "hc", "width": 32}
GAIN = "composite.forward.amax.mean"


def sites(count: int = 3) -> tuple[Site, ...]:
    return tuple(
        Site(index=i, chain="main", name=f"blocks.{i}.hc_attn", layer=i, sublayer="attn")
        for i in range(count)
    )


def writer(path: Path, **changes: Any) -> RunWriter:
    return RunWriter(path, **{"sites": sites(), "model": MODEL, "ids": [GAIN], **changes})


def row(*numbers: float) -> dict[str, Any]:
    return {GAIN: np.ma.MaskedArray(numbers, mask=False)}
