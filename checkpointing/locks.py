"""Locks on files, which end with the process that holds them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

NO_LOCKS = {
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}  # of file systems that lock no files, as some NFS


def acquire_lock(path: Path, blocking: bool, advice: str) -> FileLock:
    """Hold a file against other processes until the lock is released, or this process has died.

    A file system that has no locks is said in a warning: the work goes on without one. A file whose existence is the
    lock would not do, because it would outlive a process that is killed.

    Args:
        path: of the file.
        blocking: whether to wait for a process that holds it.
        advice: what the user is to do where there are no locks, for the warning.

    Raises:
        filelock.Timeout: if another process holds it, and is not waited for.
        OSError: if it cannot be opened.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=blocking)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        from lightning.pytorch.utilities.rank_zero import rank_zero_warn

        rank_zero_warn(
            f"{path.parent} cannot be locked, because its file system has no locks ({error.strerror}): {advice}"
        )
    return lock


@contextmanager
def hold_lock(path: Path, blocking: bool, advice: str) -> Iterator[None]:
    """Hold a file within a `with` statement; arguments and errors as of `acquire_lock`."""
    lock = acquire_lock(path, blocking, advice)
    try:
        yield
    finally:
        lock.release()
