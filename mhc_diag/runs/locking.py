"""One writer per file: a lock that the system drops when its process ends, however it ends."""

from __future__ import annotations

import errno
import sys
import warnings

_BUSY = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed.

    Args:
        descriptor: of a file open for writing.

    Returns:
        False when another writer, of this process or any other, holds it. On a file system without
        locks a warning is given and the answer is True: two writers are then not noticed.
    """
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        warnings.warn(
            f"this file system cannot lock files ({error.strerror}); "
            "make sure that only one process writes this run",
            RuntimeWarning,
            stacklevel=3,
        )
    return True


if sys.platform == "win32":
    import msvcrt
    import os

    _FAR = 1 << 40
    """Windows locks bytes, also those beyond the end: readers never come here."""

    def _lock(descriptor: int) -> None:
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
