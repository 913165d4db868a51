"""Every error that mhc-diag raises on purpose.

::

    MhcDiagError                     one paragraph: what was asked, what came, what to do
    ├── CheckpointError              a file that cannot be read, or must not be
    ├── NoHyperConnectionsError      readable, but nothing in it that any adapter knows
    ├── AdapterError                 unknown adapter, two that fit, or parameters that do not fit
    ├── ShapeError                   an array of the wrong shape
    ├── CaptureError                 a model ran, but its H_res could not be captured
    ├── CoverageError                a site was expected and not measured
    ├── ModelError                   the user's own callable or model raised
    ├── OptionError                  an option, config key or metric id that does not exist or fit
    ├── ComparisonError              numbers of different probes, inputs or definitions as one
    ├── RunError                     a run folder that is damaged, or another model's
    ├── OutputError                  a result that could not be written, or would replace something
    └── MissingExtraError            an optional package is needed

Anything else that escapes is a bug in mhc-diag (exit code 3).
"""

from __future__ import annotations


class MhcDiagError(Exception):
    """An error with a way out.

    Args:
        asked: what the caller wanted, as a noun phrase or short clause ("analyze 'x.pt'").
        came: what was found instead.
        do: what the caller can do about it.

    The command line shows the three as one paragraph and exits with ``exit_code``; ``--json`` shows
    them as fields.
    """

    exit_code = 2

    def __init__(self, asked: str, came: str, do: str) -> None:
        self.asked, self.came, self.do = asked, came, do
        super().__init__(f"{asked}: {came}. {do}")

    def __reduce__(self) -> tuple[type[MhcDiagError], tuple[str, str, str]]:
        """So that it can go from one process to another."""
        return type(self), (self.asked, self.came, self.do)


class CheckpointError(MhcDiagError):
    """A file or folder that cannot be read, or must not be."""


class NoHyperConnectionsError(MhcDiagError):
    """Nothing in the model or file that any adapter knows; says what was looked for."""


class AdapterError(MhcDiagError):
    """An unknown adapter, two adapters that fit, or parameters that do not fit the adapter."""


class ShapeError(MhcDiagError):
    """An array of the wrong shape; says the shape that came and the shape that is needed."""


class CaptureError(MhcDiagError):
    """A model ran, but its H_res could not be captured."""


class CoverageError(MhcDiagError):
    """A site was expected and not measured."""


class ModelError(MhcDiagError):
    """The user's own callable or model raised, or returned something that is no model."""


class OptionError(MhcDiagError):
    """An option, a config key or a metric id that does not exist, or contradicts another."""


class ComparisonError(MhcDiagError):
    """Numbers of different probes, inputs or definitions held against each other as one."""


class RunError(MhcDiagError):
    """A run folder that is damaged, busy, or belongs to another model."""


class OutputError(MhcDiagError):
    """A result that could not be written, or would replace something that must stay."""


class MissingExtraError(MhcDiagError):
    """An optional package is needed; names the feature, the package and the command."""
