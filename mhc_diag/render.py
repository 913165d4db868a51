"""Results to files: the library's own formats, and the one seam to what draws reports.

What draws stands above the library and is found by the entry point group ``mhc_diag.renderers``,
by the suffix of the file that is asked for: ``renderer(comparison, runs=, command=) -> bytes``,
with ``gate=`` as well where a gate answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhc_diag.analysis import Analysis
from mhc_diag.comparison import Comparison, compare
from mhc_diag.errors import MhcDiagError, MissingExtraError, OptionError, OutputError
from mhc_diag.files import write_atomically
from mhc_diag.limits import GateResult
from mhc_diag.tabular import to_csv, to_parquet

if TYPE_CHECKING:
    from mhc_diag.runs.read import RunHistory

GROUP = "mhc_diag.renderers"
TRACE_SUFFIX = ".trace.safetensors"
_DRAWN = frozenset({".html", ".png", ".pdf", ".svg", ".md", ".csv", ".parquet"})
"""Suffixes that no input has, so that an earlier one in a source's folder may be replaced."""
_FOLDER = ("report.html", "gains.png")
"""What is drawn into a folder."""
_GATE = "gate.json"
Sources = Analysis | Sequence[Analysis] | Comparison | GateResult


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What goes into every file of one report."""

    comparison: Comparison
    runs: Sequence[RunHistory]
    command: str
    gate: GateResult | None


def report(
    sources: Sources,
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    runs: Sequence[RunHistory] = (),
    command: str = "",
    force: bool = False,
) -> Path:
    """Write a report; the suffix says which kind.

    Args:
        sources: one analysis, several, a comparison, or what a gate said of one.
        path: ``.html .png .pdf .svg .md`` are drawn; ``.json .csv .parquet`` and
            ``.trace.safetensors`` hold the numbers. A folder (it exists, or the path ends in a
            slash) gets report.html, gains.png and analysis.json (comparison.json for several).
            Of a gate, ``.json`` is the ``mhc-diag/gate/1`` document, and a folder has gate.json.
        labels: a name for each analysis; by default from the path of its source.
        runs: histories over training, drawn beside the analyses.
        command: the command line that makes this report again.
        force: whether a trace may be replaced.

    Returns:
        The file or folder that was written.

    Raises:
        OptionError: an unknown suffix, or labels that do not fit.
        OutputError: it cannot be written, or would replace an input or a trace.
        MissingExtraError: what draws this kind is not installed.
    """
    gate = sources if isinstance(sources, GateResult) else None
    taken = sources.analysis if isinstance(sources, GateResult) else sources
    comparison = _comparison(taken, labels)
    whole = _Report(comparison=comparison, runs=runs, command=command, gate=gate)
    target = Path(path)
    inputs = [analysis.source.path for analysis in comparison.analyses]
    inputs += [run.path for run in runs]
    if _is_folder(path):
        return _folder(whole, target, inputs)
    refuse_inputs(target, inputs)
    if target.name.endswith(TRACE_SUFFIX):
        return _trace(comparison, target, force=force)
    return write_atomically(target, _content(whole, target))


def check_target(path: str | Path) -> None:
    """Refuse a name that says no kind of output, so that it is told before anything is measured.

    Args:
        path: as for :func:`report`.

    Raises:
        OptionError: an unknown suffix.
        MissingExtraError: what draws this kind is not installed.
    """
    names = _FOLDER if _is_folder(path) else (Path(path).name,)
    for name in names:
        suffix = Path(name).suffix.lower()
        if not (name.endswith(TRACE_SUFFIX) or suffix in _NUMBERS or suffix in renderers()):
            raise _unknown(Path(path), suffix)


def refuse_inputs(target: Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to replace a file that was read, or one of a folder that was read.

    Raises:
        OutputError: the target is such a file; ``force`` does not change that.
    """
    for name in inputs:
        if target.is_file() and _is_part_of(target, Path(name)):
            raise OutputError(
                f"write {str(target)!r}",
                f"it would replace a file of the input {str(name)!r}",
                "Choose another name; an output never replaces an input.",
            )


def refuse_source_folder(folder: Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to write a report's files in between those of the folder that was read.

    Raises:
        OutputError: the folder is one of the inputs.
    """
    for name in inputs:
        if folder.is_dir() and Path(name).is_dir() and folder.samefile(name):
            raise OutputError(
                f"write a report into the folder {str(folder)!r}",
                "that is the folder of the input, and would fill up with files of ours",
                "Choose another folder, such as 'report/'.",
            )


def renderers() -> dict[str, EntryPoint]:
    """Suffix -> what draws it, as installed packages declare it; nothing is imported."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _comparison(
    sources: Analysis | Sequence[Analysis] | Comparison, labels: Sequence[str] | None
) -> Comparison:
    if isinstance(sources, Comparison):
        if labels is not None:
            raise OptionError(
                "report of a comparison", "it has labels already", "Give them to md.compare."
            )
        return sources
    taken = [sources] if isinstance(sources, Analysis) else list(sources)
    return compare(*taken, labels=labels)


def _folder(whole: _Report, folder: Path, inputs: Sequence[str]) -> Path:
    """Everything about the sources in one folder; all is drawn before anything is written."""
    refuse_source_folder(folder, inputs)
    numbers = "analysis.json" if _single(whole.comparison) else "comparison.json"
    targets = [folder / name for name in (*_FOLDER, numbers)]
    for target in [*targets, folder / _GATE]:
        refuse_inputs(target, inputs)
    ungated = replace(whole, gate=None)
    contents = [_content(ungated if t.name == numbers else whole, t) for t in targets]
    if whole.gate is not None:
        targets.append(folder / _GATE)
        contents.append(whole.gate.to_json().encode())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"make the folder {str(folder)!r}", error.strerror or str(error), "Choose another."
        ) from error
    for target, content in zip(targets, contents, strict=True):
        write_atomically(target, content)
    return folder


def _content(whole: _Report, target: Path) -> bytes:
    suffix = target.suffix.lower()
    if suffix in _NUMBERS:
        if not whole.comparison.analyses:
            raise OptionError(
                f"write {str(target)!r}",
                "there is nothing in it: no source has hyper-connections",
                "'mhc-diag export' writes the scalars of a run.",
            )
        if whole.gate is not None and suffix == ".json":
            return whole.gate.to_json().encode()
        return _NUMBERS[suffix](whole.comparison)
    found = renderers()
    if suffix in found:
        renderer: Callable[..., bytes] = found[suffix].load()
        gated = {} if whole.gate is None else {"gate": whole.gate}
        return renderer(whole.comparison, runs=whole.runs, command=whole.command, **gated)
    raise _unknown(target, suffix)


def _unknown(target: Path, suffix: str) -> MhcDiagError:
    """Nothing writes files of this suffix: a mistake, or something to install."""
    if suffix in _DRAWN:
        return MissingExtraError(
            f"write {str(target)!r}",
            f"nothing that is installed draws {suffix} files",
            "pip install mhc-diag, whole: mhc_diag_reports draws them.",
        )
    known = ", ".join(sorted({*_DRAWN, *_NUMBERS, *renderers(), TRACE_SUFFIX}))
    return OptionError(
        f"write {str(target)!r}",
        f"the suffix {suffix!r} says no kind of output" if suffix else "it has no suffix",
        f"Give one of {known}, or a folder with a slash at its end.",
    )


def _is_folder(path: str | Path) -> bool:
    return str(path).endswith(("/", "\\")) or Path(path).is_dir()


def _single(comparison: Comparison) -> bool:
    return len(comparison.analyses) == 1 and not comparison.failed


def _json(comparison: Comparison) -> bytes:
    whole = comparison.analyses[0] if _single(comparison) else comparison
    return whole.to_json().encode()


_NUMBERS: Mapping[str, Callable[[Comparison], bytes]] = {
    ".json": _json,
    ".csv": to_csv,
    ".parquet": to_parquet,
}


def _trace(comparison: Comparison, target: Path, *, force: bool) -> Path:
    alone = comparison.analyses[0] if _single(comparison) else None
    trace = None if alone is None else alone.trace
    if trace is None:
        raise OptionError(
            f"write {str(target)!r}",
            "a trace holds the matrices of one source"
            if alone is None
            else "the matrices are not at hand: the source holds readings alone",
            "Analyze one checkpoint or model and write its trace.",
        )
    trace.save(str(target), force=force)
    return target


def _is_part_of(target: Path, source: Path) -> bool:
    """Whether an existing file is a source, or lies in a source's folder and is no report."""
    if not source.exists():
        return False
    if not source.is_dir():
        return target.samefile(source)
    if not target.resolve().is_relative_to(source.resolve()):
        return False
    return target.suffix.lower() not in _DRAWN and not _is_document(target)


def _is_document(path: Path) -> bool:
    """Whether a file is an earlier JSON document of ours."""
    try:
        content: Any = json.loads(path.read_bytes())
    except ValueError:
        return False
    # not run.json, which has a schema of ours as well and must stay
    ours = {f"mhc-diag/{kind}/1" for kind in ("analysis", "comparison", "gate")}
    return isinstance(content, dict) and content.get("schema") in ours
