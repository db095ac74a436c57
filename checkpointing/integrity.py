"""Whether a checkpoint file is whole: torch.save writes a zip archive, each entry of which has a CRC-32."""

import functools
import pickle
import stat
import zipfile
from pathlib import Path

import torch


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file; None for a whole one.

    The whole file is read, once in a process for as long as it does not change.
    """
    return find_other_kind(path) or read_whole(path)


def find_other_kind(path: Path) -> str | None:
    """What a path is that is no file, which is not opened: a pipe or a device would be waited for without an end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return error.strerror
    return None if stat.S_ISREG(mode) else "it is a folder, pipe, socket or device and no file"


def read_whole(path: Path) -> str | None:
    """What is wrong with the content of a file; None for a whole one."""
    status = path.stat()
    return read_through(path, status.st_ino, status.st_size, status.st_mtime_ns)


def is_compressed(path: Path) -> bool:
    """Whether a file is a zip archive with compressed entries, of which a few bytes can stand for gigabytes."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


@functools.lru_cache(maxsize=1024)
def read_through(path: Path, *version: int) -> str | None:
    """What is wrong with a version of a file: its inode, size and time of change."""
    try:
        if is_compressed(path):
            return "it is a compressed archive, which torch does not write"
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                return f"the checksum of its part {broken} is wrong"
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # more exact about the table of contents
    except pickle.UnpicklingError:
        return None  # whole, and asks to run code
    except Exception:  # zipfile and torch raise a different exception for each way of being damaged
        return "it is truncated, or another kind of file"
    return None
