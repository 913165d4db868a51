"""Results to files: the library's own formats, and the one seam to what draws reports.

What draws stands above the library and is found by the entry point group ``mhc_diag.renderers``,
by the suffix of the file that is asked for; ``renderer(comparison, runs=, command=) -> bytes``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mhc_diag.analysis import Analysis
from mhc_diag.comparison import Comparison, compare
from mhc_diag.errors import MhcDiagError, MissingExtraError, OptionError, OutputError
from mhc_diag.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from mhc_diag.runs.read import RunHistory

GROUP = "mhc_diag.renderers"
TRACE_SUFFIX = ".trace.safetensors"
_DRAWN = frozenset({".html", ".png", ".pdf", ".svg", ".md", ".csv", ".parquet"})
"""Suffixes that no input has, so that an earlier one in a source's folder may be replaced."""
_FOLDER = ("report.html", "gains.png")
"""What is drawn into a folder."""
Sources = Analysis | Sequence[Analysis] | Comparison


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
        sources: one analysis, several, or a comparison.
        path: ``.html .png .pdf .svg .md`` are drawn; ``.json .csv .parquet`` and
            ``.trace.safetensors`` hold the numbers. A folder (it exists, or the path ends in a
            slash) gets report.html, gains.png and analysis.json (comparison.json for several).
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
    comparison = _comparison(sources, labels)
    target = Path(path)
    inputs = [analysis.source.path for analysis in comparison.analyses]
    inputs += [run.path for run in runs]
    if _is_folder(path):
        return _folder(comparison, target, inputs, runs=runs, command=command)
    refuse_inputs(target, inputs)
    if target.name.endswith(TRACE_SUFFIX):
        return _trace(comparison, target, force=force)
    return write_atomically(target, _content(comparison, target, runs=runs, command=command))


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


def renderers() -> dict[str, EntryPoint]:
    """Suffix -> what draws it, as installed packages declare it; nothing is imported."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _comparison(sources: Sources, labels: Sequence[str] | None) -> Comparison:
    if isinstance(sources, Comparison):
        if labels is not None:
            raise OptionError(
                "report of a comparison", "it has labels already", "Give them to md.compare."
            )
        return sources
    taken = [sources] if isinstance(sources, Analysis) else list(sources)
    return compare(*taken, labels=labels)


def _folder(
    comparison: Comparison,
    folder: Path,
    inputs: Sequence[str],
    *,
    runs: Sequence[RunHistory],
    command: str,
) -> Path:
    """Everything about the sources in one folder; all is drawn before anything is written."""
    numbers = "analysis.json" if _single(comparison) else "comparison.json"
    targets = [folder / name for name in (*_FOLDER, numbers)]
    for target in targets:
        refuse_inputs(target, inputs)
    contents = [_content(comparison, t, runs=runs, command=command) for t in targets]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"make the folder {str(folder)!r}", error.strerror or str(error), "Choose another."
        ) from error
    for target, content in zip(targets, contents, strict=True):
        write_atomically(target, content)
    return folder


def _content(
    comparison: Comparison, target: Path, *, runs: Sequence[RunHistory], command: str
) -> bytes:
    suffix = target.suffix.lower()
    if suffix in _NUMBERS:
        if not comparison.analyses:
            raise OptionError(
                f"write {str(target)!r}",
                "there is nothing in it: no source has hyper-connections",
                "'mhc-diag export' writes the scalars of a run.",
            )
        return _NUMBERS[suffix](comparison)
    found = renderers()
    if suffix in found:
        renderer: Callable[..., bytes] = found[suffix].load()
        return renderer(comparison, runs=runs, command=command)
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


def _frame(comparison: Comparison) -> pd.DataFrame:
    """One row per site; with several sources their label stands first."""
    import pandas as pd

    frames = [analysis.frame() for analysis in comparison.analyses]
    if _single(comparison):
        return frames[0]
    for label, frame in zip(comparison.labels, frames, strict=True):
        frame.insert(0, "label", label)
    return pd.concat(frames, ignore_index=True)


def _csv(comparison: Comparison) -> bytes:
    """As the frame, but a value that is NaN is a word; only a gap is empty."""
    frame = _frame(comparison)
    for name in frame.columns:
        held = [analysis.metrics.get(name) for analysis in comparison.analyses]
        if any(values is not None and np.isnan(values.compressed()).any() for values in held):
            gaps = [
                np.ones(len(analysis.sites), dtype=bool)
                if values is None
                else np.ma.getmaskarray(values)
                for analysis, values in zip(comparison.analyses, held, strict=True)
            ]
            words = frame[name].isna() & ~np.concatenate(gaps)
            frame[name] = frame[name].astype(object).mask(words, "nan")
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text.encode()


def _parquet(comparison: Comparison) -> bytes:
    buffer = io.BytesIO()
    try:
        _frame(comparison).to_parquet(buffer, index=False)
    except ImportError as error:
        raise MissingExtraError(
            "write a .parquet file",
            "pandas finds no engine for it",
            "pip install 'mhc-diag[parquet]'",
        ) from error
    return buffer.getvalue()


_NUMBERS: Mapping[str, Callable[[Comparison], bytes]] = {
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _trace(comparison: Comparison, target: Path, *, force: bool) -> Path:
    trace = comparison.analyses[0].trace
    if not _single(comparison) or trace is None:
        raise OptionError(
            f"write {str(target)!r}",
            "a trace holds the matrices of one source"
            if trace is not None
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
