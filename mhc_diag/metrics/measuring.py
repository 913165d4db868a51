"""From a trace to numbers: every id, every site, chain by chain.

Letters: L sites of all chains in execution order, T tokens, n streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from mhc_diag.arrays import round_to, to_float64
from mhc_diag.compose import Scaled, scaled
from mhc_diag.metrics import numbers as real
from mhc_diag.metrics.readings import READINGS
from mhc_diag.metrics.sites import PRODUCTS, Found, SiteReader, pieces
from mhc_diag.metrics.table import APPLIED, METRICS, PARTS, Part, find_metric
from mhc_diag.metrics.windows import worst_windows
from mhc_diag.trace import Chain, Trace


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """One id over all sites, before it is squeezed into doubles."""

    numbers: real.Numbers
    """[L]."""
    missing: npt.NDArray[np.bool_]
    """[L]: not measured, or not defined there."""

    def floats(self) -> np.ma.MaskedArray[Any, Any]:
        """Doubles [L], masked where missing; infinity beyond the range of a double."""
        values = np.where(self.missing, np.nan, real.to_float(self.numbers))
        return np.ma.MaskedArray(values, mask=self.missing.copy(), fill_value=np.nan)

    def log10(self) -> npt.NDArray[np.float64]:
        """log10 of the absolute values [L], right beyond the range of a double; NaN if missing."""
        return np.where(self.missing, np.nan, real.log10(self.numbers))


def measure(
    trace: Trace, ids: Iterable[str] | None = None
) -> dict[str, np.ma.MaskedArray[Any, Any]]:
    """Every number of a trace.

    Args:
        trace: the captured matrices.
        ids: metric ids, with or without ``applied.`` before them. None for all; the ids after
            rounding are among them when the precisions differ.

    Returns:
        Id -> float64 [L] in site order, masked where not measured or not defined (NaN under the
        mask); NaN and infinity elsewhere are values.

    Raises:
        OptionError: an id does not exist.
    """
    return {name: readout.floats() for name, readout in read_out(trace, ids).items()}


def log10_of(trace: Trace, metric_id: str, site: int) -> float:
    """log10 of one number of a trace, for values that a double can only call infinite or 0."""
    return float(read_out(trace, [metric_id])[metric_id].log10()[site])


@np.errstate(all="ignore")
def read_out(trace: Trace, ids: Iterable[str] | None = None) -> dict[str, Readout]:
    """As ``measure``, with numbers of any size."""
    precision = trace.model.precision
    rounds = precision.applied != precision.computed
    if ids is None:
        ids = [*METRICS, *(APPLIED + name for name in METRICS if rounds)]
    asked = dict.fromkeys(ids)
    for name in asked:
        find_metric(name)
    L = sum(chain.n_sites for chain in trace.chains)
    readouts = {name: _blank(L) for name in asked}
    for applied in (False, True):
        targets: dict[Part, Readout] = {
            PARTS[name.removeprefix(APPLIED)]: readouts[name]
            for name in asked
            if name.startswith(APPLIED) == applied
        }
        dtype = precision.applied if applied and rounds else "float64"
        for chain, places in trace.ranges():
            _fill(targets, chain, first=places.start, dtype=dtype)
    return readouts


def _blank(L: int) -> Readout:
    return Readout(real.plain(np.full(L, np.nan)), np.ones(L, dtype=np.bool_))


def _fill(targets: Mapping[Part, Readout], chain: Chain, *, first: int, dtype: str) -> None:
    """Measure one chain whose sites begin at ``first``; its matrices rounded to ``dtype``."""
    n = chain.n_streams
    parts = [
        p for p in targets if p.reading not in READINGS or n >= READINGS[p.reading].min_streams
    ]
    if chain.n_tokens == 0 or not parts:
        return
    for stretch in stretches(chain.measured):
        reachable = {"single", "window"}
        reachable |= {"prefix"} if stretch.start == 0 else set()
        reachable |= {"suffix"} if stretch.stop == chain.n_sites else set()
        here = tuple(part for part in parts if part.product in reachable)
        for part, (numbers, defined) in _measure_stretch(chain, stretch, here, dtype):
            places = slice(first + stretch.start, first + stretch.stop)
            targets[part].numbers.values[places] = numbers.values
            targets[part].numbers.exponent[places] = numbers.exponent
            targets[part].missing[places] = ~defined


def stretches(measured: tuple[bool, ...]) -> Iterator[slice]:
    """Maximal runs of measured sites: products never bridge a site that was not seen."""
    start = 0
    for is_measured, run in groupby(measured):
        stop = start + len(list(run))
        if is_measured:
            yield slice(start, stop)
        start = stop


def _measure_stretch(
    chain: Chain, stretch: slice, parts: tuple[Part, ...], dtype: str
) -> Iterator[tuple[Part, Found]]:
    readers = [
        SiteReader(product=product, parts=own)
        for product in PRODUCTS
        if (own := tuple(part for part in parts if part.product == product))
    ]
    shape = (stretch.stop - stretch.start, *chain.M.shape[1:])
    if readers:
        for tokens in pieces(shape):
            M = _matrices(chain, stretch, tokens, dtype)
            for reader in readers:
                reader.add(M)
    for reader in readers:
        yield from reader.results().items()
    if windows := tuple(part for part in parts if part.product == "window"):
        M = _matrices(chain, stretch, slice(None), dtype)
        for part, numbers in worst_windows(M, windows).items():
            yield part, (numbers, np.ones(numbers.values.shape, dtype=np.bool_))


def _matrices(chain: Chain, sites: slice, tokens: slice, dtype: str) -> Scaled:
    """Float64 at the door, and the rounding that mixes the streams where it is asked for."""
    return scaled(round_to(to_float64(chain.M[sites, tokens]), dtype))
