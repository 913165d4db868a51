"""Our own reference models, ``blocks.{i}.hc_attn`` and ``.hc_mlp`` (mhc_diag.zoo.models).

H_res is stored as M (row = destination) and handed out by the connection's forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import factorial
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes
from mhc_diag.arrays import namespace
from mhc_diag.families.hc import (
    Logits,
    Maps,
    dynamic,
    hc_maps,
    mhc_lite_maps,
    mhc_maps,
    packed_logits,
)
from mhc_diag.families.norms import flat, rms
from mhc_diag.families.sinkhorn import variant
from mhc_diag.trace import Array

_HC_ROLES = {
    name: name.replace(".", "_")
    for name in (
        "norm.weight",
        "static_res",
        "static_pre",
        "static_post",
        "dynamic_res",
        "dynamic_pre",
        "dynamic_post",
        "scale_res",
        "scale_pre",
        "scale_post",
    )
}
_PACKED_ROLES = {
    name: name.replace(".", "_")
    for name in ("norm.weight", "phi.weight", "bias", "alpha_pre", "alpha_post", "alpha_res")
}
_NORM_EPS = 1e-6


def _pattern(roles: Mapping[str, str]) -> tuple[str, ...]:
    names = "|".join(role.replace(".", r"\.") for role in roles)
    return (
        r"(?P<site>(?:.+\.)?blocks\.(?P<layer>\d+)\.hc_(?P<sub>attn|mlp))\.(?P<role>" + names + ")",
    )


def _fits_hc(shapes: Shapes) -> tuple[int, int] | None:
    res, dynamic_res = shapes["static_res"], shapes["dynamic_res"]
    if len(res) != 2 or res[0] != res[1] or len(dynamic_res) != 2 or dynamic_res[1] != res[0]:
        return None
    return res[0], dynamic_res[0]


def _fits_packed(shapes: Shapes, *, matrices: bool) -> tuple[int, int] | None:
    rows, width = shapes["phi_weight"] if len(shapes["phi_weight"]) == 2 else (0, 0)
    if shapes["bias"] != (rows,) or shapes["norm_weight"] != (width,):
        return None
    for n in range(1, 9):
        if rows == 2 * n + (n * n if matrices else factorial(n)) and width % n == 0:
            return n, width // n
    return None


def _hc(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    xp = namespace(P["static_res"])
    x_hat = None if x is None else rms(x, _NORM_EPS, P["norm_weight"])
    # Source stream j yields column j of H_res: tanh(x_hat_j W)[i] is the weight j -> i.
    by_source = dynamic(x_hat, P.get("dynamic_res"), P["scale_res"], P["static_res"].T, tanh=True)
    return hc_maps(
        Logits(
            pre=dynamic(x_hat, P.get("dynamic_pre"), P["scale_pre"], P["static_pre"], tanh=True),
            post=dynamic(
                x_hat, P.get("dynamic_post"), P["scale_post"], P["static_post"], tanh=True
            ),
            res=xp.matrix_transpose(by_source),
        )
    )


def _packed(P: Mapping[str, Array], x: Array | None, n: int) -> Logits:
    xp = namespace(P["bias"])
    x_hat = None if x is None else rms(flat(x), _NORM_EPS, P["norm_weight"])
    scales = xp.stack([xp.reshape(P[f"alpha_{part}"], ()) for part in ("pre", "post", "res")])
    return packed_logits(x_hat, weight=P.get("phi_weight"), bias=P["bias"], scales=scales, n=n)


def _mhc(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    return mhc_maps(_packed(P, x, n), variant("paper", iterations=settings["sinkhorn_iters"]))


def _lite(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    return mhc_lite_maps(_packed(P, x, n), n)


def _observe(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    x, (_, H_res, H_post) = args[0], output
    return Observation(x=x, H_res=H_res, H_post=H_post)


def _adapter(name: str, title: str, roles: Mapping[str, str], **special: Any) -> Adapter:
    return Adapter(
        name=name,
        title=title,
        library="mhc_diag.zoo",
        stored="M",
        roles=roles,
        patterns=_pattern(roles),
        observe=_observe,
        merges=("Merge",),
        layer_count_key="n_blocks",
        **special,
    )


ZOO_HC = _adapter(
    "zoo_hc",
    "mhc_diag.zoo, Hyper-Connections",
    _HC_ROLES,
    family="hc",
    fits=_fits_hc,
    maps=_hc,
    dynamic_roles=frozenset({"dynamic_res", "dynamic_pre", "dynamic_post", "norm_weight"}),
    classes=("HyperConnection",),
)
ZOO_MHC = _adapter(
    "zoo_mhc",
    "mhc_diag.zoo, mHC as in the paper",
    _PACKED_ROLES,
    family="mhc",
    fits=lambda shapes: _fits_packed(shapes, matrices=True),
    maps=_mhc,
    dynamic_roles=frozenset({"phi_weight", "norm_weight"}),
    settings={
        "sinkhorn_iters": SettingSpec(
            default=20,
            config_keys=("sinkhorn_iters",),
            from_module=lambda module: getattr(module, "sinkhorn_iters", None),
            about="Sinkhorn-Knopp iterations",
            minimum=1,
        )
    },
    classes=("ManifoldConnection",),
)
ZOO_MHC_LITE = _adapter(
    "zoo_mhc_lite",
    "mhc_diag.zoo, mHC-lite",
    _PACKED_ROLES,
    family="mhc-lite",
    fits=lambda shapes: _fits_packed(shapes, matrices=False),
    maps=_lite,
    dynamic_roles=frozenset({"phi_weight", "norm_weight"}),
    classes=("PermutationConnection",),
)
