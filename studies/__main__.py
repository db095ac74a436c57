"""Studies: claims on the classic ConvNets, each an experiment that trains its arms and says what came of it.

python -m studies residual_against_plain
python -m studies residual_against_plain --budget 30min --data.root data
"""

import argparse
import sys
from pathlib import Path

from reports.command import Parser
from studies import results
from studies.runner import Runner
from studies.study import find_study


def report(given: argparse.Namespace) -> None:
    """Run the studies."""
    for name in given.names:
        study = find_study(name)
        budget = study.budget(given.budget)
        runner = Runner(study, budget, given.seeds or budget.seeds, given.runs, given.results, given.flags)
        runner.check()
        for row in runner.run():
            print(row.arm, row.seed, row.state, row.measures, row.seconds, flush=True)


def main(args: list[str] | None = None) -> None:
    """The command line; `args` are by default those of the process."""
    parser = Parser("studies", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a study, or its YAML file")
    parser.add_argument("--budget", default="5min", metavar="SIZE", help="of the study (5min)")
    parser.add_argument("--seeds", type=int, metavar="N", help="results of each arm (those of the budget)")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), metavar="DIR", help="(runs/studies)")
    parser.add_argument("--results", type=Path, default=results.FOLDER, metavar="DIR", help="(studies/results)")
    try:
        parser.run(report, args)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
