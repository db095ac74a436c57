"""What reports write: sections of paragraphs, tables and figures, as one HTML page or as Markdown.

The page is self-contained: no script and no address. Its figures are SVG in the colour of its text, light or dark.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, FileSystemLoader, select_autoescape

from errors import printable

if TYPE_CHECKING:
    from altair import TopLevelMixin  # takes half a second to import, and most commands draw nothing


@dataclass
class Table:
    """A table of text.

    Args:
        title: caption.
        columns: names; a column is aligned to the left if its name begins with "<", otherwise to the right.
        rows: a cell for each column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def names(self) -> list[str]:
        """Names of the columns, as they are shown."""
        return [column.removeprefix("<") for column in self.columns]

    @property
    def alignments(self) -> list[Literal["left", "right"]]:
        """Of the columns."""
        return ["left" if column.startswith("<") else "right" for column in self.columns]


def format_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    """A table of values.

    Args:
        columns: for each name the format of its cells, such as "{error:.2%}", filled in from a row. The sign % is left
            out of the cells if the name ends with it.
    """

    def cell(name: str, row: Mapping[str, Any]) -> str:
        text = columns[name].format(**row)
        return text.replace("%", "") if name.endswith("%") else text

    return Table(title, list(columns), [[cell(name, row) for name in columns] for row in rows])


def with_interval(value: str, interval: str, form: str = ".2%") -> str:
    """The format of a value and its interval, such as 2.78% [1.11%, 4.44%], from their names in a row."""
    return f"{{{value}:{form}}} [{{{interval}[0]:{form}}}, {{{interval}[1]:{form}}}]"


@dataclass
class Figure:
    """A chart.

    Args:
        title: caption.
        chart: its description.
    """

    title: str
    chart: "TopLevelMixin"

    def svg(self) -> str:
        """An <svg> element, without the namespaces that HTML does not need."""
        file = io.StringIO()
        self.chart.save(file, format="svg")
        return re.sub(r' xmlns(:\w+)?="[^"]*"', "", file.getvalue())


Part = str | Table | Figure


@dataclass
class Section:
    """A heading and its parts: paragraphs, tables and figures."""

    heading: str
    parts: Sequence[Part]


def html(title: str, sections: Sequence[Section]) -> str:
    """The HTML page."""
    return _render("page.html", title, sections)


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Markdown, without the figures."""
    return _render("page.md", title, sections)


def _render(template: str, title: str, sections: Sequence[Section]) -> str:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    escape = select_autoescape()  # escapes .html, not .md
    environment = Environment(loader=loader, autoescape=escape, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    return environment.get_template(template).render(title=title, sections=sections, zip=zip) + "\n"
