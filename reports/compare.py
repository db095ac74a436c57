"""Which run is better, why, and is the difference real: training runs side by side, in the terminal and on a page.

python -m reports.compare runs/digits
python -m reports.compare runs/digits/resnet20 runs/digits/plain20 --html comparison.html
python -m reports.compare --wandb ENTITY/PROJECT --filters '{"tags": "digits"}' --json comparison.json

Runs of one experiment that differ in their seed alone are a group. Errors are those of `main.py test`, or else those of
the last validation. One test decides each pair: McNemar's on the images for two single runs, Welch's over the seeds for
groups of three or more; "better" is said at p < 0.01 after Holm's correction for all pairs. Nothing is trained or
tested. Pictures of images need the data where the runs had them, or --data.root DIR.
"""

import argparse

from errors import UserError
from reports import comparison_page
from reports.command import Parser, print_sections
from reports.comparison import Findings, choose_basis, compare
from reports.html_page import markdown
from reports.outputs import add_output_flags, check_outputs, write_outputs
from reports.run import Run
from reports.run_sources.local import find_runs, read_run
from reports.run_sources.online import load_wandb, parse_filters
from reports.verdict import verdict

TITLE = "Comparison of runs"


def report(given: argparse.Namespace) -> None:
    """Read the runs, compare them, print the tables and write the files."""
    check_outputs(given)
    if given.wandb_report and given.wandb is None:
        raise UserError("--wandb-report makes a report of runs on W&B: give --wandb ENTITY/PROJECT instead of folders.")
    runs = read_runs(given)
    findings = compare(runs, choose_basis(runs, given.protocol, given.checkpoint), given.baseline)
    lead = verdict(findings)
    sections = comparison_page.overview(findings)
    print_sections(sections, lead)
    if given.html or given.markdown or given.latex or given.svg or given.wandb_report:
        sections += comparison_page.details(findings, given.flags)
    write_outputs(given, TITLE, sections, comparison_page.facts(findings), lead)
    if given.wandb_report:
        publish_report(given.wandb, findings, lead, markdown(TITLE, sections, lead))


def read_runs(given: argparse.Namespace) -> list[Run]:
    """The runs that the user names.

    Raises:
        UserError: if there are none.
    """
    if given.wandb is None:
        if given.filters is not None:
            raise UserError("--filters chooses among the runs of a W&B project: give --wandb ENTITY/PROJECT too.")
        return [read_run(path) for path in find_runs(given.runs)]
    if given.runs:
        raise UserError(f"--wandb reads runs from W&B, and {given.runs[0]} is a path: give one of the two.")
    return load_wandb(given.wandb, None if given.filters is None else parse_filters(given.filters))


def publish_report(project: str, findings: Findings, lead: str, text: str) -> None:
    """Make a report of the comparison on W&B, and print its address."""
    from reports.wandb_report import publish

    groups = {label: [run.version for run in runs] for label, runs in findings.groups.items()}
    print(f"W&B report: {publish(project, TITLE, lead, text, groups)}")


def main(args: list[str] | None = None) -> None:
    """The command line of this report; `args` are by default those of the process."""
    parser = Parser("reports.compare", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="runs, folders of runs, or patterns in quotes")
    parser.add_argument("--baseline", metavar="GROUP", help="compare all others with this group, by its label or a run")
    parser.add_argument("--protocol", metavar="NAME", help="of the tests (the one that most runs have)")
    parser.add_argument("--checkpoint", metavar="NAME", help="that was tested: best, last, ... (best)")
    add_output_flags(parser)
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT", help="read the runs of a W&B project instead of folders")
    parser.add_argument("--filters", metavar="JSON", help="for --wandb: which runs, for W&B's public API")
    parser.add_argument("--wandb-report", action="store_true", help="for --wandb: publish the comparison as a report")
    parser.run(report, args)


if __name__ == "__main__":
    main()
