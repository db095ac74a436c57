"""What the command lines of the reports on runs share."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from checkpointing.run_dir import version_folder
from errors import UserError
from reports import html_page
from reports.html_page import Figure, Section, Table

PASSED_ON = ("--data", "--model", "--trainer", "--config", "--seed_everything")  # to main.py


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong as main.py does, and leaves main.py's flags to its tests.

    Args:
        module: what `python -m` runs.
        description: of the report.
    """

    def __init__(self, module: str, description: str | None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m {module}", description=description, allow_abbrev=False, formatter_class=form)

    def error(self, message: str) -> NoReturn:
        sys.exit(f"error: {message}")

    def run(self, report: Callable[[argparse.Namespace, Sequence[str]], None], args: Sequence[str] | None) -> None:
        """Parse, and make the report; a mistake of the user's ends in one sentence and exit status 1."""
        given, flags = self.parse_known_args(args)
        if flags and not flags[0].startswith(PASSED_ON):
            self.error(f"There is no argument {flags[0]} here: see --help.")
        try:
            report(given, flags)
        except UserError as error:
            sys.exit(f"error: {error}")


def show(sections: Sequence[Section]) -> None:
    """The tables and paragraphs, in the terminal."""
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    for part in (part for section in sections for part in section.parts if not isinstance(part, Figure)):
        if isinstance(part, Table):
            console.print(part.title, style="bold", highlight=False, markup=False)
        console.print(html_page.terminal(part) if isinstance(part, Table) else part, highlight=False, markup=False)


def name_of(checkpoint: str) -> str:
    """A run's folder from the data set on, and which checkpoint of it unless it is the best."""
    path = Path(checkpoint)
    folder = version_folder(path)
    if folder is None:
        return str(path)
    return "/".join(folder.parts[-3:]) + ("" if path.stem == "best" else f" ({path.stem})")
