"""Code bases whose streams do not mix, as transformers 5.23 implements them: H_res = I.

Hy4 (independent hyper-connections): ``fn`` [2n, n*C], ``base`` [2n], ``scale`` [2], packed
pre | post; the layer adds ``post * out`` to the streams. Three spellings exist: the module's
(``attn_hc.fn``), the hub's (``hc_attn_layer.hc_pre.hc_fn``), and what save_pretrained writes
(``hc_pre.hc_attn_layer.hc_fn``).

Qwen4-Exp (gated residual): streams are flat, [batch, positions, n*C], stream after stream. The read
is a gate per channel, so there is no H_pre; ``block_inject_weight`` gives H_post. The module that
merges the streams is of the same class, without that weight. Its PLE layers add to the streams
between sites, and there the closure does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes
from mhc_diag.arrays import namespace, sigmoid
from mhc_diag.families.hc import Maps, dynamic
from mhc_diag.families.identity import identity_maps
from mhc_diag.families.norms import flat, rms
from mhc_diag.trace import Array

_LAYER = r"(?P<site>(?:.+\.)?layers\.(?P<layer>\d+)\."
_HY_PATTERNS = (
    _LAYER + r"(?P<sub>attn|ffn)_hc)\.(?P<role>fn|base|scale)",
    _LAYER + r"(?:hc_pre\.)?hc_(?P<sub>attn|mlp)_layer)(?:\.hc_pre)?\.hc_(?P<role>fn|base|scale)",
)
_QWEN_ROLES = {
    "hc_norm.weight": "norm",
    "input_mix_weight_down.weight": "gate_down",
    "input_mix_weight_up.weight": "gate_up",
    "block_inject_weight.weight": "inject",
}
_QWEN_PATTERN = (
    _LAYER
    + r"(?P<sub>attn|mlp)_hyper_connection)\.(?P<role>"
    + "|".join(role.replace(".", r"\.") for role in _QWEN_ROLES)
    + ")"
)


def _fits_hy(shapes: Shapes) -> tuple[int, int] | None:
    weight, bias, scales = shapes["weight"], shapes["bias"], shapes["scales"]
    n, odd = divmod(bias[0], 2) if len(bias) == 1 else (0, 1)
    if odd or scales != (2,) or len(weight) != 2 or weight[0] != bias[0] or weight[1] % n:
        return None
    return n, weight[1] // n


def _hy(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    x_hat = None if x is None else rms(flat(x), settings["rms_norm_eps"])
    weight, bias, scales = P.get("weight"), P["bias"], P["scales"]
    W_pre, W_post = (None, None) if weight is None else (weight[:n, :].T, weight[n:, :].T)
    pre = dynamic(x_hat, W_pre, scales[0], bias[:n])
    post = dynamic(x_hat, W_post, scales[1], bias[n:])
    eps = settings["eps"]
    return identity_maps(sigmoid(pre) + eps, settings["magnitude"] * sigmoid(post) + eps)


def _observe_hy(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    return Observation(x=args[0], H_post=output[0])


def _fits_qwen(shapes: Shapes) -> tuple[int, int] | None:
    norm, inject, down, up = (shapes[role] for role in ("norm", "inject", "gate_down", "gate_up"))
    if len(norm) != 1 or len(inject) != 2 or len(down) != 2:
        return None
    n, (width,) = inject[0], norm
    wanted = inject[1] == down[1] == width and up == (width, down[0]) and width % n == 0
    return (n, width // n) if wanted else None


def _qwen(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    xp = namespace(P["norm"])
    static = xp.zeros_like(P["norm"][:n])
    if x is None:
        return identity_maps(None, 2 * sigmoid(static))
    gain = 1 + xp.reshape(P["norm"], (n, -1))
    x_hat = flat(rms(x, settings["rms_norm_eps"], gain))
    return identity_maps(None, 2 * sigmoid(dynamic(x_hat, P["inject"].T, 1 / n, static)))


def _observe_qwen(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    return Observation(x=args[0].unflatten(-1, (n, -1)), H_post=output[2])


def _norm_eps(norm: str) -> SettingSpec:
    return SettingSpec(
        default=1e-6,
        config_keys=("rms_norm_eps",),
        from_module=lambda module: getattr(getattr(module, norm, None), "eps", None),
        about="eps of the stream norm",
        minimum=0,
        dynamic_only=True,
    )


def _adapter(name: str, title: str, **special: Any) -> Adapter:
    return Adapter(
        name=name,
        title=title,
        library="transformers 5.23.0",
        family="identity",
        stored="M",
        layer_count_key="num_hidden_layers",
        applies_in="streams",
        input_dependent=False,
        **special,
    )


HY_V4 = _adapter(
    "hy_v4",
    "Hy4 (transformers hy_v4), independent hyper-connections: H_res is the identity",
    roles={"fn": "weight", "base": "bias", "scale": "scales"},
    patterns=_HY_PATTERNS,
    fits=_fits_hy,
    maps=_hy,
    dynamic_roles=frozenset({"weight"}),
    settings={
        "eps": SettingSpec(
            default=1e-6,
            config_keys=("hc_eps",),
            from_module=lambda module: getattr(module, "hc_eps", None),
            about="added to H_pre and H_post",
            minimum=0,
        ),
        "magnitude": SettingSpec(
            default=2.0,
            config_keys=("hc_magnitude",),
            from_module=lambda module: getattr(module, "hc_post_magnitude", None),
            about="factor before the sigmoid of H_post",
            minimum=0,
        ),
        "rms_norm_eps": _norm_eps("input_norm"),
    },
    model_types=("hy_v4",),
    siblings=(r"(?:.+\.)?hc_head\.hc_(?:head_)?(?:fn|base|scale)",),
    classes=("HYV4HyperConnection",),
    observe=_observe_hy,
    merges=("HYV4HyperHead",),
)
QWEN4_EXP = _adapter(
    "qwen4_exp",
    "Qwen4-Exp (transformers qwen4_exp), gated residual: H_res is the identity",
    roles=_QWEN_ROLES,
    patterns=(_QWEN_PATTERN,),
    fits=_fits_qwen,
    maps=_qwen,
    dynamic_roles=frozenset({"gate_down", "gate_up", "inject"}),
    settings={"rms_norm_eps": _norm_eps("hc_norm")},
    model_types=("qwen4_exp", "qwen4_exp_text"),
    siblings=(r"(?:.+\.)?hyper_connection_mixer\..+",),
    classes=("Qwen4ExpTextGatedResidual",),
    observe=_observe_qwen,
    merges=("Qwen4ExpTextGatedResidual",),
    computes_in="parameters",
)
