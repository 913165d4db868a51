"""Hooks on a model: every removal is promised before the next hook is attached.

A model compiled by torch runs eagerly while hooks are on it, so that hooks that come after warm-up
still see every site, and no graph is made, broken or lost for their sake.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from mhc_diag.observing import Observer
from mhc_diag.recording import Recording, is_recomputing


def attach(
    model: Any, observers: Sequence[Observer], recording: Recording, *, compiled: bool = False
) -> ExitStack:
    """Hook ``model`` so that ``recording`` sees every firing; close the result to remove all hooks.

    Args:
        model: the nn.Module that contains the sites.
        observers: one per site.
        recording: what is told of passes and firings.
        compiled: whether torch compiled something around the model that the model does not show.
    """
    with ExitStack() as promised:
        if compiled or _is_compiled(model):
            import torch

            promised.enter_context(torch.compiler.set_stance("force_eager"))
        for module in _callers(model, observers):
            _hook_caller(promised, module, recording)
        for observer in observers:
            if not observer.site.missing:
                _hook_site(promised, observer, recording)
        for module in _merges(model, observers):
            _hook_merge(promised, module, recording)
        return promised.pop_all()


def _callers(model: Any, observers: Sequence[Observer]) -> list[Any]:
    """Modules that contain a site: the outermost of them that runs delimits a forward pass."""
    sites = {id(observer.site.module) for observer in observers}
    named = dict(model.named_modules(remove_duplicate=False))
    above: dict[int, Any] = {}
    for name, module in named.items():
        if id(module) in sites:
            parts = name.split(".") if name else []
            for depth in range(len(parts)):
                caller = named[".".join(parts[:depth])]
                above[id(caller)] = caller
    return [caller for key, caller in above.items() if key not in sites]


def _merges(model: Any, observers: Sequence[Observer]) -> list[Any]:
    names = {merge for one in observers if one.site.adapter for merge in one.site.adapter.merges}
    sites = {id(observer.site.module) for observer in observers}
    return [
        module
        for module in model.modules()
        if id(module) not in sites and any(cls.__name__ in names for cls in type(module).__mro__)
    ]


def _hook_caller(promised: ExitStack, module: Any, recording: Recording) -> None:
    for hook in (
        module.register_forward_pre_hook(recording.enter, with_kwargs=True),
        module.register_forward_hook(recording.complete),
        module.register_forward_hook(recording.leave, always_call=True),
    ):
        promised.callback(hook.remove)


def _hook_site(promised: ExitStack, observer: Observer, recording: Recording) -> None:
    def seen(module: Any, args: tuple[Any, ...], output: Any) -> None:
        if not is_recomputing():
            recording.add(observer, args, output)

    # FSDP takes the parameters away in a hook of its own: where it wraps the site, be before it.
    first = next(observer.site.module.parameters(), None)
    sharded = hasattr(first, "device_mesh")
    hook = observer.site.hooked.register_forward_hook(seen, prepend=sharded)
    promised.callback(hook.remove)


def _hook_merge(promised: ExitStack, module: Any, recording: Recording) -> None:
    def merging(module: Any, args: tuple[Any, ...]) -> None:
        if args and not is_recomputing():
            recording.close_last(args[0])

    promised.callback(module.register_forward_pre_hook(merging).remove)


def _is_compiled(model: Any) -> bool:
    """Whether torch.compile stands on the model, around it or on a part of it."""
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
