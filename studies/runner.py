"""Runs a study: makes the results of each arm and seed that are not stored yet, and keeps a row of each."""

import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from errors import UserError, shorten
from studies.commands import Recipe, make_recipes
from studies.counting import Counting
from studies.results import Row, add_row, read_rows, results_path
from studies.runs import Busy
from studies.searching import Searching
from studies.study import Budget, Study
from studies.training import Training

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)
SECONDS_TO_WAIT = 2.0  # before runs of other processes are looked at again


class RowMaker(Protocol):
    """How the rows of a study are made: by training nets, by counting them, or by searching for cells."""

    def check_study(self) -> None:
        """Raise UserError for measures that the study's rows cannot have."""
        ...

    def check(self, recipe: Recipe) -> Any:
        """All that the results of a recipe follow from: two arms for which it is equal are the same.

        Raises:
            UserError: for settings that are refused, and data without its folder.
        """
        ...

    def make_row(self, recipe: Recipe, seed: int) -> Row:
        """The row of a recipe and a seed; whatever of it is done already is not done again.

        Raises:
            Busy: if another process makes a part of it.
            UserError: with the sentence of what has failed.
        """
        ...

    def shell_lines(self, recipes: Sequence[Recipe], seeds: int) -> list[str]:
        """The commands of all recipes and seeds as lines of a shell, which may run in any order, or at once."""
        ...

    def commands_of(self, recipe: Recipe) -> list[str]:
        """The commands for the first seed of a recipe, as if nothing were done."""
        ...


def choose_maker(study: Study, budget: Budget, runs: Path, data: Sequence[str]) -> RowMaker:
    """What makes the rows of a study at one of its sizes; other arguments as of `Training`."""
    if study.is_search:
        return Searching(study, budget)
    training = Training(study, budget.name, runs, data)
    return Counting(study.count_at, training) if study.count_at else training


class Runner:
    """Makes the results of a study at one of its sizes.

    Args:
        study: of configs/studies, or of the user's.
        budget: name of the size.
        seeds: results of each arm; None for those of the budget.
        runs: folder for the runs of all studies.
        results: folder for the rows of all studies.
        data: flags of the user, such as --data.root=DIR, for the data that takes them.
    """

    def __init__(
        self, study: Study, budget: str, seeds: int | None, runs: Path, results: Path, data: Sequence[str] = ()
    ) -> None:
        self.arguments = study, budget, seeds, runs, results, data
        self.study, self.budget = study, study.budget(budget)
        self.seeds = self.budget.seeds if seeds is None else seeds
        if self.seeds < 1:
            raise UserError(f"--seeds is {seeds}: give a number of results of each arm, 3 or more for an interval.")
        self.recipes = make_recipes(study, self.budget)
        self.path = results_path(study.name, budget, results)
        self.runs = runs / budget
        self.maker = choose_maker(study, self.budget, self.runs, data)

    def check(self) -> None:
        """Check all arms before anything is trained.

        Raises:
            UserError: for settings that are refused, two arms that are the same, and data without its folder.
        """
        self.maker.check_study()
        seen: dict[str, str] = {}
        for recipe in self.recipes:
            with self.naming(recipe):
                whole = repr(self.maker.check(recipe))
                if (twin := seen.setdefault(whole, recipe.arm.name)) != recipe.arm.name:
                    raise UserError(f"it changes nothing: its whole config is that of {twin}.")

    def shell_lines(self) -> list[str]:
        """The commands of the study, see `RowMaker.shell_lines`."""
        self.check()
        return self.maker.shell_lines(self.recipes, self.seeds)

    def commands(self) -> dict[str, list[str]]:
        """The commands of each arm for its first seed; arms without any are left out."""
        found = {recipe.arm.name: self.maker.commands_of(recipe) for recipe in self.recipes}
        return {name: lines for name, lines in found.items() if lines}

    @contextmanager
    def naming(self, recipe: Recipe) -> Iterator[None]:
        """Let errors begin with study and arm."""
        try:
            with refuse_unwritable():
                yield
        except UserError as error:
            raise UserError(f"{self.study.name}, the arm {recipe.arm.name}: {error}") from error

    def stored_rows(self) -> list[Row]:
        """The rows of the recipes as they are now, in the order of arms and seeds."""
        digests = {recipe.arm.name: recipe.digest for recipe in self.recipes}
        return [row for row in read_rows(self.path) if digests.get(row.arm) == row.recipe]

    def missing(self) -> list[tuple[Recipe, int]]:
        """Recipes and seeds without a stored row, seed by seed."""
        done = {(row.arm, row.seed) for row in self.stored_rows()}
        pairs = [(recipe, seed) for seed in range(self.seeds) for recipe in self.recipes]
        return [(recipe, seed) for recipe, seed in pairs if (recipe.arm.name, seed) not in done]

    def run(self) -> Iterator[Row]:
        """Make the missing rows, and yield each once it is stored; rows that other processes make too."""
        yielded = {(row.arm, row.seed) for row in self.stored_rows()}
        while missing := self.missing():
            busy = 0
            for recipe, seed in missing:
                if (recipe, seed) not in self.missing():  # another process has made it
                    continue
                try:
                    with self.naming(recipe):
                        row = self.maker.make_row(recipe, seed)
                except Busy:
                    busy += 1
                    continue
                with self.naming(recipe):
                    add_row(self.path, self.study.name, self.budget.name, row, [*self.study.arms])
                yield from self.new_rows(yielded)
            if busy == len(missing):
                time.sleep(SECONDS_TO_WAIT)
                yield from self.new_rows(yielded)
        yield from self.new_rows(yielded)  # another process may have made the last one

    def new_rows(self, yielded: set[tuple[str, int]]) -> Iterator[Row]:
        """The stored rows whose arms and seeds are not among those that were yielded, which are added to them."""
        for row in self.stored_rows():
            if (row.arm, row.seed) not in yielded:
                yielded.add((row.arm, row.seed))
                yield row


def make_rows(*arguments: Any) -> None:
    """Make rows of a study beside another process, which says what goes wrong; arguments of `Runner`."""
    with suppress(UserError):
        for _ in Runner(*arguments).run():
            pass


@contextmanager
def refuse_unwritable() -> Iterator[None]:
    """Say in one sentence that a folder of runs or results cannot be written.

    Raises:
        UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is None:
            raise
        raise UserError(
            f"{shorten(str(error.filename))} cannot be written ({error.strerror}): choose other folders with --runs "
            "and --results."
        ) from error
