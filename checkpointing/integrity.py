"""Whether a checkpoint file is whole: torch.save writes a zip archive, each entry of which has a CRC-32."""

import functools
import zipfile
import zlib
from pathlib import Path


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file; None for a whole one.

    The whole file is read, once in a process for as long as it does not change.
    """
    try:
        status = path.stat()
    except OSError as error:
        return error.strerror
    return read_through(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def read_through(path: Path, *version: int) -> str | None:
    """What is wrong with a version of a file: its inode, size and time of change."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return "it is a compressed archive, which torch does not write"
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
        return "it is truncated, or another kind of file"
    return f"the checksum of its part {broken} is wrong" if broken else None
