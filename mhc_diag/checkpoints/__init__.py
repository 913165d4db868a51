"""Their file -> named tensors, lazily: one file per format, one detector, nothing executed."""

from __future__ import annotations

from mhc_diag.checkpoints.checkpoint import Checkpoint
from mhc_diag.checkpoints.detect import detect
from mhc_diag.checkpoints.inspection import Inspection, inspect_file
from mhc_diag.checkpoints.location import TensorInfo
from mhc_diag.checkpoints.opening import open_checkpoint

__all__ = ["Checkpoint", "Inspection", "TensorInfo", "detect", "inspect_file", "open_checkpoint"]
