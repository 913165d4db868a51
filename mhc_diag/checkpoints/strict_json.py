"""JSON of a stranger's file: an object or an error, never an exception of the parser."""

from __future__ import annotations

import json
from typing import Any

from mhc_diag.checkpoints.source import ByteSource

MAX_JSON = 32 * 2**20
"""Most bytes of a header, an index or a config.json: about 250 000 tensors."""


def json_object(
    source: ByteSource, start: int, length: int, *, what: str, unique: bool = False
) -> dict[str, Any]:
    """Parse ``length`` bytes at ``start`` as one JSON object.

    Args:
        source: the file.
        start: position of the first byte.
        length: number of bytes.
        what: how the error calls this part ("header", "index").
        unique: whether a key that stands twice is an error.

    Raises:
        CheckpointError: too large, no UTF-8, no JSON, nested too deeply, or no object.
    """
    if length > MAX_JSON:
        raise source.fault(f"the {what} has {length} bytes, more than the limit of {MAX_JSON}")
    try:
        value = json.loads(
            source.read_metadata(start, length).decode("utf-8"),
            object_pairs_hook=_unique if unique else None,
        )
    except RecursionError as error:
        raise source.fault(f"the {what} is nested too deeply") from error
    except ValueError as error:  # no UTF-8, no JSON, a key twice
        raise source.fault(f"the {what} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise source.fault(f"the {what} is JSON but no object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of ``pairs``; a key that stands twice is a ValueError."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
