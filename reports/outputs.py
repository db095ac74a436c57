"""The files that every report writes on request: a page, Markdown, LaTeX, JSON, and each figure as SVG and PNG."""

import argparse
import json
import os
import re
from collections.abc import Sequence
from itertools import chain, combinations, count
from pathlib import Path
from typing import Any

from errors import UserError, expand_home, shorten
from reports.chart_data import Spec, replace_nonfinite
from reports.command import write_file
from reports.html_page import Figure, Section, html, markdown, shown_sections
from reports.latex import latex

FLAGS = {
    "html": ("FILE", "write one page that needs nothing else: tables and interactive figures"),
    "markdown": ("FILE", "write the tables as Markdown"),
    "latex": ("FILE", "write the tables as LaTeX, with booktabs"),
    "json": ("FILE", "write all numbers"),
    "svg": ("DIR", "write each figure as SVG and PNG into a folder"),
}
INK, PAPER = "#1a1a1a", "white"  # of figures that stand alone
WIDTH = 640  # pixels of a figure that fills its column on the page
LONGEST_NAME = 60  # characters


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add --html, --markdown, --latex, --json and --svg; unset they are None."""
    for name, (metavar, text) in FLAGS.items():
        parser.add_argument(f"--{name}", type=Path, metavar=metavar, help=text)


def check_outputs(given: argparse.Namespace) -> None:
    """Raise UserError for the first flag whose file could not be written. To be called before any work."""
    paths = {f"--{name}": expand_home(path) for name in FLAGS if (path := getattr(given, name))}
    for flag, path in paths.items():
        (check_folder if flag == "--svg" else check_file)(path)
    for (first, path), (second, other) in combinations(paths.items(), 2):
        if os.path.realpath(path) == os.path.realpath(other):
            raise UserError(f"{first} and {second} both name {shorten(path)}: give each its own file.")


def check_file(path: Path) -> None:
    """Raise UserError unless a file can be written."""
    folder = path.absolute().parent
    if not os.path.isdir(folder):
        raise UserError(f"{shorten(path)} cannot be written: there is no folder {shorten(folder)}.")
    if os.path.isdir(path):
        raise cannot_be_written(path, "Is a directory")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise cannot_be_written(path, "Permission denied")


def check_folder(path: Path) -> None:
    """Raise UserError unless a folder can be written into, or made."""
    folder = path if os.path.exists(path) else path.absolute().parent
    if not os.path.isdir(folder):
        reason = "it is a file" if folder == path else f"there is no folder {shorten(folder)}"
        raise UserError(f"No figures can be written into {shorten(path)}: {reason}. Name another folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"No figures can be written into {shorten(path)} (Permission denied): name another folder.")


def cannot_be_written(path: Path, reason: str) -> UserError:
    """The error for a file."""
    return UserError(f"{shorten(path)} cannot be written ({reason}): name another file.")


def write_outputs(
    given: argparse.Namespace, title: str, sections: Sequence[Section], facts: Any, lead: str = ""
) -> None:
    """Write the files that the flags name, and say so.

    Args:
        given: the flags of `add_output_flags`.
        title: of the report.
        sections: see `html_page.html`.
        facts: everything in numbers, for JSON; a number that is not finite is written as null.
        lead: what the report found, in a sentence or two.

    Raises:
        UserError: if a file cannot be written.
    """
    for name, write in {"html": html, "markdown": markdown, "latex": latex}.items():
        if path := getattr(given, name):
            write_file(expand_home(path), write(title, sections, lead))
    if given.json:
        write_file(expand_home(given.json), json_text(facts))
    if given.svg:
        write_figures(expand_home(given.svg), sections)


def json_text(facts: Any) -> str:
    """JSON, with null for numbers that are not finite."""
    return json.dumps(replace_nonfinite(facts), indent=2, allow_nan=False) + "\n"


def write_figures(folder: Path, sections: Sequence[Section]) -> None:
    """Write each figure as SVG and as PNG at twice its size, named after its caption."""
    from vl_convert import vegalite_to_png, vegalite_to_svg  # takes a while to import, and most commands draw nothing

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_be_written(folder, error.strerror or "unknown reason") from error
    parts = [part for section in shown_sections(sections) for part in section.parts]
    names: list[str] = []
    for figure in parts:
        if isinstance(figure, Figure):
            spec = make_standalone(figure.spec)
            names.append(file_name(figure.title, names))
            write_file(folder / f"{names[-1]}.svg", vegalite_to_svg(spec))
            write_file(folder / f"{names[-1]}.png", vegalite_to_png(spec, scale=2))


def make_standalone(spec: Spec) -> Spec:
    """A chart outside of a page: its ink and its background are colours, and its width is a number."""

    def visit(node: Any) -> Any:
        if isinstance(node, list):
            return [visit(item) for item in node]
        if not isinstance(node, dict):
            return INK if node == "currentColor" else node
        visited = {key: visit(value) for key, value in node.items()}
        return visited | ({"width": WIDTH} if node.get("width") == "container" else {})

    visited = visit(replace_nonfinite({key: value for key, value in spec.items() if key != "datasets"}))
    datasets = {"datasets": replace_nonfinite(spec["datasets"])} if "datasets" in spec else {}
    return visited | datasets | {"config": visited.get("config", {}) | {"background": PAPER}}


def file_name(caption: str, taken: Sequence[str]) -> str:
    """A caption's words, joined by hyphens, as the stem of a file; with a number where the name is taken."""
    name = re.sub(r"\W+", "-", caption.lower()).strip("-_")
    name = name[:LONGEST_NAME].rpartition("-")[0] if len(name) > LONGEST_NAME and "-" in name[:LONGEST_NAME] else name
    name = name[:LONGEST_NAME] or "figure"
    numbered = (f"{name}-{number}" for number in count(2))
    return next(each for each in chain([name], numbered) if each not in taken)
