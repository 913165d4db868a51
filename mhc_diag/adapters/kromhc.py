"""KromHC in GPT checkpoints: ``transformer.h.{i}.hc_attn`` and ``.hc_mlp``.

Checked against github.com/wz1119/KromHC at 7b15834. Parameters are those of the mhc-lite form, with
2 log2(n) logits of H_res after the n of H_pre instead of n!: ``static_alpha`` [n + 2 log2 n],
``dynamic_alpha_fn`` [n*C, n + 2 log2 n]. H_res is symmetric, so M^T, which the code applies, is M.
With two streams the two forms are one, in shapes and in arithmetic: the adapter of mhc-lite
takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Shapes
from mhc_diag.adapters.mhc_lite import GPT_MHC_LITE, lite_logits
from mhc_diag.families.hc import Maps
from mhc_diag.families.kronecker import kromhc_maps
from mhc_diag.trace import Array


def _fits(shapes: Shapes) -> tuple[int, int] | None:
    gamma, static, beta = (shapes[role] for role in ("gamma", "static_alpha", "static_beta"))
    if not len(gamma) == len(static) == len(beta) == 1:
        return None
    (n,), (width,) = beta, gamma
    factors = n.bit_length() - 1
    wanted = n == 2**factors >= 4 and static == (n + 2 * factors,) and width % n == 0
    projected = shapes["dynamic_alpha"] == (width, *static)
    return (n, width // n) if wanted and projected else None


def _maps(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    return kromhc_maps(lite_logits(P, x, n))


KROMHC: Adapter = replace(
    GPT_MHC_LITE,
    name="kromhc",
    title="GPT checkpoints of KromHC: Kronecker products of 2 x 2 factors",
    library="github.com/wz1119/KromHC at 7b15834",
    family="kromhc",
    fits=_fits,
    maps=_maps,
    classes=("KromHC",),
)
