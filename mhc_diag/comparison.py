"""Several analyses side by side, and why their numbers are not one when they are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from mhc_diag import documents, entries
from mhc_diag.analysis import Analysis, Summary
from mhc_diag.errors import OptionError
from mhc_diag.files import write_atomically
from mhc_diag.trace import Source

_LONGEST_PART = 40
"""Characters of a hash or description in a sentence; the record holds it whole."""

_SUFFIXES = (".safetensors", ".trace", ".pt", ".pth", ".ckpt", ".bin", ".npz", ".index.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A source that could not be measured: the error, as fields."""

    label: str
    asked: str
    came: str
    do: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Comparison:
    """Analyses with their labels, and the summary of each id beside the others."""

    labels: tuple[str, ...]
    """One per analysis, all different."""
    analyses: tuple[Analysis, ...]
    differences: tuple[str, ...]
    """Why numbers of one id are not comparable as one; empty when they are."""
    rows: Mapping[str, Mapping[str, Summary]]
    """Metric id -> label -> summary; a label whose analysis lacks the id has an empty one."""
    failed: tuple[Failure, ...] = ()
    """Sources that were asked for and could not be measured."""

    def __repr__(self) -> str:
        named = ", ".join(
            f"{label}: {analysis.verdict}"
            for label, analysis in zip(self.labels, self.analyses, strict=True)
        )
        return f"<Comparison of {named}; {len(self.differences)} differences>"

    def to_dict(self) -> dict[str, Any]:
        """The ``mhc-diag/comparison/1`` document, as plain Python values."""
        pairs = zip(self.labels, self.analyses, strict=True)
        document = {
            "schema": "mhc-diag/comparison/1",
            "tool": documents.tool(),
            "labels": self.labels,
            "comparable": not self.differences,
            "differences": self.differences,
            "rows": {
                name: {label: entries.summary_entry(name, s) for label, s in row.items()}
                for name, row in self.rows.items()
            },
            "analyses": [{"label": label, "analysis": a.to_dict()} for label, a in pairs],
            "failed": [documents.fields_of(failure) for failure in self.failed],
        }
        plain: dict[str, Any] = documents.plain(document)
        return plain

    def to_json(self, path: str | Path | None = None) -> str:
        """The document as strict JSON text; written to ``path`` too, when given.

        Raises:
            OutputError: the file cannot be written.
        """
        text = documents.to_text(self.to_dict())
        if path is not None:
            write_atomically(path, text.encode())
        return text


def compare(
    *analyses: Analysis, labels: Sequence[str] | None = None, **labelled: Analysis
) -> Comparison:
    """Put analyses side by side.

    Args:
        *analyses: one or more.
        labels: a name for each positional analysis; by default from the path of its source.
        **labelled: further analyses under the name of their keyword.

    Raises:
        OptionError: nothing to compare, something that is no analysis, or labels that do not fit.
    """
    taken = (*analyses, *labelled.values())
    if not taken:
        raise OptionError("compare", "no analysis was given", "Give one or more analyses.")
    for entry in taken:
        if not isinstance(entry, Analysis):
            raise OptionError(
                "compare",
                f"a {type(entry).__name__} is no analysis",
                "Make one with md.analyze(source) first.",
            )
    names = default_labels([a.source for a in analyses]) if labels is None else tuple(labels)
    names = (*names, *labelled)
    if len(names) != len(taken) or len(set(names)) != len(names):
        raise OptionError(
            f"compare with labels {list(names)}",
            f"{len(taken)} analyses need as many different labels",
            "Give one label for each.",
        )
    return Comparison(
        labels=names,
        analyses=taken,
        differences=_differences(names, taken),
        rows={
            name: {
                label: analysis.summary.get(name, Summary())
                for label, analysis in zip(names, taken, strict=True)
            }
            for name in dict.fromkeys(name for analysis in taken for name in analysis.summary)
        },
    )


def default_labels(sources: Sequence[Source]) -> tuple[str, ...]:
    """Short names, all different: the file's stem, with step, folder or a number where needed."""
    stems = [_stem(source) for source in sources]
    steps = [
        stem if source.step is None else f"{stem} step {source.step}"
        for stem, source in zip(stems, sources, strict=True)
    ]
    folders = [
        f"{PurePath(source.path).parent.name}/{stem}".lstrip("/")
        for stem, source in zip(stems, sources, strict=True)
    ]
    for names in (stems, steps, folders):
        if len(set(names)) == len(names):
            return tuple(names)
    return _numbered(stems)


def _stem(source: Source) -> str:
    name = PurePath(source.path).name or source.path
    if source.format in {"hf-folder", "run"}:
        return name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix) or name
    return name


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Names with `` #1``, `` #2`` behind those that occur twice, past any that are taken."""
    count, seen, numbered = Counter(names), Counter[str](), list[str]()
    for name in names:
        chosen = name
        while count[name] > 1 and (chosen == name or chosen in count or chosen in numbered):
            seen[name] += 1
            chosen = f"{name} #{seen[name]}"
        numbered.append(chosen)
    return tuple(numbered)


def _differences(labels: Sequence[str], analyses: Sequence[Analysis]) -> tuple[str, ...]:
    """One sentence for each part of the identity that is not the same in all."""
    found: list[str] = []
    for part, words in _WORDS.items():
        values = [getattr(analysis.identity, part) for analysis in analyses]
        if len(set(values)) > 1:
            texts = _short(values)
            each = "; ".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
            found.append(f"{words} (different): {each}")
    return tuple(found)


_WORDS = {
    "probe": "Probe",
    "seed": "Seed",
    "inputs": "Inputs",
    "tokens": "Tokens behind each number",
    "computed": "Precision that H_res is computed in",
    "applied": "Precision that H_res is applied in",
    "definitions": "Version of the metric definitions",
}


def _short(values: Sequence[Any]) -> list[str]:
    """Values as text, long ones cut, unless the cut would make different ones look the same."""
    whole = ["none" if value in {None, ""} else str(value) for value in values]
    cut = [t if len(t) <= _LONGEST_PART else f"{t[:_LONGEST_PART]}..." for t in whole]
    return cut if len(set(cut)) == len(set(whole)) else whole
