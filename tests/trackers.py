"""Reading back what trackers wrote."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

BLOCK = 32768


def tensorboard_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, over all event files below a folder."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tensor.float_val:
                    found.setdefault(value.tag, {})[event.step] = value.tensor.float_val[0]
    return found


def take_wandb_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no messages, everything below the folder."""
    values = {"MODE": "offline", "SILENT": "true", "ERROR_REPORTING": "false", "DIR": str(folder)}
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    import wandb

    wandb.teardown()  # type: ignore[no-untyped-call]  # wandb; it keeps what it once read of them


def wandb_history(folder: Path) -> list[dict[str, float]]:
    """The rows of the one offline run below a folder, in order; it must be finished."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    # wandb's own process may hold rows back after finish(); it ends when they are written.
    wandb.teardown()  # type: ignore[no-untyped-call]  # wandb
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows = []
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {
                    ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }
            )
    return rows


def _records(content: bytes) -> list[bytes]:
    """Records of a log in LevelDB's format: blocks of fragments, each with its length and kind."""
    records, parts, place = [], b"", 7
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or the last fragment
            records.append(parts)
            parts = b""
    return records
