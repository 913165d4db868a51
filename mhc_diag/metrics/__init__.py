"""Every number of mhc-diag: one definition, one function, one id."""

from mhc_diag.metrics.measuring import Readout, log10_of, measure, read_out
from mhc_diag.metrics.table import APPLIED, DEFINITIONS, METRICS, Metric, find_metric

__all__ = [
    "APPLIED",
    "DEFINITIONS",
    "METRICS",
    "Metric",
    "Readout",
    "find_metric",
    "log10_of",
    "measure",
    "read_out",
]
