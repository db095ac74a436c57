"""Studies that search: each arm is a method of `studies.search`, each result a search among NAS-Bench-201's cells."""

import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from callbacks.run_facts import processor
from checkpointing.record import code_version
from errors import UserError, check_at_least
from studies.commands import Recipe
from studies.measures import check_known, round_value
from studies.results import Row
from studies.search.rewards import TableReward
from studies.search.search import Search
from studies.search.settings import METHODS, check_settings, choose_settings, make_method, settings_of
from studies.search.spaces import NASBench201Space
from studies.study import Arm, Budget, Study, is_number, merge
from studies.units import CURVE, EVALUATIONS_APART

ACCURACIES = ("search/val_accuracy", "search/test_accuracy")  # of the best cell by validation: the parts of an Outcome


class SearchSettings(NamedTuple):
    """What makes an arm.

    Args:
        method: by name.
        evaluations: of a search.
        dataset: of the table.
        settings: of the method, all of them.
    """

    method: str
    evaluations: int
    dataset: str
    settings: dict[str, Any]


class Searching:
    """Searches for cells, rewarded by NAS-Bench-201's table.

    Args:
        study: whose arms are search methods.
        budget: its size.
    """

    def __init__(self, study: Study, budget: Budget) -> None:
        self.study, self.budget, self.space = study, budget, NASBench201Space()
        self.rewards: dict[str, TableReward] = {}  # by data set

    def check_study(self) -> None:
        known = [*ACCURACIES, *(f"{CURVE}{name}" for name in ACCURACIES)]
        check_known(self.study.measures, known, str(self.study.path))

    def check(self, recipe: Recipe) -> Any:
        found = self.read_settings(recipe.arm)
        make_method(found.method, self.space, 0, found.settings)
        self.reward(found.dataset)
        return found

    def read_settings(self, arm: Arm) -> SearchSettings:
        """The settings of an arm.

        Raises:
            UserError: for any that is unknown or of a wrong kind.
        """
        given = merge(self.budget.settings, arm.settings or {})
        reward, evaluations = given.pop("reward"), given.pop("evaluations")
        method, dataset = given.pop("method", None), given.pop("dataset", "cifar10")
        if method is None:
            raise UserError(f"it has no method: write method: {', '.join(METHODS)}.")
        if reward != "table":
            raise UserError(
                f"reward is {reward}: a study searches with table, and `python -m studies.search` with all."
            )
        check_numbers({"evaluations": evaluations} | given)
        check_at_least(1, evaluations=evaluations)
        check_settings([str(method)], given)
        return SearchSettings(str(method), evaluations, dataset, choose_settings(str(method), given))

    def reward(self, dataset: str) -> TableReward:
        """The table of a data set."""
        if dataset not in self.rewards:
            self.rewards[dataset] = TableReward(self.space, dataset)
        return self.rewards[dataset]

    def make_row(self, recipe: Recipe, seed: int) -> Row:
        begin, found = time.monotonic(), self.read_settings(recipe.arm)
        search = Search(found.method, seed, found.settings)
        method = make_method(found.method, self.space, seed, found.settings)
        for _ in search.run(method, self.reward(found.dataset), found.evaluations):
            pass
        measured = read_accuracies(search)
        return Row(
            arm=recipe.arm.name,
            seed=seed,
            state="finished",
            measures={name: measured[name] for name in self.study.measures},
            recipe=recipe.digest,
            code_version=code_version(),
            environment=describe_machine(),
            seconds=round(time.monotonic() - begin, 1),
        )

    def shell_lines(self, recipes: Sequence[Recipe], seeds: int) -> list[str]:
        return [search_line(recipe, seed) for seed in range(seeds) for recipe in recipes]

    def commands_of(self, recipe: Recipe) -> list[str]:
        return [search_line(recipe, 0)]


def check_numbers(settings: Mapping[str, Any]) -> None:
    """Raise UserError for a setting of another kind than its default; evaluations are whole."""
    for name, value in settings.items():
        is_whole = name == "evaluations" or any(isinstance(found.get(name), int) for found in map(settings_of, METHODS))
        if not is_number(value) or (is_whole and not isinstance(value, int)):
            raise UserError(f"{name} is {value}: give a {'whole ' if is_whole else ''}number.")


def read_accuracies(search: Search) -> dict[str, Any]:
    """Accuracies of the best cell by validation: after the last evaluation, and as lists, after every tenth one."""
    found: dict[str, Any] = {}
    for name, values in zip(ACCURACIES, search.best_so_far().T.tolist(), strict=True):
        found[name] = round_value(values[-1])
        found[f"{CURVE}{name}"] = [round_value(value) for value in values[EVALUATIONS_APART - 1 :: EVALUATIONS_APART]]
    return found


def search_line(recipe: Recipe, seed: int) -> str:
    """The command of a search as it is typed."""
    return shlex.join(["python", "-m", "studies.search", *recipe.fit, f"--first_seed={seed}"])


def describe_machine() -> dict[str, str]:
    """What a search runs on, by name, as run.json has it of a training."""
    return {
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": processor(),
        "threads": str(torch.get_num_threads()),
    }
