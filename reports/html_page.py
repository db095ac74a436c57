"""What reports write: sections of paragraphs, tables and figures as one HTML page, as Markdown, or in the terminal.

The page needs nothing beside it: no address, no script; figures are drawn in it and take its colours, light or dark.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import rich.box
import rich.markup
import rich.table
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas

INK = "#012345"  # what is drawn in this colour is shown in that of the page's text
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.hashsalt": "lit-classics",  # the same figure is the same text
}
CSS = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1.2rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; } p { max-width: 50rem; }
figure { margin: 1.2rem 0; overflow-x: auto; } svg { max-width: 100%; height: auto; }
figcaption { opacity: .8; font-size: .9rem; margin: .3rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { vertical-align: bottom; border-bottom-width: 2px; } tbody tr:hover { background: var(--soft); }
.r { text-align: right; }
"""


@dataclass
class Table:
    """Rows of cells.

    Args:
        title: what is in it.
        columns: names, one that begins with < is aligned to the left, the others to the right.
        rows: as many cells in each as there are columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def names(self) -> list[str]:
        return [column.removeprefix("<") for column in self.columns]

    @property
    def left(self) -> list[bool]:
        return [column.startswith("<") for column in self.columns]


@dataclass
class Figure:
    """A drawing.

    Args:
        title: what is in it.
        svg: as `drawn` returns it.
    """

    title: str
    svg: str


@dataclass
class Section:
    """A heading and what is below it: paragraphs, tables and figures."""

    heading: str
    parts: Sequence[str | Table | Figure]


@contextmanager
def canvas(width: float, height: float) -> Iterator[Canvas]:
    """A figure of that many inches to draw on, and to call `drawn` with, inside the block."""
    with rc_context(STYLE):
        yield Canvas(figsize=(width, height), layout="constrained")


def drawn(figure: Canvas) -> str:
    """A figure as an <svg> element for an HTML page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Names of XML, which HTML does without
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    return text.replace(INK, "currentColor")


def html(title: str, sections: Sequence[Section]) -> str:
    """The page."""
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>'
    head += f'\n<meta name="viewport" content="width=device-width">\n<style>{CSS}</style>\n<h1>{escape(title)}</h1>'
    body = [
        part
        for section in sections
        for part in (f"<h2>{escape(section.heading)}</h2>", *map(_html_part, section.parts))
    ]
    return "\n".join([head, *body, "</html>"]) + "\n"


def _html_part(part: str | Table | Figure) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>"
    caption = f"<figcaption>{escape(part.title)}</figcaption>"
    return f"<figure>\n{caption}\n{part.svg if isinstance(part, Figure) else _html_table(part)}\n</figure>"


def _html_table(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        aligned = zip(cells, table.left, strict=True)
        return "".join(f"<{tag}{'' if left else ' class=r'}>{escape(cell)}</{tag}>" for cell, left in aligned)

    rows = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in table.rows)
    return f"<table>\n<thead><tr>{line(table.names, 'th')}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The same without figures."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.heading}")
        parts += [
            part if isinstance(part, str) else _markdown_table(part)
            for part in section.parts
            if not isinstance(part, Figure)
        ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rule = ["---" if left else "--:" for left in table.left]
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (table.names, rule, *table.rows)]
    return f"{table.title}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def terminal(table: Table) -> rich.table.Table:
    """A table for rich's console, without its title; cells on the left may be wrapped."""
    result = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for name, left in zip(table.names, table.left, strict=True):
        result.add_column(name, justify="left" if left else "right", no_wrap=not left)
    for row in table.rows:
        result.add_row(*map(rich.markup.escape, row))
    return result
