"""The page of a study: verdict, figures, tables, and how the results were made."""

from itertools import combinations
from pathlib import Path
from typing import Any

from errors import UserError, pluralize
from reports.command import print_sections, write_file
from reports.html_page import Figure, Part, Section, html, markdown
from reports.hypothesis_tests import LEVEL
from studies.charts import main_chart
from studies.evidence import nets_of
from studies.report import Report
from studies.study import Study
from studies.summary import is_list
from studies.tables import arm_table, command_parts, environment_parts, finding_table, seed_table, settings_table
from studies.units import EXACT, measure_name


def print_report(report: Report) -> None:
    """Print the tables, and at the end the verdict."""
    print_sections([Section("", [arm_table(report), *find_twins(report), finding_table(report)])], report.lead)


def write_page(report: Report, folder: Path) -> None:
    """Write <study>-<budget>.html and .md into a folder, and say so.

    Raises:
        UserError: if a file cannot be written.
    """
    stem = f"{report.study.name}-{report.budget}"
    make_folder(folder)
    for name, write in {"html": html, "md": markdown}.items():
        write_file(folder / f"{stem}.{name}", write(report.title, make_sections(report), report.lead))


def make_folder(path: Path) -> None:
    """Make a folder.

    Raises:
        UserError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {path} cannot be made ({error.strerror}): name another one.") from error


def make_sections(report: Report) -> list[Section]:
    """The page below its title and lead."""
    first, *others = main_figures(report)
    return [
        Section("Results", [describe_origin(report.study), first, arm_table(report), *find_twins(report), *others]),
        Section("Statements", [finding_table(report)]),
        Section("Arms", [settings_table(report.study), describe_size(report)]),
        Section("Seeds", [seed_table(report)], folded=True),
        Section("Commands", command_parts(report), folded=True),
        Section("Environment", environment_parts(report.rows), folded=True),
    ]


def describe_origin(study: Study) -> str:
    """Where the claim is made."""
    notes = study.notes if study.notes.endswith(("?", "!")) else f"{study.notes.rstrip('.')}."
    return f"Lecture notes: {notes} Paper: {study.paper.rstrip('.')}."


def main_figures(report: Report) -> list[Part]:
    """A figure for each measure that varies, that of the first one first."""
    shown = [measure for measure in report.study.measures if measure not in EXACT] or report.study.measures
    return [Figure(figure_title(report, name), main_chart(report.study, report.rows, name)) for name in shown]


def figure_title(report: Report, measure: str) -> str:
    """The caption of a measure's figure."""
    name = measure_name(measure)
    if measure in EXACT:
        return f"{name[:1].upper()}{name[1:]}"
    marks = f"means with {LEVEL:.0%} intervals over seeds"
    crosses = "; crosses: runs that diverged, which count as guessing" if report.verdict.diverged else ""
    dots = "" if is_list(report.rows, measure) else f"; dots: seeds{crosses}"
    return f"{name[:1].upper()}{name[1:]}: {marks}{dots}"


def find_twins(report: Report) -> list[str]:
    """A sentence for each two arms that train nets of their own and have equal results: they may be one recipe."""
    arms = report.study.arms
    results = {name: arm_results(report, name) for name in arms}
    return [
        f"{a} and {b} have the same results for each seed, to the last digit: is there a difference between them?"
        for a, b in combinations(results, 2)
        if results[a] and results[a] == results[b] and nets_of(arms[a]) != nets_of(arms[b])
    ]


def arm_results(report: Report, arm: str) -> dict[int, dict[str, Any]]:
    """What was measured of an arm with each seed, without what is equal for all seeds."""
    rows = [row for row in report.rows if row.arm == arm and row.state == "finished"]
    found = {row.seed: {name: value for name, value in row.measures.items() if name not in EXACT} for row in rows}
    return found if any(found.values()) else {}


def describe_size(report: Report) -> str:
    """What all arms have in common at this size."""
    budget = report.study.budget(report.budget)
    flags = ", ".join(f"{key} {value}" for key, value in budget.settings.items())
    base = ", ".join(budget.base)
    common = ", with ".join(filter(None, [base, flags]))
    return f"All arms: {common}; {pluralize(budget.seeds, 'seed')} each."
