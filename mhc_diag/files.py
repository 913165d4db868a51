"""Writing files so that nothing is lost: beside the target first, then renamed in one step."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mhc_diag.errors import OutputError


def write_atomically(path: str | Path, content: bytes, *, replace: bool = True) -> Path:
    """Write ``content`` to ``path`` in one step; a reader sees the old file or the new, never half.

    Args:
        path: the target; its folder must exist.
        content: the whole file.
        replace: whether an existing file may be replaced.

    Raises:
        OutputError: the folder is missing or not writable, or the file exists and must stay.
    """
    with atomic_file(path, replace=replace) as file:
        file.write(content)
    return Path(path)


@contextlib.contextmanager
def atomic_file(path: str | Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write piece by piece; only when the block ends well does it become ``path``.

    Args:
        path: the target; its folder must exist.
        replace: whether an existing file may be replaced.

    Raises:
        OutputError: the folder is missing or not writable, or the file exists and must stay.
    """
    target = Path(path)
    if target.exists() and not replace:
        raise OutputError(
            f"write {str(target)!r}",
            "a file of that name is there",
            "Pass --force (force=True) or another name.",
        )
    if target.is_dir():
        raise OutputError(
            f"write {str(target)!r}", "a folder of that name is there", "Choose a file name."
        )
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
        temporary = None
    except OSError as error:
        raise OutputError(
            f"write {str(target)!r}",
            error.strerror or str(error),
            "Choose a folder that exists and is writable.",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask; mkstemp ignores it, but a result should have ordinary permissions."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
