"""GPT checkpoints of the mhc-lite family: ``transformer.h.{i}.hc_attn`` and ``.hc_mlp``.

Checked against github.com/FFTYYY/mhc-lite at ea19775. The norm runs over all n*C features and its
output feeds one projection for the whole matrix (the package it descends from projects stream by
stream); the hc form of the family is the package's own and is read by that adapter. Both
forms mix with ``einsum('... s t, ... s d -> ... t d')``, so the stored matrix is M^T.

mhc: ``dynamic_alpha_fn`` [n*C, n(1+n)] interleaves, per source stream, its entry of H_pre and its n
entries of R; Sinkhorn in the log domain, columns first. mhc-lite: ``static_alpha`` [n + n!] holds
n logits of H_pre, then one logit per permutation.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import factorial
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes
from mhc_diag.adapters.lucidrains import (
    BRANCH_COPIES,
    DYNAMIC_ROLES,
    MHC_V1,
    site_pattern,
)
from mhc_diag.arrays import namespace
from mhc_diag.families.hc import Logits, Maps, dynamic, mhc_lite_maps, mhc_maps
from mhc_diag.families.norms import flat, unit_length
from mhc_diag.families.sinkhorn import variant
from mhc_diag.trace import Array

_ROLES = MHC_V1.roles


def _fits_mhc(shapes: Shapes) -> tuple[int, int] | None:
    if len(shapes["gamma"]) != 1:
        return None
    static, width = shapes["static_alpha"], shapes["gamma"][0]
    if len(static) != 2 or static[1] != static[0] + 1 or width % static[0]:
        return None
    n = static[0]
    wanted = shapes["dynamic_alpha"] == (width, n * (n + 1)) and shapes["dynamic_beta"] == (
        width,
        n,
    )
    return (n, width // n) if wanted else None


def _fits_lite(shapes: Shapes) -> tuple[int, int] | None:
    if len(shapes["gamma"]) != 1:
        return None
    static, beta, width = shapes["static_alpha"], shapes["static_beta"], shapes["gamma"][0]
    if len(static) != 1 or len(beta) != 1:
        return None
    n = beta[0]
    wanted = (
        n <= 8 and static == (n + factorial(n),) and shapes["dynamic_alpha"] == (width, static[0])
    )
    return (n, width // n) if wanted and width % n == 0 else None


def _x_hat(P: Mapping[str, Array], x: Array | None) -> Array | None:
    return None if x is None else unit_length(flat(x), P["gamma"])


def _mhc(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    xp = namespace(P["static_alpha"])
    x_hat = _x_hat(P, x)
    pre, res = P["static_alpha"][:, 0], P["static_alpha"][:, 1:]
    if x_hat is not None:
        moved = x_hat @ P["dynamic_alpha"]
        moved = xp.reshape(moved, (*moved.shape[:-1], n, n + 1))
        pre = moved[..., 0] * P["pre_scale"] + pre
        res = moved[..., 1:] * P["res_scale"] + res
    post = dynamic(x_hat, P.get("dynamic_beta"), P["post_scale"], P["static_beta"])
    sinkhorn = variant("log-columns-first", iterations=settings["sinkhorn_iters"])
    return mhc_maps(Logits(pre=pre, post=post, res=res), sinkhorn)


def lite_logits(P: Mapping[str, Array], x: Array | None, n: int) -> Logits:
    """Logits of the forms whose ``static_alpha`` is a vector: n of H_pre, the rest of H_res."""
    x_hat = _x_hat(P, x)
    pre, res = P["static_alpha"][:n], P["static_alpha"][n:]
    if x_hat is not None:
        moved = x_hat @ P["dynamic_alpha"]
        pre = moved[..., :n] * P["pre_scale"] + pre
        res = moved[..., n:] * P["res_scale"] + res
    post = dynamic(x_hat, P.get("dynamic_beta"), P["post_scale"], P["static_beta"])
    return Logits(pre=pre, post=post, res=res)


def _lite(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    return mhc_lite_maps(lite_logits(P, x, n), n)


def _observe(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    """Streams from the input of ``norm``, which is flat here: [..., n*C]."""
    return Observation(x=args[0].unflatten(-1, (n, -1)))


def _adapter(name: str, title: str, **special: Any) -> Adapter:
    return Adapter(
        name=name,
        title=title,
        library="github.com/FFTYYY/mhc-lite at ea19775",
        stored="M^T",
        roles=_ROLES,
        patterns=(site_pattern(_ROLES),),
        dynamic_roles=DYNAMIC_ROLES,
        siblings=BRANCH_COPIES,
        layer_count_key="n_layer",
        hook_on="norm",
        observe=_observe,
        computes_in="parameters",
        **special,
    )


GPT_MHC = _adapter(
    "gpt_mhc",
    "GPT checkpoints of the mhc-lite family, mhc form",
    family="mhc",
    fits=_fits_mhc,
    maps=_mhc,
    settings={
        "sinkhorn_iters": SettingSpec(
            default=20,
            config_keys=("sinkhorn_iters",),
            from_module=lambda module: getattr(module, "sinkhorn_iters", None),
            about="Sinkhorn-Knopp iterations",
            minimum=1,
        )
    },
    classes=("ManifoldConstrainedHyperConnections", "MHCAnalysis"),
)
GPT_MHC_LITE = _adapter(
    "gpt_mhc_lite",
    "GPT checkpoints of the mhc-lite family, mhc-lite form",
    family="mhc-lite",
    fits=_fits_lite,
    maps=_lite,
    classes=("MHCLite", "KromHC"),  # with two streams the two are one
)
