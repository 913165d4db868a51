"""The package ``hyper-connections`` (lucidrains), and the HC form of GPT code bases built on it.

``width_connection`` mixes with ``einsum('... s t, ... s d -> ... t d')``: out_t is the
sum over s of R[s, t] x_s, so R is stored as M^T. Column 0 of ``static_alpha`` [n, 1+n] and of
``dynamic_alpha_fn`` is H_pre, the rest is R. H_res never leaves the module; the hook sits on the
submodule ``norm``, which sees the streams however the branch is called (``decorate_branch``
bypasses the module's own hooks), and the maps are recomputed from them with the module's own
parameters.

Only one input view and one fraction: ``num_fracs``, ``num_input_views``,
``mix_streams_before_norm``, a custom ``residual_mix_constraint_fn`` and channel-first layouts
need a tap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes
from mhc_diag.arrays import namespace
from mhc_diag.errors import AdapterError
from mhc_diag.families.hc import Logits, Maps, dynamic, hc_maps, mhc_maps
from mhc_diag.families.norms import unit_length
from mhc_diag.families.sinkhorn import Sinkhorn, variant
from mhc_diag.trace import Array

_HC_ROLES = {
    "static_alpha": "static_alpha",
    "dynamic_alpha_fn": "dynamic_alpha",
    "dynamic_alpha_scale": "alpha_scale",
    "static_beta": "static_beta",
    "dynamic_beta_fn": "dynamic_beta",
    "dynamic_beta_scale": "beta_scale",
    "norm.gamma": "gamma",
}
_MHC_ROLES = {
    "static_alpha": "static_alpha",
    "dynamic_alpha_fn": "dynamic_alpha",
    "pre_branch_scale": "pre_scale",
    "residual_scale": "res_scale",
    "static_beta": "static_beta",
    "dynamic_beta_fn": "dynamic_beta",
    "h_post_scale": "post_scale",
    "norm.gamma": "gamma",
}
DYNAMIC_ROLES = frozenset({"dynamic_alpha", "dynamic_beta", "gamma"})
BRANCH_COPIES = (r"(?:.+\.)?branch(?:_\w+)?\..+",)
"""The wrapped branch is listed below the connection too; its weights are nobody's mixing."""


def site_pattern(roles: Mapping[str, str]) -> str:
    """Any module path; block number and sublayer are read from it where it tells them."""
    names = "|".join(role.replace(".", r"\.") for role in roles)
    return (
        r"(?P<site>(?:.*?(?:layers|blocks|h)\.(?P<layer>\d+)\.)?"
        r"(?:.*?(?P<sub>attn|attention|mlp|ffn|ff)[^.]*|.*?))\.?(?P<role>" + names + ")"
    )


def _static_n(shapes: Shapes) -> int | None:
    """n from ``static_alpha`` [n, 1+n]; None for several views, fractions or another form."""
    shape = shapes["static_alpha"]
    return shape[0] if len(shape) == 2 and shape[1] == shape[0] + 1 else None


def _fits_hc(shapes: Shapes) -> tuple[int, int] | None:
    if len(shapes["gamma"]) != 1:
        return None
    n, C = _static_n(shapes), shapes["gamma"][0]
    wanted = (
        n is not None and shapes["dynamic_alpha"] == (C, n + 1) and shapes["dynamic_beta"] == (C,)
    )
    return (n, C) if n is not None and wanted and shapes["static_beta"] == (n,) else None


def _fits_mhc(shapes: Shapes, beta_shape: tuple[int, ...]) -> tuple[int, int] | None:
    if len(shapes["gamma"]) != 1:
        return None
    n, C = _static_n(shapes), shapes["gamma"][0]
    if n is None or len(shapes["dynamic_alpha"]) != 3 or shapes["dynamic_alpha"][1:] != (C, n + 1):
        return None
    return (n, C) if shapes["static_beta"] == (n, *beta_shape) else None


def _hc(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    tanh = bool(settings["tanh"])
    x_hat = None if x is None else unit_length(x, P["gamma"])
    alpha = dynamic(x_hat, P.get("dynamic_alpha"), P["alpha_scale"], P["static_alpha"], tanh=tanh)
    beta = dynamic(x_hat, P.get("dynamic_beta"), P["beta_scale"], P["static_beta"], tanh=tanh)
    return hc_maps(Logits(pre=alpha[..., 0], post=beta, res=alpha[..., 1:]))


def _mhc(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    xp = namespace(P["static_alpha"])
    x_hat = None if x is None else unit_length(x, P["gamma"])
    pre_static, res_static = P["static_alpha"][:, 0], P["static_alpha"][:, 1:]
    beta_static = xp.reshape(P["static_beta"], (n,))
    if x_hat is None:
        logits = Logits(pre=pre_static, post=beta_static, res=res_static)
        return mhc_maps(logits, _sinkhorn(settings))
    proposals = []
    weight = P["dynamic_beta"]
    beta_weight = xp.reshape(weight, (weight.shape[0],))
    for p in range(P["dynamic_alpha"].shape[0]):
        W = P["dynamic_alpha"][p, ...]
        logits = Logits(
            pre=dynamic(x_hat, W[:, 0], P["pre_scale"], pre_static),
            post=dynamic(x_hat, beta_weight, P["post_scale"], beta_static),
            res=dynamic(x_hat, W[:, 1:], P["res_scale"], res_static),
        )
        proposals.append(mhc_maps(logits, _sinkhorn(settings)))
    return _mean_of(proposals)


def _mean_of(proposals: list[Maps]) -> Maps:
    """The library averages H_pre and H_res over proposals; logits are kept where there is one."""
    count = len(proposals)
    return Maps(
        H_pre=sum(maps.H_pre for maps in proposals) / count,
        H_post=proposals[0].H_post,
        H_res=sum(maps.H_res for maps in proposals) / count,
        logits=proposals[0].logits if count == 1 else None,
    )


def _sinkhorn(settings: Mapping[str, Any]) -> Sinkhorn | None:
    iterations = int(settings["sinkhorn_iters"])
    if iterations <= 0 and settings["unconstrained_at_zero"]:
        return None
    return variant(str(settings["sinkhorn"]), iterations=iterations)


def _mhc_v1(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    return _mhc(P, x, n, {**settings, "unconstrained_at_zero": False})


def _mhc_v2(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    return _mhc(P, x, n, {**settings, "unconstrained_at_zero": True})


def _constraint(module: Any) -> tuple[str, int] | None:
    """(variant, iterations) of the module's ``residual_mix_constraint_fn``, which is a partial."""
    constraint = getattr(module, "residual_mix_constraint_fn", None)
    if constraint is None:
        return None
    name = getattr(getattr(constraint, "func", None), "__name__", "")
    known = {
        "sinkhorn_knopps": "lucidrains",
        "log_domain_sinkhorn_knopps": "log-columns-first",
        "triton_sinkhorn": "log-columns-first",
    }
    if name not in known or getattr(module, "maybe_mix_streams", None) is not None:
        what = "mix_streams_before_norm" if name in known else "a custom residual_mix_constraint_fn"
        raise AdapterError(
            "read H_res of hyper-connections' ManifoldConstrainedHyperConnections",
            f"the module was built with {what}",
            "Give a tap for it: md.capture(model, taps={...: md.tap(...)}).",
        )
    return known[name], int(constraint.keywords["iters"])


def observe_norm(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    """Streams from the input of ``norm``: [..., n, C], or [..., n, 1, C] with one fraction."""
    x = args[0]
    return Observation(x=x if x.shape[-2] == n else x.squeeze(-2))


_MHC_SETTINGS = {
    "sinkhorn_iters": SettingSpec(
        default=20,
        config_keys=("sinkhorn_iters",),
        from_module=lambda module: (_constraint(module) or (None, None))[1],
        about="Sinkhorn-Knopp iterations; 0 is unconstrained in mHC v2",
        minimum=0,
    ),
    "sinkhorn": SettingSpec(
        default="lucidrains",
        from_module=lambda module: (_constraint(module) or (None, None))[0],
        about="lucidrains, or log-columns-first for log_domain_sinkhorn",
    ),
}


def _adapter(name: str, title: str, **special: Any) -> Adapter:
    return Adapter(
        name=name,
        title=title,
        library="hyper-connections 0.4.11",
        stored="M^T",
        dynamic_roles=DYNAMIC_ROLES,
        siblings=BRANCH_COPIES,
        vetoes=(r"(?:.+\.)?H_res_logits",),  # a static form of its own; static_alpha is not used
        hook_on="norm",
        observe=observe_norm,
        **special,
    )


HYPER_CONNECTIONS = _adapter(
    "hyper_connections",
    "hyper-connections HyperConnections, and GPT checkpoints in the hc form",
    family="hc",
    roles=_HC_ROLES,
    patterns=(site_pattern(_HC_ROLES),),
    fits=_fits_hc,
    maps=_hc,
    settings={
        "tanh": SettingSpec(
            default=True,
            config_keys=("tanh",),
            from_module=lambda module: type(module.act).__name__ == "Tanh",
            about="whether the dynamic part is tanh-gated",
            dynamic_only=True,
        )
    },
    classes=("HyperConnections",),
    computes_in="parameters",
)
MHC_V1 = _adapter(
    "hyper_connections_mhc",
    "hyper-connections ManifoldConstrainedHyperConnections v1",
    family="mhc",
    roles=_MHC_ROLES,
    patterns=(site_pattern(_MHC_ROLES),),
    fits=lambda shapes: _fits_mhc(shapes, ()),
    maps=_mhc_v1,
    settings=_MHC_SETTINGS,
    classes=("ManifoldConstrainedHyperConnections",),
)
MHC_V2 = _adapter(
    "hyper_connections_mhc_v2",
    "hyper-connections mHCv2.ManifoldConstrainedHyperConnections",
    family="mhc",
    roles=_MHC_ROLES,
    patterns=(site_pattern(_MHC_ROLES),),
    fits=lambda shapes: _fits_mhc(shapes, (1, 1)),
    maps=_mhc_v2,
    settings=_MHC_SETTINGS,
    classes=("ManifoldConstrainedHyperConnections",),
)
