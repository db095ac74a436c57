"""LaTeX of reports: nothing of a run's text is a command, and all of it is known to pdflatex."""

# ruff: noqa: RUF001 - signs that look like others are the point

import re

import pytest

from reports.html_page import Figure, Section, Table
from reports.latex import escape, latex


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100 % of a_b & c # 1 $2 {x} ~ ^", r"100 \% of a\_b \& c \# 1 \$2 \{x\} \textasciitilde{} \textasciicircum{}"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("a < b > c | d", r"a \textless{} b \textgreater{} c \textbar{} d"),
        ("--html and top-1", "-{}-html and top-1"),
        ("2.1 ± 0.3, −1, 3 × 3, p ≤ 0.01", r"2.1 $\pm$ 0.3, $-$1, 3 $\times$ 3, p $\leq$ 0.01"),
        ("Straße, Łódź, naïve – “yes”…", "Straße, Łódź, naïve – “yes”…"),
        ("ﬁne ①", "fine 1"),
        ("猫 \U0001f600", "U+732B U+1F600"),
        ("line\nbreak\x07", r"line\textbackslash{}nbreak\textbackslash{}x07"),
    ],
)
def test_text_is_escaped(text, expected):
    assert escape(text) == expected


def test_tables_and_paragraphs():
    table = Table("Errors, %", ["<net", "error, %"], [["a_b", "1.0"], ["[c]", "2.0"]], best=1, note="A & B.")
    text = latex("A % title", [Section("One", ["Some text.", table, Figure("None", None)])], "A is better.")
    assert text.startswith("% A % title\n% Needs ") and r"\usepackage{booktabs}" in text
    assert "\n\nA is better.\n\n\\subsection*{One}\n\nSome text.\n\n\\begin{table}" in text
    lines = text.splitlines()
    start = lines.index(r"\begin{tabular}{@{}lr@{}}")
    assert lines[start - 1] == r"\caption{Errors, \%}"
    assert lines[start + 1 : start + 8] == [
        r"\toprule", r"net & error, \% \\", r"\midrule", r"a\_b & 1.0 \\", r"\textbf{[c]} & \textbf{2.0} \\",
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    assert lines[start + 8] == r"\par\smallskip{\footnotesize A \& B.}" and lines[-1] == r"\end{table}"


def test_no_cell_is_an_argument_of_the_line_before():
    text = latex("", [Section("", [Table("", ["<a"], [["[2 ex]"], ["* b"]])])])
    assert "{}[2 ex] \\\\" in text and "{}* b \\\\" in text


def test_a_long_table_goes_over_pages():
    text = latex("", [Section("Long", [Table("Many", ["x"], [[str(k)] for k in range(41)], note="End.")])])
    assert text.count(r"\begin{longtable}{@{}r@{}}") == 1 and r"\begin{table}" not in text and "\nEnd.\n" in text
    begun, ended = (re.findall(rf"\\{verb}{{(\w+)}}", text) for verb in ("begin", "end"))
    assert begun == ended == ["longtable"] and text.count("{") == text.count("}")
