"""DeepSeek-V4, DeepSeek-V4.1 and GLM-5.3: transformers 5.23, and what shares their parameters.

Per site: ``fn`` [(2+n)n, n*C], ``base`` [(2+n)n], ``scale`` [3], packed pre | post | comb, comb
row-major [source, destination]: the layer applies ``comb.transpose(-1, -2) @ streams``, so the
stored matrix is M^T. Three spellings of the same tensors exist: the module's (``attn_hc.fn``), the
hub's (``hc_attn_fn``), and what save_pretrained writes, which mixes hub sites with a module head.

NeMo Automodel has the same classes, names and arithmetic; its modules return (pre, post, comb)
where transformers returns (post, comb, collapsed). DeepSeek-V4.1 returns that too and differs in
the read alone: what a site computes as H_pre collapses the streams of the next one. No H_pre is
reported for it, rather than one that stands at the wrong site. Both were read, not run, and
checked against a restatement of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes, packed_streams
from mhc_diag.families.hc import Maps, mhc_maps, packed_logits
from mhc_diag.families.norms import flat, rms
from mhc_diag.families.sinkhorn import variant
from mhc_diag.trace import Array

_ROLES = {"fn": "weight", "base": "bias", "scale": "scales"}
_PATTERNS = (
    r"(?P<site>(?:.+\.)?(?P<aux>mtp\.(?:layers\.)?\d+)\.(?P<sub>attn|ffn)_hc)\.(?P<role>fn|base|scale)",
    r"(?P<site>(?:.+\.)?(?P<aux>mtp\.(?:layers\.)?\d+)\.hc_(?P<sub>attn|ffn))_(?P<role>fn|base|scale)",
    r"(?P<site>(?:.+\.)?layers\.(?P<layer>\d+)\.(?P<sub>attn|ffn)_hc)\.(?P<role>fn|base|scale)",
    r"(?P<site>(?:.+\.)?layers\.(?P<layer>\d+)\.hc_(?P<sub>attn|ffn))_(?P<role>fn|base|scale)",
)
_HEAD = r"(?:.+\.)?hc_head[._](?:hc_)?(?:fn|base|scale)"


def _fits(shapes: Shapes) -> tuple[int, int] | None:
    weight, bias, scales = shapes["weight"], shapes["bias"], shapes["scales"]
    n = packed_streams(bias[0]) if len(bias) == 1 else None
    if n is None or scales != (3,) or len(weight) != 2 or weight[0] != bias[0] or weight[1] % n:
        return None
    return n, weight[1] // n


def deepseek_maps(
    P: Mapping[str, Array],
    x: Array | None,
    n: int,
    settings: Mapping[str, Any],
    *,
    sinkhorn: str = "deepseek",
) -> Maps:
    """DeepSeek-V4's maps, with the named variant of Sinkhorn."""
    x_hat = None if x is None else rms(flat(x), settings["rms_norm_eps"])
    logits = packed_logits(x_hat, weight=P.get("weight"), bias=P["bias"], scales=P["scales"], n=n)
    how = variant(sinkhorn, iterations=settings["sinkhorn_iters"], eps=settings["eps"])
    return mhc_maps(logits, how, pre_eps=settings["eps"])


def _single_pass(
    P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]
) -> Maps:
    return replace(deepseek_maps(P, x, n, settings), H_pre=None)


def _observe(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    """(post, comb, collapsed) or (pre, post, comb): a matrix per token has an axis more."""
    x, first = args[0], output[0]
    post, comb = output[:2] if output[1].ndim > first.ndim else output[1:3]
    return Observation(x=x, H_res=comb, H_post=post)


def _module_norm_eps(module: Any) -> Any:
    own = getattr(module, "norm_eps", None)
    return own if own is not None else getattr(getattr(module, "input_norm", None), "eps", None)


_SETTINGS = {
    "sinkhorn_iters": SettingSpec(
        default=20,
        config_keys=("hc_sinkhorn_iters",),
        from_module=lambda module: getattr(module, "hc_sinkhorn_iters", None),
        about="Sinkhorn-Knopp iterations",
        minimum=1,
    ),
    "eps": SettingSpec(
        default=1e-6,
        config_keys=("hc_eps",),
        from_module=lambda module: getattr(module, "hc_eps", None),
        about="floor after softmax, and in every denominator",
        minimum=0,
    ),
    "rms_norm_eps": SettingSpec(
        default=1e-6,
        config_keys=("rms_norm_eps",),
        from_module=_module_norm_eps,
        about="eps of the stream norm",
        minimum=0,
        dynamic_only=True,
    ),
}


def _adapter(name: str, title: str, **special: Any) -> Adapter:
    return Adapter(
        name=name,
        title=title,
        family="mhc",
        stored="M^T",
        roles=_ROLES,
        patterns=_PATTERNS,
        fits=_fits,
        dynamic_roles=frozenset({"weight"}),
        settings=_SETTINGS,
        siblings=(_HEAD,),
        layer_count_key="num_hidden_layers",
        observe=_observe,
        applies_in="streams",
        **special,
    )


DEEPSEEK_V41 = _adapter(
    "deepseek_v41",
    "DeepSeek-V4.1 (single pass: H_pre acts one site later and is not reported)",
    library="our restatement of DeepSeek-V4.1 in transformers and NeMo Automodel",
    maps=_single_pass,
    model_types=("deepseek_v41", "deepseek_v41_text"),
    counter_marks=(_HEAD,),
    classes=("DeepseekV41HyperConnection",),
)
DEEPSEEK_V4 = _adapter(
    "deepseek_v4",
    "DeepSeek-V4 (transformers, hub checkpoints, NeMo Automodel)",
    library="transformers 5.23.0; our restatement of NeMo Automodel",
    maps=deepseek_maps,
    model_types=("deepseek_v4",),
    marks=(_HEAD,),
    classes=("DeepseekV4HyperConnection",),
    merges=("DeepseekV4HyperHead",),
)
GLM5_NEXT = _adapter(
    "glm5_next",
    "GLM-5.3 (transformers glm5_next)",
    library="transformers 5.23.0",
    maps=deepseek_maps,
    model_types=("glm5_next", "glm5_next_text"),
    marks=(r"(?:.+\.)?language_model\.layers\..+",),
    counter_marks=(_HEAD,),
    classes=("Glm5NextTextHyperConnection",),
    merges=("Glm5NextTextHyperHead",),
)
