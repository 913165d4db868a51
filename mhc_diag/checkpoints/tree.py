"""Finding the weights in what a torch file holds: state dicts at any depth, whole modules.

A checkpoint is a tree of dicts, lists and records of foreign objects, with tensors as leaves. The
weights are chosen by content: the mapping with most tensors that is no optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mhc_diag.checkpoints.inert import MAX_NAME, Opaque, TensorRef

MAX_DEPTH = 100
MAX_NODES = 1_000_000
CONTAINERS = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "model_state",
    "state",
    "net",
    "network",
    "weights",
    "params",
    "ema",
    "ema_model",
    "student",
    "generator",
)
"""Keys under which trainers store the weights, the usual first."""
STEPS = ("step", "iter_num", "global_step", "iteration")
_CONFIGS = (
    "config",
    "model_args",
    "hyper_parameters",
    "model_config",
    "hparams",
    "args",
    "cfg",
    "kwargs",
)
_NOT_WEIGHTS = ("optim", "scheduler", "scaler", "rng", "callbacks", "loops")
_LEVELS = 4


class TreeError(ValueError):
    """A tree too deep or too large to be a checkpoint, or without any tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors of the model, by dotted name inside their container."""

    tensors: Mapping[str, TensorRef]
    notes: tuple[str, ...]
    path: str
    """Keys that lead to the container, dotted; empty at the top."""


class Budget:
    """Values that may still be looked at: shared parts of a tree are visited once per name."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int = 1) -> bool:
        """Take ``count``; whether that many were left."""
        self.left -= count
        return self.left >= 0


def pick_weights(root: Any) -> Weights:
    """Choose the container of the weights and list its tensors.

    Raises:
        TreeError: too deep, too large, or no tensor at all.
    """
    budget = Budget(MAX_NODES)
    path: list[str] = []
    notes: list[str] = []
    node = root
    for level in range(_LEVELS):
        chosen = _container(node, budget, _LEVELS - level)
        if chosen is None:
            break
        key, others = chosen
        path.append(key)
        node = next(child for name, child in children(node) if name == key)
        if others:
            notes.append(f"weights are taken from {'.'.join(path)!r}, not from {', '.join(others)}")
    tensors: dict[str, TensorRef] = {}
    if not _skipped("", node):
        tensors = dict(flatten(node, budget, top=not path))
    if not tensors:
        raise TreeError("it holds no tensors of a model")
    return Weights(tensors=tensors, notes=tuple(notes), path=".".join(path))


def _container(node: Any, budget: Budget, levels: int) -> tuple[str, list[str]] | None:
    """The child that holds the weights, and the rivals; None when ``node`` holds them itself."""
    if levels == 0 or _skipped("", node) or (isinstance(node, Opaque) and is_module(node)):
        return None
    own = 0
    counts: dict[str, int] = {}
    states: set[str] = set()
    for key, child in children(node):
        if isinstance(child, TensorRef):
            own += 1
        elif not _skipped(key, child):
            counts[key] = sum(1 for _ in flatten(child, budget))
            if counts[key] and _leads_to_states(child, budget, levels - 1):
                states.add(key)
    counts = {key: count for key, count in counts.items() if count}
    known = [key for key in counts if key in CONTAINERS]
    candidates = known or (list(states) if len(states) == 1 else [])
    most = max((counts[key] for key in candidates), default=0)
    if most <= own:
        return None
    # A copy such as an EMA may hold a few tensors more: the usual name wins among near equals.
    large = [key for key in candidates if 2 * counts[key] >= most]
    best = min(large, key=lambda key: CONTAINERS.index(key) if key in CONTAINERS else 0)
    rivals = [key for key in counts if key != best]
    if best not in states and not set(rivals) <= {*states, *CONTAINERS}:
        return None  # a tree of modules, one of which happens to be called net or model
    return best, [repr(key) for key in rivals]


def _leads_to_states(node: Any, budget: Budget, levels: int) -> bool:
    """Whether a part is a state dict or a module, or contains one as its weights."""
    return _is_state_dict(node) or _container(node, budget, levels) is not None


def _is_state_dict(node: Any) -> bool:
    """Whether a mapping holds tensors under dotted names, or is a module."""
    if isinstance(node, Opaque):
        return is_module(node)
    if not isinstance(node, dict):
        return False
    return any(
        isinstance(key, str) and "." in key and isinstance(value, TensorRef)
        for key, value in node.items()
    )


def is_module(node: Opaque) -> bool:
    """Whether a record is a pickled torch.nn.Module."""
    return isinstance(node.state.get("_parameters"), dict) and isinstance(
        node.state.get("_modules"), dict
    )


def _skipped(key: str, node: Any) -> bool:
    """Whether a subtree is an optimizer's, a scheduler's or another non-model's state."""
    if isinstance(node, dict) and "param_groups" in node:
        return True
    return key not in CONTAINERS and any(word in key.lower() for word in _NOT_WEIGHTS)


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """Named parts of a dict, list, module or foreign object; nothing for leaves."""
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(key, str):
                yield key, value
            elif type(key) is int and abs(key) < 2**63:
                yield str(key), value
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield str(index), value
    elif isinstance(node, Opaque) and is_module(node):
        yield from _module_parts(node.state)
    elif isinstance(node, Opaque):
        for part in (node.state, node.items, node.elements):
            yield from children(part)


def _module_parts(state: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Parameters, persistent buffers and submodules, in state_dict's order."""
    passing = state.get("_non_persistent_buffers_set")
    dropped = passing if isinstance(passing, list) else []
    yield from children(state["_parameters"])
    for name, buffer in children(state.get("_buffers")):
        if name not in dropped:
            yield name, buffer
    yield from children(state["_modules"])


def flatten(root: Any, budget: Budget, *, top: bool = False) -> Iterator[tuple[str, TensorRef]]:
    """Every tensor below ``root`` with its dotted name; optimizer states and cycles left out.

    Args:
        root: a dict, list, module or foreign object; anything else has no tensors.
        budget: parts that may be visited.
        top: whether ``root`` is the whole file, so that its generator states are left out too.

    Raises:
        TreeError: deeper than MAX_DEPTH, or the budget is spent.
    """
    stack: list[tuple[str, Any, Iterator[tuple[str, Any]]]] = [("", root, children(root))]
    open_nodes = {id(root)}
    while stack:
        prefix, node, parts = stack[-1]
        key, value = next(parts, (None, None))
        if key is None:
            stack.pop()
            open_nodes.discard(id(node))
            continue
        if not budget.spend():
            raise TreeError(f"its pickle describes more than {MAX_NODES} values")
        if len(prefix) + len(key) > MAX_NAME:
            raise TreeError(f"a tensor's name would have more than {MAX_NAME} characters")
        if top and len(stack) == 1 and "." not in key and _skipped(key, value):
            continue
        if isinstance(value, TensorRef):
            yield prefix + key, value
        elif isinstance(value, (dict, list, tuple, Opaque)):
            if id(value) in open_nodes or (isinstance(value, dict) and "param_groups" in value):
                continue
            if len(stack) >= MAX_DEPTH:
                raise TreeError(f"its values are nested deeper than {MAX_DEPTH} levels")
            open_nodes.add(id(value))
            stack.append((f"{prefix}{key}.", value, children(value)))


def step_of(values: Mapping[Any, Any]) -> int | None:
    """The training step among top-level values: step, iter_num, global_step or iteration."""
    for key in STEPS:
        value = values.get(key)
        if type(value) is int and 0 <= value < 2**63:
            return value
    return None
