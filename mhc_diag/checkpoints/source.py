"""Bytes of one file by position: counts what was read, refuses what is not there."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from mhc_diag.errors import CheckpointError

DAMAGED = "The file is damaged, incomplete or was made to mislead: copy, download or save it again."
"""What to do when bytes and declarations disagree."""

MAX_METADATA = 128 * 2**20
"""Most bytes that one read of a header or pickle may ask for."""
MAX_DIRECTORY = 16 * 2**20
"""Most bytes of a zip directory: about 150 000 records."""


def fault(path: str | Path, came: str, do: str = DAMAGED) -> CheckpointError:
    """The error for one file, ready to be raised."""
    return CheckpointError(f"read the checkpoint {str(path)!r}", came, do)


class ByteSource:
    """A regular file that is read by position.

    Args:
        path: the file; opened at once, unbuffered.

    Raises:
        CheckpointError: the file is missing, unreadable, empty or not a regular file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.bytes_read = 0
        try:
            # A pipe or a device would block or never end: look before opening.
            if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  also takes str
                raise fault(path, "this is no regular file", "Give a file or a checkpoint folder.")
            self._file: io.FileIO | None = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115  closed by close()
            self.size = os.fstat(self._file.fileno()).st_size
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise fault(path, why, "Check the path and its permissions.") from error
        if self.size == 0:
            self.close()
            raise fault(path, "the file is empty", "Save or copy it again.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file handle back; reading again opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def fault(self, came: str, do: str = DAMAGED) -> CheckpointError:
        """The error for this file, ready to be raised."""
        return fault(self.path, came, do)

    def read_metadata(self, start: int, length: int) -> bytes:
        """Read ``length`` bytes of a header, directory or pickle at ``start``.

        Raises:
            CheckpointError: more than a header can reasonably have, or outside the file.
        """
        if length > MAX_METADATA:
            raise self.fault(
                f"{length} bytes of metadata are declared, more than the limit of {MAX_METADATA}"
            )
        return self.read_array(start, length).tobytes()

    def read_array(self, start: int, length: int) -> npt.NDArray[np.uint8]:
        """Read ``length`` bytes at ``start`` into a new array [length].

        Raises:
            CheckpointError: outside the file, the file shrank, or no memory.
        """
        if start < 0 or length < 0 or start + length > self.size:
            raise self.fault(
                f"bytes {start} to {start + length} are declared but the file has {self.size}"
            )
        try:
            buffer = np.empty(length, dtype=np.uint8)
            self._fill(buffer.data, start)
        except MemoryError as error:
            raise self.fault(
                f"a tensor of {length} bytes does not fit into memory", "Use a larger machine."
            ) from error
        except OSError as error:
            raise self.fault(
                error.strerror or str(error), "Check the disk and its permissions."
            ) from error
        return buffer

    def _fill(self, view: memoryview, start: int) -> None:
        """Fill ``view`` from ``start``; a single read may return less than was asked for."""
        if self._file is None:
            self._file = open(self.path, "rb", buffering=0)  # noqa: PTH123, SIM115  closed by close()
        self._file.seek(start)
        done = 0
        while done < len(view):
            got = self._file.readinto(view[done:])
            if not got:
                raise self.fault(
                    f"the file ended at byte {start + done} while it was being read",
                    "Something changes the file: wait until it is written completely.",
                )
            done += got
            self.bytes_read += got


class SeekableSource(io.RawIOBase):
    """A :class:`ByteSource` as a seekable file for :mod:`zipfile`, every read bounded."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._position = 0

    def seekable(self) -> bool:
        """Yes: zipfile reads the directory from the end."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position in the file."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; a negative position is an OSError as for a real file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}
        position = base[whence] + offset
        if position < 0:
            raise OSError(f"position {position} lies before the file")
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most ``size`` bytes, to the end when negative."""
        left = max(self._source.size - self._position, 0)
        length = left if size is None or size < 0 else min(size, left)
        if length > MAX_DIRECTORY:
            raise self._source.fault(
                f"its zip directory has {length} bytes, more than the limit of {MAX_DIRECTORY}"
            )
        data = self._source.read_metadata(self._position, length) if length else b""
        self._position += length
        return data
