"""``mhc-diag inspect``: what a file is and what is found in it, from its headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mhc_diag.errors import AdapterError, NoHyperConnectionsError, OptionError
from mhc_diag_cli.console import Console, visible
from mhc_diag_cli.options import Talking
from mhc_diag_cli.stored import entry_of, read_run
from mhc_diag_cli.values import settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mhc_diag.adapters.recognise import Recognition
    from mhc_diag.checkpoints import Checkpoint


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Checkpoint, folder, trace or run.")
    ],
    *,
    adapter: Annotated[
        str | None, typer.Option(metavar="NAME", help="See 'mhc-diag adapters'.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As in analyze; repeatable."),
    ] = None,
    talking: Talking,
) -> None:
    """Say what a file is: format, tensors, sites and adapter, or why it has none.

    Reads no tensor data. Exit 0 when the file could be read, whatever it holds.
    """
    from mhc_diag.checkpoints import detect, open_checkpoint

    console = talking.console()
    kind = detect(source)
    if kind in {"trace", "run"}:
        _refuse_for_recorded(source, adapter, set_)
        document = _trace_document(source) if kind == "trace" else _run_document(source, console)
    else:
        with open_checkpoint(source) as checkpoint:
            document = _document(checkpoint, adapter, settings(set_))
    console.document(lambda: document)
    if not console.as_json:
        console.show(*_page(document))


def _document(
    checkpoint: Checkpoint, adapter: str | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The ``inspection/1`` document of a checkpoint."""
    from mhc_diag.adapters.recognise import recognise
    from mhc_diag.adapters.registry import adapter_named
    from mhc_diag.checkpoints.inspection import inspection_of

    if adapter is not None:
        adapter_named(adapter)  # a name that does not exist is a wrong option, not a finding
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    found: Recognition | None = None
    why = None
    try:
        found = recognise(shapes, checkpoint.config, adapter=adapter, settings=given)
    except (NoHyperConnectionsError, AdapterError) as error:
        why = " ".join([f"{error.came}. {error.do}", *getattr(error, "__notes__", ())])
    facts = inspection_of(checkpoint).to_dict()
    return _shell(facts) | {"recognition": _recognition(found), "why_not": why}


def _shell(facts: dict[str, Any]) -> dict[str, Any]:
    from mhc_diag.documents import tool

    return {"schema": "mhc-diag/inspection/1", "tool": tool(), "file": facts}


def _recognition(found: Recognition | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "adapter": found.adapter.name,
        "title": found.adapter.title,
        "family": found.adapter.family,
        "stored": found.adapter.stored,
        "evidence": list(found.evidence),
        "sites": [
            {
                "index": index,
                "chain": site.chain,
                "name": site.name,
                "layer": site.layer,
                "sublayer": site.sublayer,
                "streams": site.n,
                "width": site.width,
            }
            for index, site in enumerate(found.sites)
        ],
        "skipped": [{"site": gap.site, "why": gap.why} for gap in found.skipped],
        "unclaimed": list(found.unclaimed),
        "settings": {
            name: {"value": setting.value, "from": setting.source}
            for name, setting in found.settings.items()
        },
    }


def _trace_document(source: str) -> dict[str, Any]:
    """The document of a trace: it says itself what it holds."""
    from mhc_diag.documents import fields_of
    from mhc_diag.tracefile import load_trace

    trace = load_trace(source)
    facts = {"path": source, "format": "trace", "step": trace.source.step}
    recognition = {
        "adapter": trace.model.adapter,
        "title": f"recorded with the {trace.probe.kind} probe on {trace.probe.tokens} tokens",
        "family": trace.model.family,
        "stored": trace.orientation.stored,
        "evidence": [],
        "sites": [
            fields_of(site) | {"streams": chain.n_streams, "width": trace.model.width}
            for chain in trace.chains
            for site in chain.sites
        ],
        "skipped": [fields_of(gap) for gap in trace.coverage.skipped],
        "unclaimed": list(trace.coverage.unclaimed),
        "settings": {
            name: {"value": setting.value, "from": setting.source}
            for name, setting in trace.model.settings.items()
        },
    }
    return _shell(facts) | {"recognition": recognition, "why_not": None}


def _refuse_for_recorded(source: str, adapter: str | None, set_: list[str] | None) -> None:
    """What was recorded says itself by which adapter and settings.

    Raises:
        OptionError: an option that would change nothing.
    """
    if adapter or set_:
        came = "it was measured before, so --adapter and --set would change nothing"
        raise OptionError(f"inspect {source!r}", came, "Leave them out.")


def _run_document(source: str, console: Console) -> dict[str, Any]:
    """The document of a run: what run.json and the records say."""
    from mhc_diag.documents import fields_of

    run = read_run(source, None, console)
    held = entry_of(run)
    facts = {"path": source, "format": "run", "step": held["last_step"]}
    facts |= {key: held[key] for key in ("records", "first_step", "ids", "scalars")}
    if not run.sites:
        why = f"it recorded a model of family {run.model.get('family')!r} without sites"
        return _shell(facts) | {"recognition": None, "why_not": why}
    streams = {chain["name"]: chain["streams"] for chain in run.model["chains"]}
    recognition = {
        "adapter": run.model["adapter"],
        "title": f"recorded at {held['records']} steps",
        "family": run.model["family"],
        "stored": run.orientation["stored"],
        "evidence": [],
        "sites": [
            fields_of(site) | {"streams": streams[site.chain], "width": run.model["width"]}
            for site in run.sites
        ],
        "skipped": [],
        "unclaimed": [],
        "settings": run.model["settings"],
    }
    return _shell(facts) | {"recognition": recognition, "why_not": None}


def _page(document: dict[str, Any]) -> list[RenderableType]:
    """What a terminal shows of the document."""
    from rich.filesize import decimal

    file, found = document["file"], document["recognition"]
    facts: list[tuple[str, str]] = [("file", file["path"]), ("format", file["format"])]
    if "tensors" in file:
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in file["dtypes"].items())
        facts.append(("tensors", f"{file['tensors']} ({dtypes}), {decimal(file['tensor_bytes'])}"))
        facts.append(("read", f"{decimal(file['bytes_read'])} of {decimal(file['size'])}"))
    if "records" in file:
        facts.append(("records", f"{file['records']}, from step {file['first_step']} on"))
        facts.append(("holds", ", ".join([*file["ids"], *file["scalars"]])))
    if file["step"] is not None:
        facts.append(("step", str(file["step"])))
    facts += [("not executed", name) for name in file.get("foreign_globals", ())]
    facts += [("note", note) for note in file.get("notes", ())]
    if found is None:
        facts.append(("adapter", "none"))
        facts.append(("because", document["why_not"]))
        return [_grid(facts)]
    facts.append(("adapter", f"{found['adapter']}: {found['title']}"))
    facts.append(("family", f"{found['family']}, stores {found['stored']}"))
    facts += [("evidence", line) for line in found["evidence"]]
    for name, setting in found["settings"].items():
        facts.append(("setting", f"{name} = {setting['value']} ({setting['from']})"))
    facts += [("skipped", f"{gap['site']}: {gap['why']}") for gap in found["skipped"]]
    facts += [("unclaimed", name) for name in found["unclaimed"]]
    return [_grid(facts), "", _sites(found["sites"])]


def _grid(facts: list[tuple[str, str]]) -> RenderableType:
    """Name and value; a name that repeats is written once."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    before = ""
    for name, value in facts:
        grid.add_row("" if name == before else name, Text(visible(value)))
        before = name
    return grid


def _sites(sites: list[dict[str, Any]]) -> RenderableType:
    """One row per site, in execution order."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("site", "name", "chain", "half", "n", "C"):
        numeric = heading in {"site", "n", "C"}
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for site in sites:
        keys = ("index", "name", "chain", "sublayer", "streams", "width")
        table.add_row(
            *(Text(visible(str("-" if site[key] is None else site[key]))) for key in keys)
        )
    return table
