"""Files of a run are written whole or not at all: beside their place, flushed to the disk, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from errors import UserError

PART = ".part"  # ends the name of a file that is being written


@contextmanager
def atomic_write(path: Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` when the block ends; `path` stays as it is if the block raises.

    Args:
        path: of the file; it lies in the same file system as the file that replaces it.
        mode: w for text in UTF-8, in which bytes of a file name that are none stay as they are, and whose lines end
            in a line feed on every system; or wb.
        **options: see `open`.
    """
    if "b" not in mode:
        options = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"} | options
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        with part.open(mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Let the names in a folder survive a power failure, where the system can."""
    with suppress(OSError):  # Windows opens no folders, and some file systems cannot flush them
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(run_dir: Path) -> None:
    """Remove what processes that died have left half-written in a run directory that nobody else writes to."""
    for folder in (run_dir, run_dir / "checkpoints"):
        for part in folder.glob(f"*{PART}"):
            if part.is_symlink() or not os.path.isdir(part):
                part.unlink(missing_ok=True)


@contextmanager
def end_run_if_unwritable(path: Path) -> Iterator[None]:
    """Say in one sentence why a file of a run cannot be written.

    Raises:
        UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if not os.path.isdir(path.parent):
            raise UserError(
                f"{path} cannot be written: the folder {path.parent} was deleted or moved while the run was going on. "
                "Leave a run directory in its place until its run has ended, and start the run again."
            ) from error
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): the run ends here. Checkpoints written before are "
            "whole: make room and resume it, or start it again where it has none yet."
        ) from error
