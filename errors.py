"""The error for what a user can get wrong, and the words that every floor needs to say it."""

import io
import sys
import unicodedata

JOINERS = "\u200c\u200d"  # within words of some scripts, and within emoji


class UserError(ValueError):
    """A mistake of the user's, in one sentence: the value, the reason, the fix.

    The command line prints it and exits with status 1. Any other exception is a bug and keeps its traceback.
    """


def pluralize(number: int, noun: str) -> str:
    """A number and its noun: "1 image", "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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


def printable(text: str) -> str:
    """A text in one line: escapes for line breaks, control characters and bytes that are no UTF-8.

    Letters of all scripts and emoji stay; signs that turn the direction of writing are escaped too.
    """
    return "".join(c if c.isprintable() or is_shown(c) else c.encode("unicode_escape").decode() for c in text)


def escape_unencodable_output() -> None:
    """Let `print` write escapes for the characters that the terminal's encoding lacks, and end in no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_shown(character: str) -> bool:
    """Whether a character that Python calls unprintable is a space, joins its neighbours, or is of a newer Unicode."""
    return character in JOINERS or unicodedata.category(character) in ("Zs", "Cn", "Co")
