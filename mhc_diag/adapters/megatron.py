"""Megatron core: the branches main and dev, which mix the other way round.

Per site of both: ``mapping_proj.weight`` [n^2+2n, n*C], ``bias`` [n^2+2n], packed pre | post | res,
and ``alpha_pre``, ``alpha_post``, ``alpha_res`` [1]; streams run as [S, B, n*C]. main computes
``bmm(h_res, streams)``, so the stored matrix is M; dev computes ``bmm(h_res.transpose(1, 2),
streams)``, M^T, with DeepSeek's Sinkhorn. Nothing in the weights tells the two apart: a file needs
the adapter's name, unless it has what only dev writes (``hc_head_fn``, hybrid layers). A live
module tells: the attribute ``compute_h_eps`` came to dev in the commit that turned the matrix
round, and the output has three entries on main, four on dev.

Both hand h_res out in the dtype of the streams: main computes it in that dtype, dev rounds it.
Layers are numbered as they stand on the rank that holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation, SettingSpec, Shapes, packed_streams
from mhc_diag.arrays import namespace
from mhc_diag.errors import AdapterError
from mhc_diag.families.hc import Maps, mhc_maps, packed_logits
from mhc_diag.families.norms import flat, over_rms
from mhc_diag.families.sinkhorn import variant
from mhc_diag.trace import Array

_ROLES = {
    "mapping_proj.weight": "weight",
    "bias": "bias",
    "alpha_pre": "alpha_pre",
    "alpha_post": "alpha_post",
    "alpha_res": "alpha_res",
}
_ROLE = r"\.(?P<role>mapping_proj\.weight|bias|alpha_pre|alpha_post|alpha_res)"
_HALF = r"(?P<sub>self_attention|mlp)_hyper_connection"
_HEAD = r"(?:.+\.)?hc_head_(?:fn|base|scale)"
_MTP = r"(?P<site>(?:.+\.)?(?P<aux>mtp\.layers\.\d+)\."
_BLOCK = r"(?P<site>(?:.+\.)?layers\.(?P<layer>\d+)\."
_HYBRID = r"(?:.+\.)?layers\.\d+\.hyper_connection\.bias"
_DEV_EPS = 1e-6


def _fits(shapes: Shapes) -> tuple[int, int] | None:
    weight, bias = shapes["weight"], shapes["bias"]
    n = packed_streams(bias[0]) if len(bias) == 1 else None
    gates = {shapes[f"alpha_{part}"] for part in ("pre", "post", "res")}
    if n is None or gates != {(1,)} or len(weight) != 2 or weight[0] != bias[0] or weight[1] % n:
        return None
    return n, weight[1] // n


def _maps(
    P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any], *, name: str
) -> Maps:
    xp = namespace(P["bias"])
    scales = xp.stack([xp.reshape(P[f"alpha_{part}"], ()) for part in ("pre", "post", "res")])
    x_hat = None if x is None else over_rms(flat(x), settings["norm_eps"])
    logits = packed_logits(x_hat, weight=P.get("weight"), bias=P["bias"], scales=scales, n=n)
    sinkhorn = variant(name, iterations=settings["sinkhorn_iters"])
    return mhc_maps(logits, sinkhorn, pre_eps=_DEV_EPS if name == "deepseek" else 0.0)


def _main_maps(
    P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]
) -> Maps:
    return _maps(P, x, n, settings, name="megatron")


def _dev_maps(P: Mapping[str, Array], x: Array | None, n: int, settings: Mapping[str, Any]) -> Maps:
    return _maps(P, x, n, settings, name="deepseek")


def _is_dev(module: Any) -> bool:
    return hasattr(module, "compute_h_eps")


def _is_main(module: Any) -> bool:
    of_main = hasattr(getattr(module, "config", None), "mhc_num_residual_streams")
    return of_main and not _is_dev(module)


def _observer(branch: str, entries: int) -> Callable[..., Observation]:
    """What a module of ``branch`` shows: tokens in the order of [B, S], as everywhere else."""

    def observe(module: Any, args: tuple[Any, ...], output: Any, n: int) -> Observation:
        if len(output) != entries:
            raise AdapterError(
                f"read {type(module).__name__} as Megatron core {branch}",
                f"its output has {len(output)} entries, on {branch} it has {entries}",
                "Leave the adapter out, or give a tap that says stored='M' or stored='M^T'.",
            )
        streams, H_res, H_post = args[0], output[1], output[2]
        x = streams.reshape(*streams.shape[:-1], n, -1)
        return Observation(
            x=x.transpose(0, 1), H_res=H_res.transpose(0, 1), H_post=H_post.transpose(0, 1)
        )

    return observe


_SETTINGS = {
    "sinkhorn_iters": SettingSpec(
        default=20,
        config_keys=("mhc_sinkhorn_iterations",),
        from_module=lambda module: getattr(module, "sinkhorn_iterations", None),
        about="Sinkhorn-Knopp iterations",
        minimum=1,
    ),
    "norm_eps": SettingSpec(
        default=1e-6,
        from_module=lambda module: getattr(module, "norm_eps", None),
        about="added to the root mean square of the streams",
        minimum=0,
        dynamic_only=True,
    ),
}


def _adapter(name: str, title: str, **special: Any) -> Adapter:
    return Adapter(
        name=name,
        title=title,
        family="mhc",
        roles=_ROLES,
        fits=_fits,
        dynamic_roles=frozenset({"weight"}),
        settings=_SETTINGS,
        classes=("HyperConnectionModule",),
        applies_in="streams",
        **special,
    )


MEGATRON_MAIN = _adapter(
    "megatron_main",
    "Megatron core, branch main (enable_mhc_connections)",
    library="Megatron-LM d98e8a64 (main), formulas and orientation as its source has them",
    stored="M",
    patterns=(_BLOCK + _HALF + ")" + _ROLE,),
    maps=_main_maps,
    vetoes=(_HEAD, _HYBRID),  # only dev writes them
    is_own=_is_main,
    observe=_observer("main", 3),
    computes_in="parameters",
)
MEGATRON_DEV = _adapter(
    "megatron_dev",
    "Megatron core, branch dev (enable_hyper_connections), hybrid models too",
    library="Megatron-LM d48bd6be (dev), formulas and orientation as its source has them",
    stored="M^T",
    patterns=(
        _MTP + r"(?:.+\.)?" + _HALF + ")" + _ROLE,
        _MTP + r"(?:.+\.)?hyper_connection)" + _ROLE,
        _BLOCK + _HALF + ")" + _ROLE,
        _BLOCK + r"hyper_connection)" + _ROLE,
    ),
    maps=_dev_maps,
    siblings=(_HEAD,),
    is_own=_is_dev,
    observe=_observer("dev", 4),
)
