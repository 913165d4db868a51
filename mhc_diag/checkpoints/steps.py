"""Which training step a checkpoint is of: what it says itself, else what its name says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mhc_diag.checkpoints.opening import open_checkpoint
from mhc_diag.errors import CheckpointError

STATE = "trainer_state.json"
"""What Hugging Face's Trainer writes beside the weights."""
_NUMBER = re.compile(r"\d+")
_SUFFIXES = (".index.json", ".trace.safetensors", ".safetensors")
_ENDING = re.compile(r"\.[a-z]\w*$", re.IGNORECASE)


def step_of(path: str | Path) -> tuple[int, str] | None:
    """The training step of a checkpoint, and where it stands; None where nothing says it.

    Looked for in this order: the file's own ``step``, ``trainer_state.json`` beside the weights,
    the last whole number in the name, and the last one in the name of the file's folder.

    Args:
        path: a file or a folder; one that cannot be read as a checkpoint still has a name.
    """
    place = Path(path)
    try:
        with open_checkpoint(place) as checkpoint:
            own = checkpoint.step
    except CheckpointError:  # a trace, or damaged; whoever measures it will say so
        own = None
    if own is not None:
        return own, "the file's own step"
    folder = place if place.is_dir() else place.resolve().parent
    state = _state(folder / STATE)
    if state is not None:
        return state, STATE
    named = _last_number(
        _stem(place.resolve().name if place.name in {"", ".", ".."} else place.name)
    )
    if named is not None:
        return named, "its name"
    if not place.is_dir() and (named := _last_number(folder.name)) is not None:
        return named, "its folder's name"
    return None


def _state(path: Path) -> int | None:
    """``global_step`` of a trainer_state.json; None where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    step = content.get("global_step") if isinstance(content, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def _stem(name: str) -> str:
    """A name without its suffix; in ``ckpt.1000`` the number is none."""
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return _ENDING.sub("", name)


def _last_number(text: str) -> int | None:
    found = _NUMBER.findall(text)
    return int(found[-1]) if found and len(found[-1]) <= 15 else None
