"""The tables of a study's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from reports.comparison_tables import duration
from reports.groups import ABSENT
from reports.html_page import Part, Table
from reports.hypothesis_tests import ALPHA, LEVEL
from studies.report import Report
from studies.results import Row
from studies.study import Arm, Study
from studies.summary import Summary, summarize
from studies.units import EXACT, format_difference, format_number, format_value, is_share, measure_name
from studies.verdict import Finding
from studies.wording import state_claim

SHORT = 12  # digits of a commit
METHODS = {
    "Welch": "Welch's t-test over the seeds",
    "paired t": "a paired t-test, for both arms measured the same nets",
    "t": "a t-test over the seeds",
    "exact": "nothing to test, for all seeds are equal",
}


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
    has_intervals = any(each.interval for name, column in columns.items() for each in column if name not in EXACT)
    note = f"In brackets: {LEVEL:.0%} interval of the mean over the seeds." if has_intervals else ""
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
        " Differences of percentages are in points."
        if any(is_share(each.expectation.measure) for each in findings)
        else ""
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
    start = {"start_from": arm.start_from} if arm.start_from else {}
    return configs | settings | start | test_configs | tests | members | checkpoint


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
    threads = environment.get("threads", "")
    words = f", {threads} thread{'' if threads == '1' else 's'}" if threads else ""
    return f"{environment.get('device', '')}{words}".strip(", ")
