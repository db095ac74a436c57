"""docs/claims.md and the README's table of verdicts, made from the stored results of the studies.

python -m studies.claims                              # after studies have run: writes both, and docs/claims/*.svg
"""

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from errors import UserError
from reports.command import Parser, write_file
from reports.html_page import escape_markdown, markdown_table
from reports.outputs import make_standalone
from studies import results, study_file
from studies.charts import main_chart
from studies.commands import make_recipes
from studies.page import describe_origin, figure_title, make_folder
from studies.report import Report, make_report
from studies.results import read_rows, results_path
from studies.study import Study
from studies.study_file import find_study, list_studies
from studies.tables import arm_table, describe_machine, finding_table
from studies.units import EXACT, format_number, format_value
from studies.verdict import Finding

HOME = Path(__file__).parent.parent
DOCUMENT, FIGURES, README = Path("docs/claims.md"), Path("docs/claims"), Path("README.md")
BLOCK = re.compile(r"(<!-- studies -->\n).*?(<!-- end -->)", re.DOTALL)
INTRODUCTION = """# Claims

What the lecture and the papers claim, and what this repository's studies found: made by `python -m studies.claims` from
the stored results (`studies/results/`), whatever they say. [studies.md](studies.md) says how to run a study, how to
read its figures and tables, and how verdicts are reached. A verdict is about the nets, the data and the length of
training of the size that stands beside it: most are small nets on 1,257 handwritten digits, where an effect that
ImageNet shows may be smaller, or absent.
"""


def read_reports(study: Study, folder: Path = results.FOLDER) -> list[Report]:
    """The results of a study at each of its sizes that has any, the smallest size first.

    Rows that were made by other recipes than those of the study's file as it is now are left out.
    """
    reports = []
    for name, budget in study.budgets.items():
        if rows := read_rows(results_path(study.name, name, folder)):
            digests = {recipe.arm.name: recipe.digest for recipe in make_recipes(study, budget)}
            current = [row for row in rows if row.recipe == digests.get(row.arm)]
            reports += [make_report(study, name, current)] if current else []
    return reports


def choose_report(reports: Sequence[Report]) -> Report:
    """The results at the largest size that has all of them, or else the largest that has any."""
    complete = [report for report in reports if report.verdict.is_complete]
    return (complete or reports)[-1]


def read_all(studies: Path = study_file.FOLDER, folder: Path = results.FOLDER) -> list[list[Report]]:
    """The results of all studies that have any, in the order of the lecture notes' sections."""
    found = sorted((find_study(name, studies) for name in list_studies(studies)), key=by_section)
    return [reports for each in found if (reports := read_reports(each, folder))]


def by_section(study: Study) -> tuple[tuple[int, ...], str]:
    """A key that sorts studies by the number of their section in the notes."""
    number = re.match(r"\d+(\.\d+)*", study.notes)
    return (tuple(map(int, number[0].split("."))) if number else (99,)), study.name


def write_claims(home: Path = HOME, studies: Path = study_file.FOLDER, folder: Path = results.FOLDER) -> None:
    """Write the document, its figures, and the README's table.

    Raises:
        UserError: if a file cannot be written, or the README has no place for the table.
    """
    everything = read_all(studies, folder)
    make_folder(home / FIGURES)
    for old in (home / FIGURES).glob("*.svg"):
        old.unlink()
    for report in map(choose_report, everything):
        if svg := draw_figure(report):
            write_file(home / FIGURES / f"{report.study.name}.svg", svg)
    write_file(home / DOCUMENT, make_document(everything))
    write_file(home / README, update_readme((home / README).read_text(encoding="utf-8"), everything))


def make_document(everything: Sequence[Sequence[Report]]) -> str:
    """The text of docs/claims.md.

    Args:
        everything: the results of each study at its sizes.
    """
    columns = {"claim": describe_claim("#{}"), "notes": describe_section} | COLUMNS
    return "\n".join([INTRODUCTION, verdict_table(everything, columns), *map(make_section, everything)])


def update_readme(text: str, everything: Sequence[Sequence[Report]]) -> str:
    """The README with its table of verdicts made anew.

    Raises:
        UserError: if it has no place for it.
    """
    if not BLOCK.search(text):
        raise UserError(
            "The README has no table of verdicts: it begins with <!-- studies --> and ends with <!-- end -->."
        )
    table = verdict_table(everything, {"claim": describe_claim(f"{DOCUMENT}#{{}}")} | COLUMNS)
    return BLOCK.sub(lambda block: f"{block[1]}\n{table}\n{block[2]}", text)


def verdict_table(everything: Sequence[Sequence[Report]], columns: Mapping[str, Callable[[Report], str]]) -> str:
    """A row for each study, in Markdown."""
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for report in map(choose_report, everything):
        lines.append(f"| {' | '.join(describe(report) for describe in columns.values())} |")
    return "\n".join(lines) + "\n"


def describe_claim(link: str) -> Callable[[Report], str]:
    """A function that gives the claim with a link, which has {} for the study's name."""
    return lambda report: f"[{cell(report.study.claim)}]({link.format(report.study.name)})"


def describe_section(report: Report) -> str:
    """The section of the notes that makes the claim."""
    return cell(report.study.notes.partition(":")[0])


def cell(text: str) -> str:
    """A text in a cell of a table in Markdown."""
    return escape_markdown(text).replace("|", "\\|")


def describe_outcome(report: Report) -> str:
    """The verdict in words, with the size."""
    words = report.verdict.outcome.removesuffix(" at this budget") if report.verdict.is_complete else "still running"
    return f"**{words}** ({report.budget})"


def describe_numbers(report: Report) -> str:
    """The means of the first statement that decided, or of the first one."""
    verdict = report.verdict
    decisive = [each for each in verdict.findings if each.outcome == verdict.outcome] or verdict.findings
    return cell(numbers_of(decisive[0])) if decisive else ""


def numbers_of(finding: Finding) -> str:
    """The means of a statement's arms: "residual 1.33 %, plain 6.00 %"."""
    expectation = finding.expectation
    if finding.means[0] is None or finding.means[1] is None:
        return finding.reason
    arm = f"{expectation.arm} {format_value(expectation.measure, finding.means[0])}"
    other = format_value(expectation.measure, finding.means[1])
    ratio = f" (x {format_number(finding.difference)})" if expectation.factor and finding.difference else ""
    return (
        f"{arm}, {expectation.other} {other}{ratio}" if isinstance(expectation.other, str) else f"{arm} against {other}"
    )


COLUMNS = {"verdict": describe_outcome, "found": describe_numbers}


def make_section(reports: Sequence[Report]) -> str:
    """The section of a study in Markdown."""
    report = choose_report(reports)
    study = report.study
    figure = f"![{caption(report)}]({FIGURES.name}/{study.name}.svg)" if draws(report) else ""
    tables = [replace(table, note="") for table in (arm_table(report), finding_table(report)) if table.rows]
    others = [f"At {each.budget}: {escape_markdown(each.lead)}" for each in reports if each is not report]
    parts = [
        f"## {study.name}",
        f"**{escape_markdown(study.claim)}** {escape_markdown(describe_origin(study))}",
        escape_markdown(report.lead),
        figure,
        *map(markdown_table, tables),
        *others,
        describe_making(report),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def describe_making(report: Report) -> str:
    """How the results were made."""
    path = results_path(report.study.name, report.budget, Path("studies/results"))
    made = escape_markdown(describe_machine(report.rows))
    command = f"`python -m studies {report.study.name} --budget {report.budget}`"
    return f"{command}: [results](../{path}){f', {made}' if made else ''}."


def figure_measure(report: Report) -> str:
    """The measure of a study's figure."""
    return next((name for name in report.study.measures if name not in EXACT), report.study.measures[0])


def caption(report: Report) -> str:
    """Of the figure."""
    return escape_markdown(figure_title(report, figure_measure(report))).replace("]", "\\]")


def draws(report: Report) -> bool:
    """Whether there is a figure."""
    return main_chart(report.study, report.rows, figure_measure(report)) is not None


def draw_figure(report: Report) -> str | None:
    """The figure as SVG with a digest of the results that it shows; None without any."""
    from vl_convert import vegalite_to_svg  # takes a while to import

    chart = main_chart(report.study, report.rows, figure_measure(report))
    if chart is None:
        return None
    return f"{vegalite_to_svg(make_standalone(chart.to_dict()))}\n<!-- {digest_rows(report)} -->\n"


def digest_rows(report: Report) -> str:
    """What tells a figure of these results from one of others."""
    rows = json.dumps([asdict(row) for row in report.rows], sort_keys=True)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def run(given: argparse.Namespace) -> None:
    """Write everything."""
    write_claims(folder=given.results)


def main(args: list[str] | None = None) -> None:
    """The command line; `args` are by default those of the process."""
    parser = Parser("studies.claims", __doc__, takes_main_flags=False)
    parser.add_argument("--results", type=Path, default=results.FOLDER, metavar="DIR", help="(studies/results)")
    parser.run(run, args)


if __name__ == "__main__":
    main()
