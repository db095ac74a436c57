"""What reports write: sections of paragraphs, tables, figures and images, as one HTML page or as Markdown.

The page is self-contained: it holds its style, its scripts (Vega, which draws the figures, among them) and its data,
and a browser asks nobody for anything.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, FileSystemLoader, select_autoescape

from errors import printable
from reports.chart_data import Datasets, Spec, draws_nothing, script_json

if TYPE_CHECKING:
    from altair import TopLevelMixin  # takes half a second to import, and most commands draw nothing

TEMPLATES = Path(__file__).parent / "templates"
IMAGE_TYPES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}  # by a file's first bytes


@dataclass
class Table:
    """A table of text.

    Args:
        title: caption.
        columns: names; a column is aligned to the left if its name begins with "<", otherwise to the right.
        rows: a cell for each column.
        best: index of the row that is printed in bold; None for none.
        note: a sentence below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: int | None = None
    note: str = ""

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

    Its width on the page: a number of pixels is the most that it takes, and less where the page is narrower;
    "container" fills the page's column; steps stay, and a chart that is too wide scrolls.

    Args:
        title: caption.
        chart: its description; None leaves the figure out.
    """

    title: str
    chart: "TopLevelMixin | None"

    @cached_property
    def spec(self) -> Spec:
        """Its description in Vega-Lite; empty without a chart. Values are not checked again: there may be many."""
        return self.chart.to_dict(validate=False) if self.chart is not None else {}


@dataclass
class Image:
    """A small picture.

    Args:
        png: content of a PNG, JPEG or WebP file; None shows the caption alone.
        caption: text below it.
    """

    png: bytes | None
    caption: str

    @property
    def address(self) -> str:
        """The picture as a data: address; empty without one."""
        if self.png is None:
            return ""
        kind = next((kind for start, kind in IMAGE_TYPES.items() if self.png.startswith(start)), "png")
        return f"data:image/{kind};base64,{base64.b64encode(self.png).decode()}"


@dataclass
class Images:
    """A grid of small pictures.

    Args:
        title: caption.
        items: the pictures.
    """

    title: str
    items: Sequence[Image]


Part = str | Table | Figure | Images


@dataclass
class Section:
    """A heading and what follows it.

    Args:
        heading: text.
        parts: paragraphs, tables, figures and images.
        folded: whether the page shows the heading alone until it is clicked; printing unfolds it.
    """

    heading: str
    parts: Sequence[Part]
    folded: bool = False


def is_shown(part: Part) -> bool:
    """Whether there is anything to see of a part: a chart without data and a grid without pictures are left out."""
    if isinstance(part, Figure):
        return bool(part.spec) and not draws_nothing(part.spec)
    return bool(part.items) if isinstance(part, Images) else bool(part)


def shown_sections(sections: Sequence[Section]) -> list[Section]:
    """The sections without parts of which there is nothing to see, and without sections that hold no other."""
    kept = [replace(section, parts=list(filter(is_shown, section.parts))) for section in sections]
    return [section for section in kept if section.parts]


def html(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """The HTML page.

    Args:
        title: of the report.
        sections: in their order; the first ones are what a reader sees without scrolling.
        lead: what the report found, in a sentence or two, below the title.
    """
    datasets = Datasets()
    sections = shown_sections(sections)
    figures = [part for section in sections for part in section.parts if isinstance(part, Figure)]
    specs = [datasets.extract(figure.spec) for figure in figures]
    scripts = [bundle(), read_template("page.js")] if specs else [read_template("page.js")]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    return _render(
        "page.html",
        title=title,
        lead=lead,
        sections=sections,
        style=read_template("page.css"),
        scripts=scripts,
        hashes=hashes,
        figures=script_json({"datasets": datasets.columns, "specs": specs}),
    )


def markdown(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """Markdown, without the figures; arguments as of `html`."""
    return _render("page.md", title=title, lead=lead, sections=text_sections(sections))


def markdown_table(table: Table) -> str:
    """A table in Markdown below its title."""
    return markdown("", [Section("", [table])]).split("## \n\n", 1)[1].strip()


def text_sections(sections: Sequence[Section]) -> list[Section]:
    """The sections with their paragraphs and tables alone."""
    return shown_sections(
        [
            replace(section, parts=[part for part in section.parts if isinstance(part, str | Table)])
            for section in sections
        ]
    )


@cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed, as one script that needs no other."""
    from vl_convert import javascript_bundle

    script = javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return re.sub("</(?=script)", r"<\\/", script, flags=re.IGNORECASE).replace("<!--", r"<\!--")


def read_template(name: str) -> str:
    """The text of a file among the templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def escape_markdown(text: str) -> str:
    """A text in one line of Markdown, without HTML and links: names of runs may be a stranger's."""
    return printable(text).replace("<", "\\<").replace("](", "]\\(")


def _render(template: str, **content: Any) -> str:
    escape = select_autoescape()  # escapes .html, not .md
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=escape, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"printable": printable, "markdown": escape_markdown}
    return environment.get_template(template).render(zip=zip, **content) + "\n"
