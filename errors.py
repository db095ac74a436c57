"""The error for what a user can get wrong, and the words that every floor needs to say it."""

import errno
import io
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

LONGEST = 1400  # characters of a message
# As text, and as `Path` writes it. litdata copies from local:/folder, such as that of a slow network drive
ADDRESS = re.compile(r"(s3|gs|r2|azure):/+([^/].*)|(local):(/.+)")
JOINERS = "\u200c\u200d"  # within words of some scripts, and within emoji


class UserError(ValueError):
    """A mistake of the user's, in one sentence: the value, the reason, the fix.

    The command line prints it and exits with status 1. Any other exception is a bug and keeps its traceback.
    """


def pluralize(number: int, noun: str) -> str:
    """A number and its noun: "1 image", "2,000 images", "2 processes"."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def check_at_least(least: float, **values: float | None) -> None:
    """Raise UserError for the first value that is smaller than the least one allowed; None is not looked at."""
    for name, value in values.items():
        if value is not None and not value >= least:  # NaN is refused too
            raise UserError(f"{name} is {value}: it must be at least {least}.")


def check_probability(**values: float) -> None:
    """Raise UserError for the first value that is not in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"{name} is {value}: it must be in [0, 1).")


def check_reachable(path: str | os.PathLike[str]) -> None:
    """Raise UserError for a path that cannot be looked up, as in a folder of somebody else's; a missing one is none.

    To be called where a path of the user's or of a checkpoint enters. Everything behind that asks `os.path.exists`,
    `isfile` and `isdir`, which say False of the path and of all that is derived from it; those of `Path` raise OSError
    where a name is too long or a folder may not be entered.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds a character that no file name can have"
        raise UserError(
            f"{shorten(path)} cannot be looked up ({reason}): make it readable, or give another path."
        ) from error


def shorten(path: str | os.PathLike[str]) -> str:
    """A path for a message: in one line, and only its beginning and end where it is very long."""
    text = os.fspath(path)
    return printable(text if len(text) < 300 else f"{text[:40]}...{text[-40:]}")


def expand_home(path: str | os.PathLike[str]) -> Path:
    """A path with ~ replaced by the home folder; `Path.expanduser` raises RuntimeError for that of an unknown user."""
    try:
        return Path(os.path.expanduser(path))
    except ValueError:  # no user has such a name
        return Path(path)


def address_of(path: str | os.PathLike[str]) -> str | None:
    """The address in an object store that a path stands for, such as s3://bucket/folder; None for any other path."""
    match = ADDRESS.fullmatch(os.fspath(path))
    if match is None:
        return None
    return (f"{match[1]}://{match[2]}" if match[1] else f"local:{match[4]}").rstrip("/")


def printable(text: str) -> str:
    """A text in one line: escapes for line breaks, control characters and bytes that are no UTF-8.

    Letters of all scripts and emoji stay; signs that turn the direction of writing are escaped too.
    """
    return "".join(c if c.isprintable() or is_shown(c) else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: object) -> str:
    """A message whose line breaks stay, without what else would control a terminal, and cut where it is long."""
    shown = "\n".join(map(printable, str(text).split("\n")))
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST * 2 // 3]} ... {shown[-LONGEST // 3 :]}"


def protect_output() -> None:
    """Let no `print` end a command: neither a character that the terminal's encoding lacks, nor a pipe that is closed.

    Where the reader of a pipe has gone (`| head`), or a log finds no room, the command goes on without it, so that its
    results are saved.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            raw = stream.buffer.raw if isinstance(stream.buffer, io.BufferedWriter) else stream.buffer
            if type(stream) is io.TextIOWrapper and type(raw) is io.FileIO:  # no test's or notebook's stream
                setattr(sys, name, outlive_reader(stream))


def outlive_reader(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """A stream to the same file, pipe or terminal, which drops what is written once its reader has gone."""
    stream.flush()
    output = io.BufferedWriter(Output(stream.fileno(), "wb", closefd=False))
    by_line = stream.line_buffering or stream.write_through  # the latter with PYTHONUNBUFFERED
    return io.TextIOWrapper(output, stream.encoding, stream.errors, line_buffering=by_line)


class Output(io.FileIO):
    """A file that is open for writing, and that may be a pipe whose reader goes away."""

    def write(self, data: Any) -> int:
        """Write bytes; from the first that nobody reads, or that finds no room, all goes to the null device."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
                raise
            if error.errno != errno.EPIPE and self.fileno() == 1:
                print(
                    f"warning: the output cannot be written ({error.strerror}): the command goes on.", file=sys.stderr
                )
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def is_shown(character: str) -> bool:
    """Whether a character that Python calls unprintable is a space, joins its neighbours, or is of a newer Unicode."""
    return character in JOINERS or unicodedata.category(character) in ("Zs", "Cn", "Co")
