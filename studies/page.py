"""The page of a study: verdict, figures, tables, and how the results were made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import UserError, pluralize
from reports.command import print_sections, write_file
from reports.comparison_tables import duration
from reports.groups import ABSENT
from reports.html_page import Figure, Part, Section, Table, html, markdown
from reports.hypothesis_tests import ALPHA, LEVEL
from studies.charts import main_chart
from studies.results import Row
from studies.study import Arm, Study
from studies.summary import Summary, is_list, summarize
from studies.units import EXACT, format_difference, format_number, format_value, is_error, is_share, measure_name
from studies.verdict import Finding, Verdict, decide
from studies.wording import state_claim

SHORT = 12  # digits of a commit
METHODS = {
    "Welch": "Welch's t-test over the seeds",
    "paired t": "a paired t-test, for both arms measured the same nets",
    "t": "a t-test over the seeds",
    "exact": "nothing to test, for all seeds are equal",
}


@dataclass(frozen=True)
class Report:
    """What a page shows of a study at one of its sizes.

    Args:
        study: the study.
        budget: name of the size.
        rows: results of the study's arms.
        verdict: that they give.
        commands: of each arm for its first seed.
    """

    study: Study
    budget: str
    rows: list[Row]
    verdict: Verdict
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The claim."""
        return self.study.claim

    @property
    def lead(self) -> str:
        """The verdict."""
        return self.verdict.lead()

    @property
    def scalars(self) -> list[str]:
        """Measures that are no lists."""
        return [measure for measure in self.study.measures if not is_list(self.rows, measure)]


def make_report(
    study: Study,
    budget: str,
    rows: Sequence[Row],
    seeds: int | None = None,
    commands: Mapping[str, Sequence[str]] | None = None,
) -> Report:
    """A study's results with their verdict; arguments as of `decide`.

    Args:
        commands: of each arm, for its first seed.
    """
    known = [row for row in rows if row.arm in study.arms]
    return Report(study, budget, known, decide(study, budget, known, seeds), commands or {})


def print_report(report: Report) -> None:
    """Print the tables, and at the end the verdict."""
    print_sections([Section("", [arm_table(report), finding_table(report)])], report.lead)


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
        Section("Results", [describe_origin(report.study), first, arm_table(report), *others]),
        Section("Statements", [finding_table(report)]),
        Section("Arms", [settings_table(report.study), describe_size(report)]),
        Section("Seeds", [seed_table(report)], folded=True),
        Section("Commands", command_parts(report), folded=True),
        Section("Environment", environment_parts(report.rows), folded=True),
    ]


def describe_origin(study: Study) -> str:
    """Where the claim is made."""
    notes = study.notes if study.notes.endswith("?") else f"{study.notes.rstrip('.')}."
    return f"Lecture notes: {notes} Paper: {study.paper.rstrip('.')}."


def main_figures(report: Report) -> list[Part]:
    """A figure for each measure that varies, that of the first one first."""
    shown = [measure for measure in report.study.measures if measure not in EXACT] or report.study.measures
    return [Figure(figure_title(report, name), main_chart(report.study, report.rows, name)) for name in shown]


def figure_title(report: Report, measure: str) -> str:
    """The caption of a measure's figure."""
    name = measure_name(measure)
    marks = f"means with {LEVEL:.0%} intervals over seeds"
    crosses = "; crosses: runs that diverged, which count as guessing" if report.verdict.diverged else ""
    dots = "" if is_list(report.rows, measure) else f"; dots: seeds{crosses}"
    return f"{name[:1].upper()}{name[1:]}: {marks}{dots}"


def arm_table(report: Report) -> Table:
    """A row for each arm: its measures with intervals, results and runs that diverged."""
    columns: dict[str, list[Summary]] = {name: summarize(report.study, report.rows, name) for name in report.scalars}
    counts = {name: [row for row in report.rows if row.arm == name] for name in report.study.arms}
    diverged = {name: sum(row.state == "diverged" for row in rows) for name, rows in counts.items()}
    rows = [
        [name, str(len(counts[name])), *(value_cell(measure, each[index]) for measure, each in columns.items())]
        + ([str(diverged[name])] if any(diverged.values()) else [])
        for index, name in enumerate(report.study.arms)
    ]
    titles = [f"{measure_name(name)}{', %' if is_share(name) else ''}" for name in columns]
    lost = ["diverged"] if any(diverged.values()) else []
    note = f"In brackets: {LEVEL:.0%} interval of the mean over the seeds."
    if lost:
        note += " The error of a run that diverged counts as that of guessing, and so does its loss."
    return Table(f"Results at {report.budget}", ["<arm", "n", *titles, *lost], rows, note=note)


def value_cell(measure: str, summary: Summary) -> str:
    """A mean with its interval."""
    if summary.mean is None:
        return ""
    if summary.interval is None or measure in EXACT:
        return number_cell(measure, summary.mean)
    low, high = (number_cell(measure, end) for end in summary.interval)
    return f"{number_cell(measure, summary.mean)} [{low}, {high}]"


def number_cell(measure: str, value: float) -> str:
    """A value without its unit, which the heading has."""
    return f"{100 * value:.2f}" if is_share(measure) else format_number(value)


def finding_table(report: Report) -> Table:
    """A row for each statement that would support the claim."""
    findings = report.verdict.findings
    rows = [
        [
            state_claim(each.expectation),
            difference_cell(each),
            interval_cell(each),
            "" if each.p_holm is None else f"{each.p_holm:.2g}",
            each.outcome,
            each.takes,
        ]
        for each in findings
    ]
    columns = ["<statement", "difference", f"{LEVEL:.0%} interval", "p (Holm)", "<outcome", "<to decide"]
    if not any(each.takes for each in findings):
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    title = f"What would support the claim, and what was found{'' if report.verdict.is_complete else ' so far'}"
    return Table(title, columns, rows, note=finding_note(findings))


def difference_cell(finding: Finding) -> str:
    """A difference with its sign, or a ratio."""
    if finding.difference is None:
        return ""
    if finding.expectation.factor:
        return f"x {format_number(finding.difference)}"
    return signed(finding.expectation.measure, finding.difference)


def interval_cell(finding: Finding) -> str:
    """The interval of a difference or a ratio."""
    if finding.interval is None:
        return ""
    measure, ratio = finding.expectation.measure, finding.expectation.factor
    return " to ".join(f"x {format_number(end)}" if ratio else signed(measure, end) for end in finding.interval)


def signed(measure: str, value: float) -> str:
    """A difference with its sign."""
    return f"{'-' if value < 0 else '+'}{format_difference(measure, abs(value)).removesuffix(' points')}"


def finding_note(findings: Sequence[Finding]) -> str:
    """How the statements were tested."""
    methods = [each.method for each in findings if each.method]
    tests = "; ".join(text for name, text in METHODS.items() if name in methods)
    points = (
        " Differences of errors are in points." if any(is_error(each.expectation.measure) for each in findings) else ""
    )
    ratio = (
        " x: ratios of geometric means, tested in logarithms."
        if any(each.expectation.factor for each in findings)
        else ""
    )
    if not tests:
        return ""
    return (
        f"Test: {tests}. A difference is that of the first arm minus the second.{points}{ratio} Evidence: p < {ALPHA} "
        "after Holm's correction for all statements that are tested; an interval is that of its statement alone."
    )


def settings_table(study: Study) -> Table:
    """What differs between the arms."""
    described = {name: describe_arm(arm) for name, arm in study.arms.items()}
    keys = list(dict.fromkeys(key for settings in described.values() for key in settings))
    rows = [[name, *(settings.get(key, ABSENT) for key in keys)] for name, settings in described.items()]
    note = f"{ABSENT}: as the study, its size or the code has it."
    return Table("Settings of the arms", ["<arm", *(f"<{key}" for key in keys)], rows, note=note if keys else "")


def describe_arm(arm: Arm) -> dict[str, str]:
    """The flags of an arm, and what else sets it apart."""
    settings = {key: str(value) for key, value in (arm.settings or {}).items()}
    tests = {f"test: {key}": str(value) for key, value in (arm.test_settings or {}).items()}
    configs = {"config": ", ".join(arm.configs)} if arm.configs else {}
    test_configs = {"test: config": ", ".join(arm.test_configs)} if arm.test_configs else {}
    members = {"members": str(arm.members)} if arm.members > 1 else {}
    checkpoint = {"checkpoint": arm.checkpoint} if arm.checkpoint != "last" else {}
    return configs | settings | test_configs | tests | members | checkpoint


def describe_size(report: Report) -> str:
    """What all arms have in common at this size."""
    budget = report.study.budget(report.budget)
    flags = ", ".join(f"{key} {value}" for key, value in budget.settings.items())
    base = ", ".join(budget.base)
    return f"All arms: {base}{f', with {flags}' if flags else ''}; {pluralize(budget.seeds, 'seed')} each."


def seed_table(report: Report) -> Table:
    """A row for each result."""
    order = list(report.study.arms)
    rows = [
        [
            row.arm,
            str(row.seed),
            row.state,
            *(format_value(name, plain(row.measures.get(name))) for name in report.scalars),
            duration(row.seconds),
        ]
        for row in sorted(report.rows, key=lambda row: (order.index(row.arm), row.seed))
    ]
    columns = ["<arm", "seed", "<state", *map(measure_name, report.scalars), "time"]
    return Table("Results of the seeds", columns, rows)


def plain(value: Any) -> float | None:
    """A number of a row; None for anything else."""
    return value if isinstance(value, int | float) else None


def command_parts(report: Report) -> list[Part]:
    """The commands of each arm for its first seed."""
    rows = [[arm, line] for arm, lines in report.commands.items() for line in lines]
    if not rows:
        return []
    return [Table("Commands of each arm, for its first seed", ["<arm", "<command"], rows)]


def environment_parts(rows: Sequence[Row]) -> list[Part]:
    """Commits and machines of the results, and the time that they took."""
    if not rows:
        return []
    kinds: dict[tuple[str, ...], list[Row]] = {}
    names = list(dict.fromkeys(name for row in rows for name in row.environment))
    for row in rows:
        kinds.setdefault((row.code_version[:SHORT], *(row.environment.get(name, "") for name in names)), []).append(row)
    cells = [[str(len(group)), duration(sum(row.seconds for row in group)), *kind] for kind, group in kinds.items()]
    return [Table("Commits and machines", ["results", "time", "<commit", *(f"<{name}" for name in names)], cells)]


def describe_machine(rows: Sequence[Row]) -> str:
    """Commits and machines in a line, for a document."""
    commits = sorted({row.code_version[:SHORT] for row in rows if row.code_version})
    machines = sorted({name_machine(row.environment) for row in rows} - {""})
    return "; ".join(filter(None, [f"commit {', '.join(commits)}" if commits else "", ", ".join(machines)]))


def name_machine(environment: Mapping[str, str]) -> str:
    """A machine with its threads, as run.json has it."""
    threads = environment.get("threads")
    return f"{environment.get('device', '')}{f', {threads} threads' if threads else ''}".strip(", ")
