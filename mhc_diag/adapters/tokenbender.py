"""The static form of a fork of ``hyper-connections``: logits of H_res and nothing dynamic.

Checked against github.com/tokenbender/mHC-manifold-constrained-hyper-connections at 088310e,
class HyperConnections with ``mhc=True``: ``H_res_logits`` [n, n] through Sinkhorn in the log domain
at temperature 0.05, H_pre and H_post softmax over streams; ``einsum('s t, ... s d -> ... t d')``,
so the stored matrix is M^T. The parameters of the dynamic form are in the file too and not used.

The module's own hook sees the streams; a branch wrapped by ``decorate_branch`` bypasses it and
needs a tap, and so does ``mhc_h_res_proj='orthostochastic'``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes
from mhc_diag.adapters.lucidrains import BRANCH_COPIES, site_pattern
from mhc_diag.arrays import namespace, softmax
from mhc_diag.errors import AdapterError
from mhc_diag.families.hc import Maps
from mhc_diag.families.sinkhorn import project, variant
from mhc_diag.trace import Array

_ROLES = {
    "H_res_logits": "res",
    "H_pre_logits": "pre",
    "H_post_logits": "post",
    "norm.gamma": "gamma",
}
_UNUSED = r"(?:.+\.)?(?:static|dynamic)_(?:alpha|beta)(?:_fn|_scale)?"


def _fits(shapes: Shapes) -> tuple[int, int] | None:
    n = shapes["pre"][0] if len(shapes["pre"]) == 1 else 0
    wanted = shapes["post"] == (n,) and shapes["res"] == (n, n) and len(shapes["gamma"]) == 1
    return (n, shapes["gamma"][0]) if wanted else None


def _maps(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    if settings["projection"] != "sinkhorn":
        raise AdapterError(
            "compute H_res of the static form",
            f"its projection is {settings['projection']!r}",
            "Only sinkhorn is read; give a tap for it: md.capture(model, taps={...: md.tap(...)}).",
        )
    sinkhorn = variant(
        "tokenbender", iterations=settings["sinkhorn_iters"], tau=settings["sinkhorn_tau"]
    )
    xp = namespace(P["res"])
    lead = () if x is None else x.shape[:-2]

    def everywhere(one: Array) -> Array:
        return xp.broadcast_to(one, (*lead, *one.shape))

    return Maps(
        H_pre=everywhere(softmax(P["pre"], axis=-1)),
        H_post=everywhere(softmax(P["post"], axis=-1)),
        H_res=everywhere(project(P["res"], sinkhorn)),
        logits=everywhere(P["res"]),
    )


def _observe(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
    """Streams from [(B n), ..., C], where they are folded into the batch."""
    return Observation(x=args[0].unflatten(0, (-1, n)).movedim(1, -2))


TOKENBENDER = Adapter(
    name="static_mhc",
    title="static mHC: H_res_logits, H_pre_logits, H_post_logits (fork of hyper-connections)",
    library="github.com/tokenbender/mHC-manifold-constrained-hyper-connections at 088310e",
    family="mhc",
    stored="M^T",
    roles=_ROLES,
    patterns=(site_pattern(_ROLES),),
    fits=_fits,
    maps=_maps,
    dynamic_roles=frozenset({"gamma"}),
    settings={
        "sinkhorn_iters": SettingSpec(
            default=10,
            config_keys=("sinkhorn_iters",),
            from_module=lambda module: getattr(module, "sinkhorn_iters", None),
            about="Sinkhorn-Knopp iterations",
            minimum=1,
        ),
        "sinkhorn_tau": SettingSpec(
            default=0.05,
            config_keys=("sinkhorn_tau",),
            from_module=lambda module: getattr(module, "sinkhorn_tau", None),
            about="temperature: logits are divided by it",
            minimum=1e-6,
        ),
        "projection": SettingSpec(
            default="sinkhorn",
            config_keys=("mhc_h_res_proj",),
            from_module=lambda module: getattr(module, "mhc_h_res_proj", None),
            about="only sinkhorn is read",
        ),
    },
    siblings=(*BRANCH_COPIES, _UNUSED),
    layer_count_key="n_layer",
    classes=("HyperConnections",),
    observe=_observe,
    computes_in="parameters",
    input_dependent=False,
)
