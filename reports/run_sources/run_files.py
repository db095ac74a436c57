"""Files of a run directory, which may be a stranger's: nothing outside of it is opened, and no pipe is waited for."""

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpointing.confinement import lies_in
from checkpointing.locks import NO_LOCKS
from checkpointing.run_dir import LOCK
from errors import UserError

LARGEST = 2**27  # bytes of metrics.csv, which has so many with a million rows, and of a file of W&B's
LARGEST_TEXT = 2**20  # of any other file of text


def find_file(run_dir: Path, path: Path) -> bool:
    """Whether a run has a file.

    Raises:
        UserError: in a few words, if the path is no regular file, leads out of the run, or cannot be looked up.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise UserError(f"{path.name} is a link that leads nowhere") from None
        return False
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name} cannot be looked up ({getattr(error, 'strerror', error)})") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path.name} is no file")
    if not lies_in(os.fspath(path), run_dir):
        raise UserError(f"{path.name} is a link that leads out of the run")
    return True


def read_bytes(run_dir: Path, path: Path, largest: int = LARGEST_TEXT) -> bytes | None:
    """The content of a file of a run; None if it has no such file.

    Raises:
        UserError: in a few words, as `find_file`, and if the file cannot be read, or is larger than any of its kind.
    """
    if not find_file(run_dir, path):
        return None
    try:
        size = os.stat(path).st_size
        if size > largest:
            raise UserError(f"{path.name} has {size / 2**20:,.1f} MiB, too many to be read")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path.name} cannot be read ({error.strerror})") from error


def read_json(run_dir: Path, path: Path) -> Any:
    """The content of a JSON file of a run; None if it has no such file.

    Raises:
        UserError: in a few words, as `read_bytes`, and if the file is no JSON.
    """
    content = read_bytes(run_dir, path)
    if content is None:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} is truncated or no JSON") from error


def list_files(run_dir: Path, folder: Path, pattern: str) -> list[Path]:
    """The paths in a folder of a run that match a pattern, by name; none where the folder cannot be read."""
    try:
        return sorted(folder.glob(pattern)) if lies_in(os.fspath(folder), run_dir) else []
    except OSError:
        return []


def is_locked(run_dir: Path) -> bool:
    """Whether a process holds the lock of a run directory, see `checkpointing.run_dir.lock_run`.

    The lock is tried as one that several reports may hold at once, and given up at once; nothing is written.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        lock = os.open(run_dir / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            return False
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES) and error.errno not in NO_LOCKS
    finally:
        os.close(lock)


def get_item(value: object, *keys: str) -> Any:
    """The value at nested keys of a config; None where there is none."""
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
