"""A comparison as one table of numbers: a row per site, a column per id."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from mhc_diag.comparison import Comparison
from mhc_diag.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd


def frame_of(comparison: Comparison) -> pd.DataFrame:
    """One row per site; with several sources their label stands first."""
    import pandas as pd

    frames = [analysis.frame() for analysis in comparison.analyses]
    if len(frames) == 1 and not comparison.failed:
        return frames[0]
    for label, frame in zip(comparison.labels, frames, strict=True):
        frame.insert(0, "label", label)
    return pd.concat(frames, ignore_index=True)


def to_csv(comparison: Comparison) -> bytes:
    """As the frame, but a value that is NaN is a word; only a gap is empty."""
    frame = frame_of(comparison)
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


def to_parquet(comparison: Comparison) -> bytes:
    """As the frame.

    Raises:
        MissingExtraError: pandas finds nothing that writes it.
    """
    buffer = io.BytesIO()
    try:
        frame_of(comparison).to_parquet(buffer, index=False)
    except ImportError as error:
        raise MissingExtraError(
            "write a .parquet file",
            "pandas finds no engine for it",
            "pip install 'mhc-diag[parquet]'",
        ) from error
    return buffer.getvalue()
