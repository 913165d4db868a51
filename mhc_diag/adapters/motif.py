"""Motif-3: ``model.layers.{i}.mhc_attn`` and ``.mhc_ffn``.

Per site: ``proj_pre``, ``proj_post`` [n, n*C], ``proj_res`` [n^2, n*C], ``rms_norm.weight`` [n*C],
``bias_pre``, ``bias_post`` [n], ``bias_res`` [n, n] and ``alpha_pre``, ``alpha_post``,
``alpha_res`` [1]. The layer computes ``einsum('ij,jd->id', h_res, streams)``: H_res is stored as M.
H_pre and H_post come from logits clipped to +-10, H_res from logits clipped to +-20; H_post is
(1 + h_post_alpha_end) times the sigmoid, not twice it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes
from mhc_diag.arrays import namespace
from mhc_diag.families.hc import Logits, Maps, dynamic, mhc_maps
from mhc_diag.families.norms import flat, rms
from mhc_diag.families.sinkhorn import variant
from mhc_diag.trace import Array

_PARTS = ("pre", "post", "res")
_ROLES = {
    "rms_norm.weight": "gamma",
    **{f"proj_{part}.weight": f"proj_{part}" for part in _PARTS},
    **{f"bias_{part}": f"bias_{part}" for part in _PARTS},
    **{f"alpha_{part}": f"alpha_{part}" for part in _PARTS},
}
_SITE = r"(?P<site>(?:.+\.)?layers\.(?P<layer>\d+)\.mhc_(?P<sub>attn|ffn))"
_ROLE = (
    r"\.(?P<role>rms_norm\.weight|proj_(?:pre|post|res)\.weight|(?:bias|alpha)_(?:pre|post|res))"
)
_NORM_EPS = 1e-6
_CLIP = 10.0


def _fits(shapes: Shapes) -> tuple[int, int] | None:
    bias, gamma = shapes["bias_pre"], shapes["gamma"]
    if len(bias) != 1 or len(gamma) != 1 or gamma[0] % bias[0]:
        return None
    n, width = bias[0], gamma[0]
    rows = {"pre": n, "post": n, "res": n * n}
    fits = shapes["bias_post"] == (n,) and shapes["bias_res"] == (n, n)
    fits &= all(shapes[f"proj_{part}"] == (rows[part], width) for part in _PARTS)
    fits &= all(shapes[f"alpha_{part}"] == (1,) for part in _PARTS)
    return (n, width // n) if fits else None


def _maps(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    xp = namespace(P["bias_pre"])
    x_hat = None if x is None else rms(flat(x), _NORM_EPS, P["gamma"])

    def logits(part: str, bias: Array) -> Array:
        weight = P.get(f"proj_{part}")
        return dynamic(x_hat, None if weight is None else weight.T, P[f"alpha_{part}"], bias)

    res = logits("res", xp.reshape(P["bias_res"], (n * n,)))
    sinkhorn = variant("motif", iterations=settings["sinkhorn_iters"])
    return mhc_maps(
        Logits(
            pre=xp.clip(logits("pre", P["bias_pre"]), -_CLIP, _CLIP),
            post=xp.clip(logits("post", P["bias_post"]), -_CLIP, _CLIP),
            res=xp.reshape(res, (*res.shape[:-1], n, n)),
        ),
        sinkhorn,
        post_gain=1.0 + settings["h_post_alpha_end"],
    )


def _observe(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    _, H_post, H_res = output
    return Observation(x=args[0], H_res=H_res, H_post=H_post)


def _alpha_end(module: Any) -> float | None:
    coefficient = getattr(module, "h_post_coeff", None)
    return None if coefficient is None else float(coefficient) - 1.0


_SETTINGS = {
    "sinkhorn_iters": SettingSpec(
        default=20,
        config_keys=("mhc_sinkhorn_iters",),
        from_module=lambda module: getattr(module, "sinkhorn_iters", None),
        about="Sinkhorn-Knopp iterations",
        minimum=1,
    ),
    "h_post_alpha_end": SettingSpec(
        default=0.0,
        config_keys=("mhc_h_post_alpha_end",),
        from_module=_alpha_end,
        about="H_post is 1 + this times the sigmoid",
        minimum=-1,
    ),
}

MOTIF3 = Adapter(
    name="motif3",
    title="Motif-3 (transformers-style modules and hub checkpoints)",
    library="Motif-3's published form, from independent ports proved against it; "
    "not run against its own code",
    family="mhc",
    stored="M",
    roles=_ROLES,
    patterns=(_SITE + _ROLE,),
    fits=_fits,
    maps=_maps,
    dynamic_roles=frozenset({"gamma", "proj_pre", "proj_post", "proj_res"}),
    settings=_SETTINGS,
    layer_count_key="num_hidden_layers",
    classes=("MHCLayer",),
    observe=_observe,
)
