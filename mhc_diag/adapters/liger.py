"""Liger's ``LigerMHC``, which wraps a layer.

Per site: ``phi`` [n*C, n^2+2n], which is DeepSeek's ``fn`` transposed, ``b`` [n^2+2n], packed
pre | post | res, and the scalars ``alpha_pre``, ``alpha_post``, ``alpha_res``. The Sinkhorn is
DeepSeek's, the orientation is not: ``x_out[o] = sum_i h_res[o, i] x[i]``, stored as M. The forward
returns the streams alone, so H_res is recomputed from the streams that enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes, packed_streams
from mhc_diag.arrays import namespace
from mhc_diag.families.hc import Maps, mhc_maps, packed_logits
from mhc_diag.families.norms import flat, rms
from mhc_diag.families.sinkhorn import variant
from mhc_diag.trace import Array

_ROLES = {name: name for name in ("phi", "b", "alpha_pre", "alpha_post", "alpha_res")}
_ROLE = "(?P<role>" + "|".join(_ROLES) + ")"


def _fits(shapes: Shapes) -> tuple[int, int] | None:
    phi, b = shapes["phi"], shapes["b"]
    n = packed_streams(b[0]) if len(b) == 1 else None
    gates = {shapes[f"alpha_{part}"] for part in ("pre", "post", "res")}
    if n is None or gates != {()} or len(phi) != 2 or phi[1] != b[0] or phi[0] % n:
        return None
    return n, phi[0] // n


def _maps(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    xp = namespace(P["b"])
    weight = P["phi"].T if "phi" in P else None
    scales = xp.stack([P[f"alpha_{part}"] for part in ("pre", "post", "res")])
    x_hat = None if x is None else rms(flat(x), settings["rms_eps"])
    logits = packed_logits(x_hat, weight=weight, bias=P["b"], scales=scales, n=n)
    sinkhorn = variant(
        "deepseek", iterations=settings["sinkhorn_iters"], eps=settings["sinkhorn_eps"]
    )
    pre_eps, post_gain = settings["pre_eps"], settings["post_mult"]
    return mhc_maps(logits, sinkhorn, pre_eps=pre_eps, post_gain=post_gain)


def _observe(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    return Observation(x=args[0])


def _setting(attribute: str, default: Any, about: str, **special: Any) -> SettingSpec:
    return SettingSpec(
        default=default,
        from_module=lambda module: getattr(module, attribute, None),
        about=about,
        minimum=1 if attribute == "tmax" else 0,
        **special,
    )


LIGER_MHC = Adapter(
    name="liger_mhc",
    title="Liger Kernel LigerMHC",
    library="Liger-Kernel ead96b61, formulas and orientation as its source and reference have them",
    family="mhc",
    stored="M",
    roles=_ROLES,
    patterns=(
        r"(?P<site>(?:(?:.*?\.)?(?:layers|blocks|h)\.(?P<layer>\d+)\.)?"
        r"(?:.*?(?P<sub>attn|attention|mlp|ffn|ff)[^.]*|.+))\." + _ROLE,
        "(?P<site>)" + _ROLE,  # the module saved by itself
    ),
    fits=_fits,
    maps=_maps,
    dynamic_roles=frozenset({"phi"}),
    siblings=(r"(?:.+\.)?layer\.[^0-9].*",),  # the wrapped layer
    settings={
        "sinkhorn_iters": _setting("tmax", 20, "Sinkhorn-Knopp iterations"),
        "sinkhorn_eps": _setting("sinkhorn_eps", 1e-6, "floor after softmax, in denominators"),
        "rms_eps": _setting("rms_eps", 1e-6, "eps of the stream norm", dynamic_only=True),
        "pre_eps": _setting("pre_eps", 0.0, "added to H_pre"),
        "post_mult": _setting("post_mult", 2.0, "H_post is this times the sigmoid"),
    },
    classes=("LigerMHC",),
    observe=_observe,
)
