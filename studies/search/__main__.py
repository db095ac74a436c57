"""Cell search: a controller trained by REINFORCE or PPO, regularised evolution and random search, side by side.

python -m studies.search --reward table --seeds 20 --html search.html       # NAS-Bench-201's cells, after 12 epochs
python -m studies.search --reward train --method reinforce --evaluations 40 --processes 2   # NASNet's, on digits
python -m studies.search --reward train --config configs/cifar10/nasnet_child.yaml --data.root data

`--reward table` reads the accuracy of each of the 15,625 cells from a table; a search takes a second. `--reward train`
trains a small net for each cell, by ordinary runs of main.py fit (its flags --config, --data, --model and --trainer are
handed on); a search that was interrupted goes on where it was. Both write the best cell as a config for main.py fit.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from errors import check_at_least
from lit_models.nets.layers import check_choice
from reports.command import Parser, print_sections
from reports.outputs import add_output_flags, check_file, check_outputs, write_outputs
from studies.search.report import Findings, to_facts, to_sections, verdicts
from studies.search.rewards import VAL_IMAGES
from studies.search.search import Search
from studies.search.settings import (
    FEW_EVALUATIONS,
    HELP,
    METHODS,
    check_settings,
    choose_settings,
    make_method,
    settings_of,
)
from studies.search.tasks import Task, table_task, train_task, val_images, write_best_cell

EVALUATIONS = {"table": 500, "train": 40}  # of a search, by reward


def run_searches(given: argparse.Namespace, task: Task, names: list[str]) -> dict[str, list[Search]]:
    """All searches, seed by seed, with a line for each."""
    found: dict[str, list[Search]] = {name: [] for name in names}
    defaults = FEW_EVALUATIONS if given.reward == "train" else {}
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for name in names:
            settings = choose_settings(name, defaults | given_settings(given))
            search, method = Search(name, seed, settings), make_method(name, task.space, seed, settings)
            path = task.folder / f"{name}-{seed}.pt" if task.resumable else None
            if path:
                search.load(method, path)
            begin = time.monotonic()
            for done in search.run(method, task.reward, given.evaluations, path):
                if task.resumable:
                    print(progress(search, done, given.evaluations, time.monotonic() - begin), flush=True)
            search = search.truncated(given.evaluations)
            print(result_line(search), flush=True)
            found[name].append(search)
    return found


def progress(search: Search, done: int, evaluations: int, seconds: float) -> str:
    """A line after a batch of trainings."""
    best = search.best[1].validation
    last = search.outcomes[-1].validation
    return (
        f"{search.method}, seed {search.seed}: {done}/{evaluations}  last {100 * last:.2f} %  best {100 * best:.2f} %  "
        f"{seconds:.0f} s"
    )


def result_line(search: Search) -> str:
    """A line after a search."""
    best = search.best[1]
    found = int(search.best_indices()[-1]) + 1
    return (
        f"{search.method}, seed {search.seed}: best of {len(search.proposals):,} cells by validation "
        f"{100 * best.validation:.2f} %, test {100 * best.test:.2f} % (evaluation {found})"
    )


def given_settings(given: argparse.Namespace) -> dict[str, Any]:
    """The settings of methods that the user gave."""
    return {name: value for name in HELP if (value := getattr(given, name)) is not None}


def choose_methods(given: argparse.Namespace) -> list[str]:
    """The methods to run; beside them random search, where it costs nothing."""
    names = list(dict.fromkeys(given.method or (METHODS if given.reward == "table" else ["reinforce"])))
    check_settings(names, given_settings(given))
    if given.reward == "table" and "random" not in names:
        names.append("random")
    return names


def report(given: argparse.Namespace) -> None:
    """Search, print what was found, and write the files."""
    check_choice("reward", given.reward, EVALUATIONS)
    if given.evaluations is None:
        given.evaluations = EVALUATIONS[given.reward]
    check_at_least(1, seeds=given.seeds, evaluations=given.evaluations)
    check_at_least(0, first_seed=given.first_seed)
    names = choose_methods(given)
    check_outputs(given)
    if given.best:
        check_file(given.best)
    torch.set_num_threads(1)  # equal numbers on any machine; sums of more threads have another order
    task = table_task(given) if given.reward == "table" else train_task(given)
    findings = Findings(run_searches(given, task, names), task.images or val_images(task), task.data)
    sections = to_sections(findings, task.space, task.notes)
    lead = (verdicts(findings) or [result_line(findings.best) + "."])[0]
    print_sections(sections[:2], lead)
    write_best_cell(given, task, findings)
    title = f"Cell search: {task.space.name}, {task.data}"
    write_outputs(given, title, sections, to_facts(findings, task.space), lead)


def main(args: list[str] | None = None) -> None:
    """The command line; `args` are by default those of the process."""
    parser = Parser("studies.search", __doc__)
    add = parser.add_argument
    add("--reward", default="table", metavar="KIND", help="table or train (table)")
    add("--method", nargs="+", metavar="NAME", help=f"{', '.join(METHODS)} (table: all; train: reinforce)")
    add("--seeds", type=int, default=1, metavar="N", help="searches of each method, with seeds from 0 on (1)")
    add("--first_seed", type=int, default=0, metavar="S", help="begin with another seed (0)")
    add("--evaluations", type=int, default=None, metavar="N", help="of each search (table: 500; train: 40)")
    add("--dataset", metavar="NAME", help=f"of the table: {', '.join(VAL_IMAGES)} (cifar10)")
    add("--table", type=Path, metavar="FILE", help="another copy of the table")
    add("--rows", type=int, metavar="B", help="of each of the two cells whose children are trained (5)")
    add("--processes", type=int, default=1, metavar="N", help="children that are trained at the same time (1)")
    add("--runs", type=Path, default=Path("runs/search"), metavar="DIR", help="folder of the search (runs/search)")
    add("--best", type=Path, metavar="FILE", help="config of the best cell (best.yaml in the folder of the search)")
    for name, text in HELP.items():
        default = next(settings[name] for settings in map(settings_of, METHODS) if name in settings)
        add(f"--{name}", type=type(default), metavar="N", help=text)
    add_output_flags(parser)
    try:
        parser.run(report, args)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
