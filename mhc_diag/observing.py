"""One firing of one site: from what the hook sees to the maps of the chosen tokens.

Letters: T tokens of this firing, n streams, C width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mhc_diag.adapters.adapter import Adapter, Observation
from mhc_diag.adapters.modules import LiveSite, parameters_by_role
from mhc_diag.adapters.settings import resolve_settings, with_orientation
from mhc_diag.errors import CaptureError, MhcDiagError, ShapeError
from mhc_diag.families.hc import Maps
from mhc_diag.spread import is_spread, part_here, whole_here
from mhc_diag.trace import Setting


@dataclass(slots=True, kw_only=True)
class Firing:
    """The maps of one firing, for the tokens that are kept."""

    n_seen: int
    """Tokens that passed through the site."""
    M: Any
    """[T, n, n], as applied in orientation, as computed in precision."""
    applied: str
    """dtype of the copy that mixes the streams."""
    x: Any = None
    """[T, n, C] streams entering, kept until the next site shows what became of them."""
    H_pre: Any = None
    H_post: Any = None
    logits: Any = None
    gram: Any = None
    fresh: bool = False
    """Whether all streams entering were the same."""
    error: float | None = None
    """Largest relative remainder of the closure with M, against the next site of the same kind."""
    error_transposed: float | None = None

    @property
    def tolerance(self) -> float:
        """A closure error below this is rounding."""
        import torch

        return 16 * float(torch.finfo(getattr(torch, self.applied)).eps)


class Observer:
    """Reads one site of a live model.

    Args:
        site: the module and its adapter or tap.
        given: settings from the user.
    """

    def __init__(self, site: LiveSite, given: Mapping[str, Any]) -> None:
        self.site = site
        self.settings: dict[str, Setting] = {}
        if site.adapter is not None and not site.missing:
            adapter, rest, turned = with_orientation(site.adapter, given)
            self.site = replace(site, adapter=adapter)
            found = resolve_settings(adapter, config={}, given=rest, module=site.module)
            self.settings = found | turned

    @cached_property
    def stored(self) -> Any:
        """M or M^T, as the adapter or the tap says."""
        owner = self.site.tap or self.site.adapter
        assert owner is not None
        return owner.stored

    def observe(self, args: tuple[Any, ...], output: Any) -> Observation:
        """The library's own tensors, flattened to tokens.

        Raises:
            CaptureError: the tap or adapter could not read this module's output.
        """
        try:
            if not is_spread((args, output)):
                return self._observe(args, output)
            seen = self._observe(part_here(args), part_here(output))
        except MhcDiagError:
            raise
        except Exception as error:
            raise CaptureError(
                f"read H_res at {self.site.name!r}",
                f"{type(error).__name__}: {error}",
                "Check the tap's function, or whether the adapter knows this library's version.",
            ) from error
        tensors = [one for one in (seen.x, seen.H_res, seen.H_post) if one is not None]
        if is_spread(tensors) or not seen.is_consistent:
            raise CaptureError(
                f"read H_res at {self.site.name!r}",
                "its tensors are spread over ranks along streams or features",
                "Keep streams and H_res whole on every rank, or spread them along tokens.",
            )
        return seen

    def _observe(self, args: tuple[Any, ...], output: Any) -> Observation:
        if self.site.tap is not None:
            return self._through_tap(args, output)
        adapter = self.site.adapter
        assert adapter is not None
        assert adapter.observe is not None
        assert self.site.n is not None
        return adapter.observe(self.site.module, args, output, self.site.n)

    def fire(self, seen: Observation, rows: Any, *, matrices_only: bool = False) -> Firing:
        """Maps of the tokens ``rows`` (an index tensor, or None for all).

        Args:
            seen: what the hook saw.
            rows: index tensor, or None.
            matrices_only: keep M alone, and compute nothing where the library hands it out.
        """
        import torch

        if matrices_only and seen.H_res is not None:
            x, H_res = seen.x, _rows(seen.H_res, rows, inner=2)
            M = self._turned(H_res).clone()
            return Firing(n_seen=seen.n_tokens, M=M, applied=self._applied(H_res, x))

        x = _rows(seen.x, rows, inner=2)
        with torch.no_grad():  # autocast stays as the library has it
            maps = self._maps(x)
            H_res = (
                maps.H_res
                if seen.H_res is None and maps is not None
                else _rows(seen.H_res, rows, inner=2)
            )
            H_post = _rows(seen.H_post, rows, inner=1)
            if H_post is None and maps is not None:
                H_post = maps.H_post
        if matrices_only:
            M = self._turned(H_res).clone()
            return Firing(n_seen=seen.n_tokens, M=M, applied=self._applied(H_res, x))
        return Firing(
            n_seen=seen.n_tokens,
            M=self._turned(H_res).clone(),
            applied=self._applied(H_res, x),
            x=None if x is None else x.clone(),
            fresh=x is not None and bool((x == x[:, :1]).all()),
            H_pre=None if maps is None else maps.H_pre,
            H_post=None if H_post is None else H_post.clone(),
            logits=None if maps is None or maps.logits is None else self._turned(maps.logits),
        )

    def _turned(self, stored: Any) -> Any:
        """[..., n, n] as stored -> as applied; the one place where live matrices are transposed."""
        return stored.mT if self.stored == "M^T" else stored

    def _applied(self, H_res: Any, x: Any) -> str:
        """The dtype of the copy that mixes: autocast rounds what goes into a product."""
        import torch

        device = H_res.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        else:
            adapter = self.site.adapter
            in_streams = adapter is not None and adapter.applies_in == "streams"
            dtype = x.dtype if in_streams else H_res.dtype
        return str(dtype).removeprefix("torch.")

    def _maps(self, x: Any) -> Maps | None:
        """The family's formula on the module's own parameters; None for a tap."""
        adapter = self.site.adapter
        if adapter is None or x is None:
            return None
        P = {
            role: _in(adapter, whole_here(p.detach()))
            for role, p in parameters_by_role(adapter, self.site.module).items()
        }
        x = _in(adapter, x)
        assert self.site.n is not None
        values = {name: setting.value for name, setting in self.settings.items()}
        return adapter.maps(P, x, self.site.n, values)

    def _through_tap(self, args: tuple[Any, ...], output: Any) -> Observation:
        tap, module = self.site.tap, self.site.module
        assert tap is not None
        H_res = tap.H_res(module, args, output)
        shape = tuple(H_res.shape)
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ShapeError(
                f"the tap on {self.site.name!r}",
                f"H_res has shape {list(shape)}",
                "Return [..., n, n], one matrix per token; a vector [..., n] is H_pre or H_post.",
            )
        n = shape[-1]
        x = tap.streams(module, args, output) if tap.streams else None
        post = tap.H_post(module, args, output) if tap.H_post else None
        return Observation(
            x=None if x is None else x.reshape(-1, n, x.shape[-1]),
            H_res=H_res.reshape(-1, n, n),
            H_post=None if post is None else post.reshape(-1, n),
        )


def _in(adapter: Adapter, tensor: Any) -> Any:
    """``tensor`` in the precision in which the module computes H_res."""
    import torch

    narrow = tensor.dtype.itemsize < torch.float32.itemsize
    return tensor.to(torch.float32) if adapter.computes_in == "float32" and narrow else tensor


def _rows(tensor: Any, rows: Any, *, inner: int) -> Any:
    """[T, ...]: the tokens that are kept, detached; the last ``inner`` axes are no tokens.

    Tokens are picked before anything is flattened: a layout that cannot be flattened in place would
    be copied whole.
    """
    if tensor is None:
        return None
    tensor = tensor.detach()
    lead = tensor.shape[: tensor.ndim - inner]
    if rows is None:
        return tensor.reshape(-1, *tensor.shape[tensor.ndim - inner :])
    import torch

    return tensor[torch.unravel_index(rows.to(tensor.device), lead)]
