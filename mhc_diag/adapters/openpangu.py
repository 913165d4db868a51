"""openPangu 2.0, from its parameters: ``attn_mhc_module`` and ``mlp_mhc_module``.

Per site: ``phi.weight`` [(2+n)n, n*C], ``branch_alpha`` [3], ``branch_beta`` [(2+n)n], packed
pre | post | res, and ``norm_gamma`` [n*C]; DeepSeek's Sinkhorn. ``mhc_post`` sums
``h_res.unsqueeze(-1) * streams.unsqueeze(-2)`` over the source axis: the stored matrix is M^T.

Two limits. The modules have no forward: their methods are called one by one and no hook sees them,
so a running model needs a tap on a module of one's own that hands h_res out. And where a layer has
``block_post_layernorm``, the streams are normalised between two sites by a factor that depends on
the token: there the product of matrices is not the whole residual map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mhc_diag.adapters.adapter import Adapter, SettingSpec, Shapes, packed_streams
from mhc_diag.families.hc import Maps, mhc_maps, packed_logits
from mhc_diag.families.norms import flat, rms
from mhc_diag.families.sinkhorn import variant
from mhc_diag.trace import Array

_ROLES = {
    "phi.weight": "weight",
    "branch_beta": "bias",
    "branch_alpha": "scales",
    "norm_gamma": "gamma",
}
_SITE = r"(?P<site>(?:.+\.)?layers\.(?P<layer>\d+)\.(?P<sub>attn|mlp)_mhc_module)"
_ROLE = r"\.(?P<role>phi\.weight|branch_alpha|branch_beta|norm_gamma)"


def _fits(shapes: Shapes) -> tuple[int, int] | None:
    weight, bias = shapes["weight"], shapes["bias"]
    n = packed_streams(bias[0]) if len(bias) == 1 else None
    if n is None or shapes["scales"] != (3,) or weight != (bias[0], *shapes["gamma"]):
        return None
    return (n, weight[1] // n) if weight[1] % n == 0 else None


def _maps(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    x_hat = None if x is None else rms(flat(x), settings["rms_norm_eps"], P["gamma"])
    logits = packed_logits(x_hat, weight=P.get("weight"), bias=P["bias"], scales=P["scales"], n=n)
    sinkhorn = variant("deepseek", iterations=settings["sinkhorn_iters"], eps=settings["eps"])
    return mhc_maps(logits, sinkhorn, pre_eps=settings["eps"])


OPENPANGU_V2 = Adapter(
    name="openpangu_v2",
    title="openPangu 2.0, parameters only (live: a tap); products leave out block_post_layernorm",
    library="openPangu-2.0 as its serving plugin computes it; read, not run",
    family="mhc",
    stored="M^T",
    roles=_ROLES,
    patterns=(_SITE + _ROLE,),
    fits=_fits,
    maps=_maps,
    dynamic_roles=frozenset({"weight", "gamma"}),
    settings={
        "sinkhorn_iters": SettingSpec(
            default=20,
            config_keys=("mhc_recur_norm",),
            about="Sinkhorn-Knopp iterations",
            minimum=1,
        ),
        "eps": SettingSpec(
            default=1e-6, about="floor after softmax, and in every denominator", minimum=0
        ),
        "rms_norm_eps": SettingSpec(
            default=1e-6,
            config_keys=("rms_norm_eps",),
            about="eps of the stream norm",
            minimum=0,
            dynamic_only=True,
        ),
    },
    siblings=(r"(?:.+\.)?merge_mhc_module\..+",),
    layer_count_key="num_hidden_layers",
)
