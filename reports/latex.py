"""LaTeX of reports: booktabs tables and paragraphs, to be read into a document with \\input.

All text is escaped; what pdflatex (2020 or later, UTF-8) does not know is replaced or named by its number.
"""

# ruff: noqa: RUF001 - signs that look like others are what this file is about

import unicodedata
from collections.abc import Sequence
from itertools import groupby

from errors import printable
from reports.html_page import Part, Section, Table, text_sections

HEADER = """\
% {title}
% Needs \\usepackage[T1]{{fontenc}}, \\usepackage{{booktabs}} and \\usepackage{{longtable}}.
"""
LONGEST = 40  # rows of a table that still fits a page
ESCAPES = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "{}%_&#$"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "\u00a0": "~",
    "\u202f": r"\,",
    "\u2009": r"\,",
}
# Signs that pdflatex lacks outside of formulas
MATHS = {
    "−": "-", "×": r"\times", "±": r"\pm", "·": r"\cdot", "≤": r"\leq", "≥": r"\geq", "≈": r"\approx", "≠": r"\neq",
    "→": r"\to", "←": r"\leftarrow", "∞": r"\infty", "√": r"\surd", "∆": r"\Delta", "Δ": r"\Delta", "α": r"\alpha",
    "β": r"\beta", "γ": r"\gamma", "ε": r"\varepsilon", "λ": r"\lambda", "µ": r"\mu", "μ": r"\mu", "σ": r"\sigma",
    "²": "^2", "³": "^3", "∈": r"\in", "✓": r"\surd",
}  # fmt: skip
LETTERS = "ĂăĄąĆćČčĎďĐđĘęĚěĞğİıĹĺĽľŁłŃńŇňŊŋŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽž"
KNOWN = {*map(chr, range(0xC0, 0x100)), *LETTERS, *"–—‘’“”…†‡•§©®°€"}  # by the fonts of its encoding T1


def latex(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """LaTeX, without figures and images.

    Args:
        title: of the report, a comment on the first line.
        sections: as of `html_page.html`.
        lead: what the report found.
    """
    blocks = [escape(lead)] if lead else []
    for section in text_sections(sections):
        parts = [text for part in section.parts if (text := block(part))]
        blocks += [f"\\subsection*{{{escape(section.heading)}}}", *parts] if parts else []
    return HEADER.format(title=printable(title)) + "\n" + "\n\n".join(blocks) + "\n"


def block(part: Part) -> str:
    """A paragraph or a table; empty for what is drawn."""
    if isinstance(part, Table):
        return long_table(part) if len(part.rows) > LONGEST else floating_table(part)
    return escape(part) if isinstance(part, str) else ""


def floating_table(table: Table) -> str:
    """A table that is put where there is room for it."""
    lines = [r"\begin{table}[htbp]", r"\centering\small", f"\\caption{{{escape(table.title)}}}"]
    lines += [f"\\begin{{tabular}}{{{alignment(table)}}}", r"\toprule", head(table), r"\midrule", *body(table)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"\\par\\smallskip{{\\footnotesize {escape(table.note)}}}"] if table.note else []
    return "\n".join([*lines, r"\end{table}"])


def long_table(table: Table) -> str:
    """A table that goes on over pages, its head repeated."""
    lines = [r"{\small", f"\\begin{{longtable}}{{{alignment(table)}}}", f"\\caption{{{escape(table.title)}}} \\\\"]
    lines += [r"\toprule", head(table), r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot", *body(table)]
    return "\n".join([*lines, r"\end{longtable}", "}", *([escape(table.note)] if table.note else [])])


def alignment(table: Table) -> str:
    """The columns' letters, without space at either side."""
    return "@{}" + "".join(side[0] for side in table.alignments) + "@{}"


def head(table: Table) -> str:
    """The line of the columns' names."""
    return line(list(map(escape, table.names)))


def body(table: Table) -> list[str]:
    """The other lines."""
    cells = [list(map(escape, row)) for row in table.rows]
    return [line([f"\\textbf{{{cell}}}" for cell in row] if k == table.best else row) for k, row in enumerate(cells)]


def line(cells: Sequence[str]) -> str:
    """A line of a table. A bracket or a star after the end of the line before would be that command's argument."""
    return ("{}" if cells and cells[0][:1] in ("[", "*") else "") + " & ".join(cells) + r" \\"


def escape(text: str) -> str:
    """A text as LaTeX prints it."""
    groups = groupby(printable(text), key=lambda character: character in MATHS)
    runs = [
        f"${' '.join(map(MATHS.__getitem__, run))}$" if is_maths else "".join(map(escape_character, run))
        for is_maths, run in groups
    ]
    return "".join(runs).replace("--", "-{}-")  # which would be a dash


def escape_character(character: str) -> str:
    """A character, its nearest equivalent, or its number."""
    if character in ESCAPES:
        return ESCAPES[character]
    if character.isascii() or character in KNOWN:
        return character
    decomposed = unicodedata.normalize("NFKD", character)
    kept = "".join(escape_character(each) for each in decomposed if each.isascii())
    return kept or f"U+{ord(character):04X}"
