"""DeepSeek-V4 as torchtitan trains it: ``layers.{i}.hc_attn_pre`` and ``.hc_ffn_pre``.

Read from pull request 3634 at 99222f6 and checked against a restatement of ours. Parameters and
packing are DeepSeek-V4's (``hc_fn`` [(2+n)n, n*C], ``hc_base``, ``hc_scale``); the module returns
(collapsed, post, comb), comb as M^T. Sinkhorn starts from exp without DeepSeek's floor, so sharp
logits give other matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation
from mhc_diag.adapters.deepseek import DEEPSEEK_V4, deepseek_maps
from mhc_diag.families.hc import Maps
from mhc_diag.trace import Array

_ROLE = r"_pre)\.(?P<role>hc_fn|hc_base|hc_scale)"


def _maps(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    return deepseek_maps(P, x, n, settings, sinkhorn="torchtitan")


def _observe(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    return Observation(x=args[0], H_res=output[2], H_post=output[1])


TORCHTITAN: Adapter = replace(
    DEEPSEEK_V4,
    name="torchtitan",
    title="DeepSeek-V4 in torchtitan",
    library="our restatement of torchtitan pull request 3634 at 99222f6",
    roles={"hc_fn": "weight", "hc_base": "bias", "hc_scale": "scales"},
    patterns=(
        r"(?P<site>(?:.+\.)?(?P<aux>mtp_layers\.\d+)\.hc_(?P<sub>attn|ffn)" + _ROLE,
        r"(?P<site>(?:.+\.)?layers\.(?P<layer>\d+)\.hc_(?P<sub>attn|ffn)" + _ROLE,
    ),
    maps=_maps,
    marks=(),
    model_types=(),
    classes=("HcPre",),
    observe=_observe,
    merges=("HcHead",),
    applies_in="computed",
)
