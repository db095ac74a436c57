"""What is searched: NAS-Bench-201's cells with a table of their accuracies, or NASNet's with child nets."""

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cli.messages import HOME
from errors import UserError
from reports.run_sources.local import read_run
from studies.commands import shown
from studies.search.best_config import CHILD_EXPERIMENT, TABLE_EXPERIMENT, write_best
from studies.search.children import TrainReward
from studies.search.report import Findings
from studies.search.rewards import TABLE, VAL_IMAGES, Reward, TableReward, best_row
from studies.search.spaces import NASBench201Space, NASNetSpace, Space

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}


class Task(NamedTuple):
    """What is searched, and how cells are rewarded.

    Args:
        space: of the cells.
        reward: of a cell.
        images: number of validation images behind a reward.
        data: of the accuracies.
        experiment: the YAML file whose cell is replaced by the best one.
        flags: of `main.py fit` for that file.
        folder: for what the search writes.
        resumable: whether the state of the search is kept there.
        notes: for the page.
    """

    space: Space
    reward: Reward
    images: int
    data: str
    experiment: Path
    flags: list[str]
    folder: Path
    resumable: bool
    notes: list[str]


def table_task(given: argparse.Namespace) -> Task:
    """The search among NAS-Bench-201's cells."""
    if given.flags or given.processes != 1 or given.rows is not None:
        flag = (
            given.flags[0].partition("=")[0] if given.flags else "--rows" if given.rows is not None else "--processes"
        )
        raise UserError(f"{flag} is for --reward train, which trains nets: leave it out, or give --reward train.")
    space, dataset = NASBench201Space(), given.dataset or "cifar10"
    reward = TableReward(space, dataset, given.table or TABLE)
    best = reward.outcomes[best_row(reward.outcomes)]
    notes = [
        f"Rewards are the validation accuracies of NAS-Bench-201 (Dong and Yang, arXiv 2001.00326) on "
        f"{DATASETS[dataset]} after 12 epochs of training, read from a table: nothing is trained. After 200 epochs the "
        "order of the cells is another one.",
        f"No search can find more than {100 * best[0]:.2f} % validation accuracy: that of the best of all "
        f"{space.size:,} cells, whose test accuracy is {100 * best[1]:.2f} %.",
        "A cell that is proposed again counts as an evaluation.",
    ]
    folder = given.runs / f"table-{dataset}"
    return Task(space, reward, VAL_IMAGES[dataset], DATASETS[dataset], TABLE_EXPERIMENT, [], folder, False, notes)


def train_task(given: argparse.Namespace) -> Task:
    """The search among NASNet's cells, whose children are trained."""
    if given.dataset or given.table:
        flag = "--dataset" if given.dataset else "--table"
        raise UserError(
            f"{flag} is for --reward table: leave it out; --config and --data.root choose what is trained on."
        )
    configs = [flag.partition("=")[2] for flag in given.flags if flag.startswith("--config=")]
    if len(configs) > 1:
        raise UserError(f"--config is given {len(configs)} times: the children have one experiment, give the best one.")
    experiment = Path(configs[0]) if configs else shown(CHILD_EXPERIMENT)
    flags = [flag for flag in given.flags if not flag.startswith("--config=")]
    space, name = NASNetSpace(5 if given.rows is None else given.rows), f"{experiment.parent.name}-{experiment.stem}"
    reward = TrainReward(space, [f"--config={experiment}", *flags], given.runs / name, given.processes)
    notes = [
        f"Rewards are validation accuracies of child nets after the last epoch, each trained once, with one seed, by "
        f"`main.py fit --config {experiment}` with its cells: they contain the noise of one training.",
        "A cell that is proposed again counts as an evaluation, and is not trained again.",
    ]
    return Task(space, reward, 0, name, experiment, flags, given.runs / name, True, notes)


def val_images(task: Task) -> int:
    """The number of validation images of the children."""
    runs = (read_run(path) for path in sorted(task.folder.glob("children/*/version_*")))
    counts: Iterator[int] = (run.facts.data.val_images for run in runs if run.facts and run.facts.data.val_images)
    return next(counts, 1)


def write_best_cell(given: argparse.Namespace, task: Task, findings: Findings) -> None:
    """The best cell of all searches as a config."""
    best, path = findings.best, given.best or task.folder / "best.yaml"
    choices, outcome = best.best
    fit = f"  python main.py fit --config {path}"
    commands = [f"{fit} {shlex.join(task.flags)}".rstrip()]
    if given.reward == "table":
        commands = [f"{fit} --data.root DIR", f"{fit} --data datamodules.Digits   # without a download"]
    experiment = task.experiment.absolute()
    header = [
        f"A cell of {task.space.name}, of no paper: found by {best.method}, seed {best.seed}, among "
        f"{given.evaluations:,} evaluations of",
        f"`python -m studies.search`. {100 * outcome.validation:.2f} % validation and {100 * outcome.test:.2f} % test "
        f"accuracy on {task.data}.",
        f"All but the cell is as in {experiment.relative_to(HOME) if experiment.is_relative_to(HOME) else experiment}.",
        "",
    ]
    write_best(path, task.experiment, task.space, choices, [*header, *commands])
