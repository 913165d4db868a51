"""An opened checkpoint: names, shapes and settings at hand, tensors read one by one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from mhc_diag.checkpoints.dtypes import Array
from mhc_diag.checkpoints.location import Contents, Location, TensorInfo, read_tensor
from mhc_diag.checkpoints.names import clean_names
from mhc_diag.checkpoints.source import fault


class Checkpoint:
    """A checkpoint of any format; a context manager that closes its files.

    Args:
        path: what was opened, for errors and reports.
        contents: what the format's reader found.
    """

    def __init__(self, path: str, contents: Contents) -> None:
        names = clean_names(contents.tensors)
        self._places: Mapping[str, Location] = {
            name: contents.tensors[raw] for name, raw in names.items()
        }
        self._sources = contents.sources
        self._closed = False
        self.path = path
        """File or folder that was opened."""
        self.format = contents.format
        """torch-zip, safetensors, sharded-safetensors, hf-folder or npz."""
        self.size = sum(source.size for source in contents.sources)
        """Bytes on disk of the files that hold the weights."""
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {
                name: TensorInfo(
                    name=name, shape=place.shape, dtype=place.dtype, nbytes=place.nbytes
                )
                for name, place in self._places.items()
            }
        )
        """Tensors by name, in stored order; names without container and wrappers."""
        self.config: Mapping[str, Any] = MappingProxyType(dict(contents.config))
        """Settings that the file or its config.json states."""
        self.step = contents.step
        """Training step, None when the file does not say."""
        self.foreign_globals = contents.foreign_globals
        """Pickled classes and functions that were not executed."""
        self.notes = contents.notes
        """Sentences about what was left out."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, headers and pickles included."""
        return sum(source.bytes_read for source in self._sources)

    def read(self, name: str) -> Array:
        """Read one tensor as a new numpy array; bf16, fp16 and fp8 become float32.

        Raises:
            CheckpointError: no tensor of that name, closed, or bytes that cannot be read.
        """
        if self._closed:
            raise fault(self.path, "it is closed", "Read inside the with block.")
        if name not in self._places:
            near = difflib.get_close_matches(name, self._places, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "See checkpoint.tensors."
            raise fault(self.path, f"it has no tensor {name!r}", hint)
        place = self._places[name]
        try:
            return read_tensor(place)
        finally:
            if len(self._sources) > 1:
                place.source.close()  # a model of 200 shards must not hold 200 files open

    def close(self) -> None:
        """Close the files; reading is over."""
        self._closed = True
        for source in self._sources:
            source.close()
