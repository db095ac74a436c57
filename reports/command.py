"""Command line and terminal output that the reports on runs share."""

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import rich.box
import rich.table
from rich.console import Console

from checkpointing.run_dir import version_folder
from errors import UserError, printable, printable_lines, protect_output
from reports.html_page import Section, Table

SELECTION_NOTE = "* Selected on test: the checkpoint was chosen by its error on these images, so it is optimistic."
SHORTEST_LINE = 12  # characters of a heading above numbers
LONGEST_NAME = 44  # characters of a name in the first column that is not wrapped
# Flags of main.py, for the tests that a report runs
PASSED_ON = re.compile(r"--(allow|config|data|model|seed_everything|trainer)([.=].*)?")


class Parser(argparse.ArgumentParser):
    """A parser that reports mistakes in one sentence, as main.py does, and collects main.py's own flags.

    Args:
        module: name for `python -m`.
        description: of the report.
        takes_main_flags: whether the report runs tests, to which it passes flags of main.py.
    """

    def __init__(self, module: str, description: str | None, takes_main_flags: bool = True) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m {module}", description=description, allow_abbrev=False, formatter_class=formatter)
        self.takes_main_flags = takes_main_flags

    def error(self, message: str) -> NoReturn:
        """End the program with status 1."""
        sys.exit(f"error: {printable_lines(message)}")

    def run(self, report: Callable[[argparse.Namespace], None], args: Sequence[str] | None = None) -> None:
        """Parse and make the report; `flags` holds main.py's flags and their values, as FLAG=VALUE."""
        protect_output()
        words = sys.argv[1:] if args is None else list(args)
        known = [f"--{name}" for name in vars(self.parse_args([]))]
        self.set_defaults(flags=[])
        main_flags = {word.partition("=")[0] for word in words if PASSED_ON.fullmatch(word)}
        for flag in main_flags if self.takes_main_flags else ():
            self.add_argument(flag, dest="flags", action="append", type=f"{flag}={{}}".format)
        given, unknown = self.parse_known_args(words)
        if unknown:
            similar = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            meant = f"Did you mean {similar[0]}?" if similar else "See --help."
            self.error(f"There is no argument {unknown[0]} here. {meant}")
        try:
            report(given)
        except UserError as error:
            self.error(str(error))


def selection_mark(row: Mapping[str, Any]) -> str:
    """The mark of a table's row whose checkpoints were chosen by their error on the very images of the test."""
    return " *" if row["selected_on_test"] else ""


def run_label(checkpoint: str) -> str:
    """A run's folder from the data set on, with the checkpoint's name unless it is the best one."""
    path = Path(checkpoint)
    folder = version_folder(path)
    if folder is None:
        return str(path)
    return "/".join(folder.parts[-3:]) + ("" if path.stem == "best" else f" ({path.stem})")


def print_sections(sections: Sequence[Section], lead: str = "") -> None:
    """Print tables and paragraphs, without figures, and at the end what the report found."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, emoji=False)
    for part in (part for section in sections for part in section.parts):
        if isinstance(part, Table):
            console.print(printable(part.title), style="bold")
            console.print(terminal_table(part))
            if part.note:
                console.print(printable(part.note))
        elif isinstance(part, str):
            console.print(printable(part))
    if lead:
        console.print(printable(lead), style="bold")


def terminal_table(table: Table) -> rich.table.Table:
    """A table for rich's console, without its title.

    Numbers stay whole below the words of their heading, one above the other where that makes room, and so do short
    names in the first column; other text wraps.
    """
    shown = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for index, (name, alignment) in enumerate(zip(table.names, table.alignments, strict=True)):
        longest = max((len(row[index]) for row in table.rows), default=0)
        heading, is_number = printable(name), alignment == "right"
        if is_number:
            heading = textwrap.fill(heading, max(longest, SHORTEST_LINE), break_long_words=False)
        is_whole = is_number or (index == 0 and longest <= LONGEST_NAME)
        shown.add_column(heading, justify=alignment, no_wrap=is_whole, overflow="fold", vertical="top")
    for row in table.rows:
        shown.add_row(*map(printable, row), style="bold" if len(shown.rows) == table.best else None)
    return shown


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file and say so.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        path.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): name another file.") from error
    print(f"Wrote {path}")
