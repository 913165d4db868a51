"""``mhc-diag adapters``, ``metrics`` and ``rules``: what is supported, with definitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mhc_diag_cli.console import Console, visible
from mhc_diag_cli.options import Talking

if TYPE_CHECKING:
    from rich.console import RenderableType

Entry = dict[str, Any]


def adapters(*, talking: Talking) -> None:
    """List the code bases whose hyper-connections are understood."""
    from mhc_diag.adapters.registry import adapters as known

    entries = [
        {
            "name": each.name,
            "title": each.title,
            "family": each.family,
            "stored": each.stored,
            "library": each.library,
            "settings": {name: spec.default for name, spec in each.settings.items()},
        }
        for each in known().values()
    ]
    show("adapters", entries, talking.console())


def metrics(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="Only ids like this: 'composite.*.mean'.")
    ] = "*",
    *,
    talking: Talking,
) -> None:
    """List every metric id: formula, meaning, ideal value, bad end, unit, source."""
    from fnmatch import fnmatchcase

    from mhc_diag.errors import OptionError
    from mhc_diag.metrics import METRICS

    entries = [_fields(METRICS[name]) for name in METRICS if fnmatchcase(name, pattern)]
    if not entries:
        do = "'mhc-diag metrics' without a pattern lists all."
        raise OptionError(f"metrics {pattern!r}", "no id is like that", do)
    show("metrics", entries, talking.console())


def rules(*, talking: Talking) -> None:
    """List the rules that findings cite."""
    from mhc_diag.rules import RULES

    show("rules", [_fields(rule) for rule in RULES.values()], talking.console())


def _fields(record: Any) -> Entry:
    from mhc_diag.documents import fields_of

    return fields_of(record)


def show(kind: str, entries: list[Entry], console: Console) -> None:
    """Print one entry after the other, as text or as ``listing/1``."""
    console.document(lambda: _document(kind, entries))
    if not console.as_json:
        console.show(*_lines(entries))


def _document(kind: str, entries: list[Entry]) -> Mapping[str, Any]:
    from mhc_diag.documents import tool

    return {"schema": "mhc-diag/listing/1", "tool": tool(), "kind": kind, "entries": entries}


def _lines(entries: Iterable[Entry]) -> list[RenderableType]:
    """Name in bold, its fields indented below; whole sentences do not fit into columns."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    lines: list[RenderableType] = []
    for entry in entries:
        name, *rest = entry
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for key in rest:
            if entry[key] not in (None, "", {}, []):
                grid.add_row(key.replace("_", " "), Text(visible(_words(entry[key]))))
        lines += [Text(visible(str(entry[name])), style="bold"), Padding(grid, (0, 0, 0, 4))]
    return lines


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
