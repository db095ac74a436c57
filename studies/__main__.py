"""Studies: claims of the papers, each an experiment that trains its arms over several seeds and says what came of it.

python -m studies --list
python -m studies residual_against_plain                              # about five minutes on two cores, no download
python -m studies residual_against_plain --budget 30min --data.root data
python -m studies all

What is done is stored: the same command, typed again, goes on where it was stopped. `--print` writes the commands
instead, a line for each run, for GNU parallel, SLURM arrays or W&B agents: see docs/studies.md. A study of your own is
a YAML file, whose path stands for NAME.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from callbacks.stop_signals import EXIT_STATUS
from errors import UserError, check_at_least, printable_lines
from reports.command import Parser, print_sections
from reports.html_page import Section, Table
from studies import results
from studies.claims import read_reports
from studies.page import print_report, write_page
from studies.progress import ProgressLines
from studies.report import make_report
from studies.runner import Runner, make_rows, refuse_unwritable
from studies.study import Study
from studies.study_file import find_study, list_studies
from studies.workers import default_processes, work_beside

INTERRUPTED = "What is done is stored: the same command goes on."
# Flags that say where data lie and how they are loaded, and change no number
DATA_FLAGS = re.compile(r"--data\.(root|num_workers)=.*", re.DOTALL)


def report(given: argparse.Namespace) -> None:
    """Run the studies, or list them, or print their commands."""
    refuse_other_flags(given.flags)
    if given.list or not given.names:
        print_sections([Section("", [list_table(given.results)])], "Run one: python -m studies NAME [--budget SIZE]")
        return
    studies = [find_study(name) for name in (list_studies() if given.names == ["all"] else given.names)]
    if given.names == ["all"]:
        studies = [study for study in studies if given.budget in study.budgets]
        if not studies:
            raise UserError(
                f"No study has the budget {given.budget}: `python -m studies --list` shows the sizes of each."
            )
    processes = default_processes() if given.processes is None else given.processes
    check_at_least(1, processes=processes)
    torch.set_num_threads(1)  # equal numbers on any machine; sums of more threads have another order
    arguments = (given.budget, given.seeds, given.runs, given.results, given.flags)
    runners = [Runner(study, *arguments) for study in studies]
    if given.print:
        lines = [line for runner in runners for line in runner.shell_lines()]
        print(*lines, sep="\n")
        return
    errors = [error for runner in runners if (error := run_study(runner, processes, goes_on=len(runners) > 1))]
    if errors:
        raise UserError(f"{len(errors)} of {len(runners)} studies ended early: {errors[0]}")


def run_study(runner: Runner, processes: int, goes_on: bool) -> UserError | None:
    """Run a study and print what came of it.

    Args:
        runner: of the study.
        processes: that make results at the same time.
        goes_on: whether to print an error and return it, for there are other studies.
    """
    try:
        runner.check()
        show_results(runner, processes)
    except UserError as error:
        if not goes_on:
            raise
        print(f"error: {printable_lines(error)}", file=sys.stderr, flush=True)
        return error
    return None


def show_results(runner: Runner, processes: int) -> None:
    """Make the results that are missing, and print and write what came of them."""
    study, stored = runner.study, runner.stored_rows()
    total = len(study.arms) * runner.seeds
    done = f", of which {total - left} are stored" if (left := len(runner.missing())) < total else ""
    print(f"{study.name} ({runner.budget.name}): {study.claim}\n{total} results{done}.", flush=True)
    if not left:
        print(f"Nothing is left to train; --results DIR makes results of your own beside {runner.path}.", flush=True)
    lines = ProgressLines(runner, stored, processes)
    with work_beside(min(processes, len(runner.missing())) - 1, make_rows, runner.arguments):
        for row in runner.run():
            lines.print(row)
    made = make_report(study, runner.budget.name, runner.stored_rows(), runner.seeds, runner.commands())
    print_report(made)
    with refuse_unwritable():
        runner.runs.mkdir(parents=True, exist_ok=True)
    write_page(made, runner.runs)


def refuse_other_flags(flags: Sequence[str]) -> None:
    """Raise UserError for flags of main.py that would change the results of a study."""
    for flag in flags:
        if not DATA_FLAGS.fullmatch(flag):
            raise UserError(
                f"A study sets {flag.partition('=')[0]} itself, and takes --data.root and --data.num_workers: write "
                "other settings into a YAML file of your own."
            )


def list_table(folder: Path) -> Table:
    """All studies."""
    rows = []
    for name in list_studies():
        study = find_study(name)
        rows.append([name, study.claim, ", ".join(study.budgets), stored(study, folder)])
    return Table("Studies", ["<name", "<claim", "<sizes", "<verdict"], rows)


def stored(study: Study, folder: Path) -> str:
    """The verdict at each size of a study that has stored results."""
    verdicts = [report.verdict for report in read_reports(study, folder)]
    return "; ".join(f"{each.budget}: {each.outcome if each.is_complete else each.progress}" for each in verdicts)


def main(args: list[str] | None = None) -> None:
    """The command line; `args` are by default those of the process."""
    parser = Parser("studies", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a study, `all`, or the path of a YAML file")
    parser.add_argument("--budget", default="5min", metavar="SIZE", help="size of the study: 5min, 30min, ... (5min)")
    parser.add_argument("--seeds", type=int, metavar="N", help="results of each arm (those of the budget)")
    parser.add_argument("--processes", type=int, metavar="N", help="that train at the same time (one for each core)")
    parser.add_argument("--list", action="store_true", help="name all studies, with their sizes and results")
    parser.add_argument("--print", action="store_true", help="print the commands, and run none")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), metavar="DIR", help="(runs/studies)")
    parser.add_argument("--results", type=Path, default=results.FOLDER, metavar="DIR", help="(studies/results)")
    try:
        parser.run(report, args)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except SystemExit as stop:
        if stop.code in EXIT_STATUS.values():
            print(INTERRUPTED, file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
