"""The tables of a comparison of runs."""

from collections.abc import Callable, Sequence
from itertools import chain, islice

import numpy as np

from errors import pluralize
from reports.command import SELECTION_NOTE, selection_mark
from reports.comparison import UNFINISHED, Entry, Findings
from reports.groups import ABSENT
from reports.html_page import Table
from reports.hypothesis_tests import ALPHA, LEVEL
from reports.papers.architectures import ARCHITECTURES
from reports.run import Run, training_seconds
from reports.significance import Comparison
from reports.zoo_errors import is_run_of

MAX_COLUMNS = 5  # groups or settings side by side
MAX_SETTINGS = {"across": 8, "down": 100}  # that differ, as columns and as rows
HUGE = 1e9  # no error, rate or number of hours is larger
EMPTY = ""


def main_table(findings: Findings) -> Table:
    """A row for each group: its errors, what it costs, what its paper prints, and how far its runs came."""
    entries, basis = findings.entries, findings.basis
    columns: dict[str, Callable[[Entry], str]] = {
        "<runs": lambda entry: entry.label + selection_mark({"selected_on_test": entry.selected_on_test}),
        "n": lambda entry: str(len(entry.errors)),
        f"{basis.name}, %": error_cell,
        "s. d.": lambda entry: percent(entry.deviation),
        "best val., %": lambda entry: percent(mean_over(entry.group.runs, best_validation)),
        "last val., %": lambda entry: percent(mean_final_validation(entry.group.runs)),
        "parameters": lambda entry: count(mean_over(entry.group.runs, parameters)),
        "multiply-adds": lambda entry: count(mean_over(entry.group.runs, multiply_adds)),
        "images/s": lambda entry: rounded_count(mean_over(entry.group.runs, images_per_second)),
        "time": lambda entry: duration(mean_over(entry.group.runs, seconds)),
        "<paper, %": lambda entry: published_error(entry.group.runs[0]),
        "<state": lambda entry: describe_states(entry.group.runs),
    }
    rows = [[cell(entry) for cell in columns.values()] for entry in entries]
    filled = [index for index in range(len(columns)) if index < 3 or any(row[index] for row in rows)]
    title = f"{basis.name.capitalize()} and cost of {pluralize(len(entries), 'group')} of runs"
    note = " ".join(
        [
            "n: runs that differ in their seed alone, whose mean is shown; s. d.: their standard deviation, in points.",
            "Best and last: validation error, lowest and at the end. Images/s and time: of the training, "
            "on its machine and with what else that did.",
            *([SELECTION_NOTE] if any(entry.selected_on_test for entry in entries) else []),
        ]
    )
    cells = [[row[index] for index in filled] for row in rows]
    return Table(title, [list(columns)[index] for index in filled], cells, 0 if first_is_best(findings) else None, note)


def first_is_best(findings: Findings) -> bool:
    """Whether there is evidence that the first group is better than each other one that has an error."""
    first, *others = [entry.label for entry in findings.entries if np.isfinite(entry.mean)] or [""]
    beaten = {pair.b for pair in findings.pairs if pair.a == first and pair.verdict == "A is better"}
    return bool(others) and beaten >= set(others)


def error_cell(entry: Entry) -> str:
    """The mean error of a group; "1 of 5 diverged" where the mean of the others would flatter it."""
    if 0 < entry.diverged < len(entry.errors):
        return f"{entry.diverged} of {len(entry.errors)} diverged"
    return percent(entry.mean if entry.errors else None)


def pair_table(findings: Findings) -> Table:
    """The differences between groups, and which of them are evidence."""
    rows = [
        [
            pair.a,
            pair.b,
            EMPTY if pair.difference is None else f"{100 * pair.difference:+.2f}",
            EMPTY if pair.interval is None else "{:+.2f} to {:+.2f}".format(*(100 * end for end in pair.interval)),
            EMPTY if pair.p_holm is None else f"{pair.p_holm:.2g}",
            percent(pair.smallest_detectable),
            describe_verdict(pair),
        ]
        for pair in findings.pairs
    ]
    columns = ["<A", "<B", "A - B, points", f"{LEVEL:.0%} interval", "p (Holm)", "least", "<verdict"]
    return Table("Differences between the groups", columns, rows, note=pair_note(findings.pairs))


def describe_verdict(pair: Comparison) -> str:
    """The verdict on a pair, with the test that decided it, or the reason why none did."""
    if pair.verdict == "not tested":
        return f"not tested: {pair.reason}"
    name = {"A is better": f"{pair.a} is better", "B is better": f"{pair.b} is better"}.get(pair.verdict, pair.verdict)
    return f"{name} ({pair.method})"


def pair_note(pairs: Sequence[Comparison]) -> str:
    """What the columns of `pair_table` mean, as far as they have values."""
    tested = [pair for pair in pairs if pair.method]
    if not tested:
        return ""
    methods = {pair.method: pair.interval_covers for pair in tested}
    tests = {"McNemar": "McNemar's exact test on the images", "Welch": "Welch's t-test over the seeds"}
    covers = "; ".join(f"{tests[name]}: the interval covers {covered}" for name, covered in methods.items() if name)
    return (
        f"One test decides each pair. {covers}. Better: p < {ALPHA} after Holm's correction for all pairs; "
        "an interval is that of its pair alone. Least: the smallest difference, in points, that would be evidence "
        "with as many images and seeds."
    )


def settings_table(findings: Findings) -> Table | None:
    """What differs between the configs of the groups; None if nothing does."""
    groups = [entry.group for entry in findings.entries]
    differences = {key: [group.values[key] for group in groups] for key in groups[0].values}
    if not differences:
        return None
    title, labels = "Settings that differ", [group.label for group in groups]
    most = MAX_SETTINGS["down" if len(groups) <= MAX_COLUMNS else "across"]
    shown = dict(islice(differences.items(), most))
    more = f" {len(differences) - most:,} more settings differ: --json has them." if len(differences) > most else ""
    has_absent = any(ABSENT in values for values in shown.values())
    note = f"{ABSENT}: not given, or null: as the code has it by default.{more}" if has_absent else more.strip()
    if len(groups) <= MAX_COLUMNS:
        rows = [[key, *values] for key, values in shown.items()]
        return Table(title, ["<setting", *(f"<{label}" for label in labels)], rows, note=note)
    rows = [[label, *(values[k] for values in shown.values())] for k, label in enumerate(labels)]
    return Table(title, ["<runs", *(f"<{key}" for key in shown)], rows, note=note)


def run_table(findings: Findings) -> Table:
    """A row for each run: seed, state, errors, and where it lies."""
    rows = [
        [
            entry.label,
            run.version,
            "" if run.seed is None else str(run.seed),
            run.state,
            percent(final_validation(run)),
            *test_cells(findings, run),
            run.reason,
            run.location,
        ]
        for entry in findings.entries
        for run in entry.group.runs
    ]
    columns = ["<group", "<run", "seed", "<state", "last val., %", f"{findings.basis.name}, %", "<tested"]
    return Table("Runs", [*columns, "<remarks", "<location"], rows)


def test_cells(findings: Findings, run: Run) -> tuple[str, str]:
    """The error of a run that is compared, and with what it was found."""
    result = findings.basis.find_result(run)
    if result is None:
        return "", ""
    return percent(result.metrics["top1_error"]), f"{result.checkpoint}.ckpt, {result.protocol}"


def environment_parts(findings: Findings) -> list[str | Table]:
    """Commit and machine, as far as they are the same for all commands on the runs, and a table of these commands."""
    sessions = [(run.name, session) for run in findings.runs if run.facts for session in run.facts.sessions]
    if not sessions:
        return []
    settings = [{"commit": session.code_version[:12]} | session.environment for _, session in sessions]
    common = {name: value for name, value in settings[0].items() if all(each.get(name) == value for each in settings)}
    names = [name for name in dict.fromkeys(chain.from_iterable(settings)) if name not in common]
    rows = [
        [run, session.started, session.outcome, *(each.get(name, EMPTY) for name in names), session.command]
        for (run, session), each in zip(sessions, settings, strict=True)
    ]
    columns = ["<run", "<started", "<outcome", *(f"<{name}" for name in names), "<command"]
    shared = [f"All commands: {', '.join(f'{name} {value}' for name, value in common.items())}."] if common else []
    return [*shared, Table("Commands", columns, rows)]


def mean_over(runs: Sequence[Run], value: Callable[[Run], float | None]) -> float | None:
    """The mean of a value over the runs that have it, and have come to an end if any has; None if none has it."""
    runs = [run for run in runs if run.state not in UNFINISHED] or runs
    values = [found for run in runs if (found := value(run)) is not None and np.isfinite(found)]
    return float(np.mean(values)) if values else None


def best_validation(run: Run) -> float | None:
    """The lowest validation error of a training; None without any."""
    curve = run.curve(["val/top1_error"])
    return None if curve is None or np.isnan(curve.values).all() else float(np.nanmin(curve.values))


def final_validation(run: Run) -> float | None:
    """The last validation error of a training; None without any."""
    curve = run.curve(["val/top1_error"])
    return None if curve is None else curve.last


def mean_final_validation(runs: Sequence[Run]) -> float | None:
    """The mean of the last validation errors; NaN where a run has diverged, since those of the others would flatter."""
    return np.nan if any(run.state == "diverged" for run in runs) else mean_over(runs, final_validation)


def parameters(run: Run) -> int | None:
    """Of the run's model."""
    return run.facts.model.parameters if run.facts else None


def multiply_adds(run: Run) -> int | None:
    """Of one forward pass of the run's model."""
    return run.facts.model.multiply_adds if run.facts else None


def published_error(run: Run) -> str:
    """What the paper reports of the run's architecture on the run's data set; nothing where it reports none."""
    return next((row.error for row in ARCHITECTURES if row.error and is_run_of(row, run)), EMPTY)


def images_per_second(run: Run) -> float | None:
    """The median over the training."""
    curve = run.curve(["train/images_per_s"])
    rates = curve.values[np.isfinite(curve.values)] if curve else np.array([])
    return float(np.median(rates)) if len(rates) else None


def seconds(run: Run) -> float | None:
    """The time that the training took."""
    curve = training_seconds(run)
    return None if curve is None else curve.last


def percent(value: float | None) -> str:
    """An error or a difference in percent or points; "diverged" for NaN, nothing for None."""
    if value is None:
        return EMPTY
    if not np.isfinite(value):
        return "diverged"
    return f"{100 * value:.2f}" if abs(value) < HUGE else f"{100 * value:.1e}"


def count(value: float | None) -> str:
    """A count with its unit: 0.27 M, 4.1 G."""
    if value is None:
        return EMPTY
    units = {1e9: " G", 1e6: " M", 1e3: " k", 0.0: ""}
    size = next(size for size in units if value >= size)
    return f"{value / (size or 1):.3g}{units[size]}"


def rounded_count(value: float | None) -> str:
    """A rate to three digits, such as 1,230."""
    if value is None:
        return EMPTY
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) < HUGE else f"{value:.1e}"


def duration(value: float | None) -> str:
    """Seconds as 34 s, 12 min or 3.4 h."""
    if value is None:
        return EMPTY
    if value >= 7200:
        return f"{value / 3600:.1f} h" if value < HUGE else f"{value / 3600:.1e} h"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def describe_states(runs: Sequence[Run]) -> str:
    """How far the runs came: finished, or 4 finished, 1 killed."""
    states = [run.state for run in runs]
    if len(set(states)) == 1:
        return states[0]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
