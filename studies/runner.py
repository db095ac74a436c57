"""Runs a study: `fit` and `test` of each arm and seed, those that are not done yet, and keeps a row of each."""

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from checkpointing.run_facts import read_run_facts
from errors import UserError, shorten
from reports.evaluation import AlreadyTested
from reports.run_sources.local import read_run
from studies.commands import Recipe, make_recipes
from studies.counting import count_row
from studies.measures import check_measures, read_first_gradients, read_measures, read_metrics
from studies.process import CommandFailed, resolve, run_command
from studies.results import Row, add_row, read_rows, results_path
from studies.runs import Busy, LocateTest, RunFolder, clear_folder, find_run_folder
from studies.study import Study

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)
SECONDS_TO_WAIT = 2.0  # before runs of other processes are looked at again


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
        self.study, self.budget, self.data = study, study.budget(budget), data
        self.seeds = self.budget.seeds if seeds is None else seeds
        if self.seeds < 1:
            raise UserError(f"--seeds is {seeds}: give a number of results of each arm, 3 or more for an interval.")
        self.recipes = make_recipes(study, self.budget)
        self.path = results_path(study.name, budget, results)
        self.runs = runs / budget
        self.fit_configs: dict[tuple[str, ...], dict[str, Any]] = {}  # by the words of the command, for seed 0

    def check(self) -> None:
        """Check all commands before anything is trained.

        Raises:
            UserError: for flags that main.py refuses, two arms that are the same, and data without its folder.
        """
        check_measures(self.study.measures, str(self.study.path))
        seen: dict[str, str] = {}
        for recipe in self.recipes:
            with self.naming(recipe):
                config = self.resolve_fit(recipe)
                if not self.study.count_at:
                    self.refuse_missing_data(config)
                tested = self.resolve_nameless(recipe, recipe.test) if recipe.test else config  # fit knows the flags
                whole = repr([config, tested, recipe.arm.checkpoint, recipe.arm.members])
                if (twin := seen.setdefault(whole, recipe.arm.name)) != recipe.arm.name:
                    raise UserError(f"it changes nothing: its whole config is that of {twin}.")

    def resolve_fit(self, recipe: Recipe, seed: int = 0) -> dict[str, Any]:
        """The whole config of a run, without its name."""
        if recipe.fit not in self.fit_configs:
            self.fit_configs[recipe.fit] = self.resolve_nameless(recipe)
        return self.fit_configs[recipe.fit] | {"seed_everything": seed}

    def resolve_nameless(self, recipe: Recipe, flags: Sequence[str] = ()) -> dict[str, Any]:
        """The whole config of a recipe's first run with further flags, without its name."""
        return resolve([*recipe.fit_words(0, 0, self.runs), *flags]) | {"run_name": None}

    def refuse_missing_data(self, config: Mapping[str, Any]) -> None:
        """Refuse data that needs a folder which is not given."""
        data = config["data"]
        arguments = data.get("init_args", {})
        if "root" in arguments and arguments["root"] is None and not self.flags_for(config):
            raise UserError(f"at {self.budget.name} it needs {data['class_path']}: give its folder as --data.root DIR.")

    def flags_for(self, config: Mapping[str, Any]) -> list[str]:
        """The user's flags that the data of a config takes."""
        taken = config["data"].get("init_args", {})
        return [flag for flag in self.data if flag.partition("=")[0].removeprefix("--data.") in taken]

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
        """Make the missing rows; each is stored before it is yielded. Runs of other processes are waited for."""
        waited = False
        while missing := self.missing():
            busy = 0
            for recipe, seed in missing:
                if (recipe, seed) not in self.missing():  # another process has made it
                    continue
                try:
                    row = self.make_row(recipe, seed)
                except Busy:
                    busy += 1
                    continue
                with self.naming(recipe):
                    add_row(self.path, self.study.name, self.budget.name, row, [*self.study.arms])
                yield row
            if busy == len(missing):
                if not waited:
                    print("Waiting for another process, which has the runs that are left.", flush=True)
                waited = True
                time.sleep(SECONDS_TO_WAIT)

    def make_row(self, recipe: Recipe, seed: int) -> Row:
        """Train and test the runs of a row, as far as that is not done.

        Raises:
            Busy: if another process has one of its runs.
            UserError: with the sentence of the command that has failed.
        """
        begin = time.monotonic()
        with self.naming(recipe):
            if self.study.count_at:
                return count_row(self.study, recipe, seed, self.resolve_fit(recipe))
            members = [self.train_and_test(recipe, run_seed) for run_seed in recipe.run_seeds(seed)]
            tests = [test for _, test in members if test]
            facts = read_run_facts(members[0][0].path)
            if facts is None:
                raise UserError(f"{members[0][0].path} has no run.json: remove the folder, and run the study again.")
            has_all = len(tests) == len(members)
            results = [read_metrics(test.result) for test in tests]
            predictions = [test.predictions for test in tests]
            runs = [read_run(folder.path) for folder, _ in members]
            measures = (
                read_measures(self.study.measures, runs, results, predictions)
                if has_all
                else read_first_gradients(self.study.measures, runs)
            )
        session = facts.sessions[-1]
        return Row(
            arm=recipe.arm.name,
            seed=seed,
            state="finished" if has_all else "diverged",
            measures=measures,
            recipe=recipe.digest,
            test_images=results[0].images if has_all else 0,
            num_classes=facts.data.num_classes,
            code_version=session.code_version,
            environment=session.environment,
            seconds=round(time.monotonic() - begin, 1),
        )

    def train_and_test(self, recipe: Recipe, seed: int) -> tuple[RunFolder, LocateTest | None]:
        """The folder of a run, and the files of its test; none of a run that diverged."""
        experiment = self.runs / recipe.run_name
        experiment.mkdir(parents=True, exist_ok=True)
        log = experiment / f"seed_{seed}.log"
        try:
            with FileLock(experiment / f".seed_{seed}.lock", blocking=False):
                folder = self.train(recipe, seed, log)
                return folder, None if folder.outcome == "diverged" else self.test(recipe, folder, log)
        except Timeout as error:
            raise Busy from error

    def train(self, recipe: Recipe, seed: int, log: Path) -> RunFolder:
        """The run of a seed, finished or diverged: found, resumed, or trained."""
        config, experiment = self.resolve_fit(recipe, seed), self.runs / recipe.run_name
        folder = find_run_folder(experiment, seed, config)
        if folder.has_ended:
            return folder
        clear_folder(folder)
        words = ["fit", f"--ckpt_path={folder.path}"]
        if folder.outcome is None:
            words = recipe.fit_words(seed, folder.version, self.runs)
        try:
            run_command([*words, *self.flags_for(config)], log)
        except CommandFailed:
            folder = find_run_folder(experiment, seed, config)
            if folder.outcome != "diverged":
                raise
        return find_run_folder(experiment, seed, config)

    def test(self, recipe: Recipe, folder: RunFolder, log: Path) -> LocateTest:
        """The files of the test of a run, which is done where they are missing."""
        checkpoint = folder.path / "checkpoints" / f"{recipe.arm.checkpoint}.ckpt"
        if not os.path.isfile(checkpoint):
            raise UserError(f"its run {folder.path} has no checkpoints/{checkpoint.name}: correct its `checkpoint`.")
        test, words = LocateTest(checkpoint), recipe.test_words(checkpoint)
        with suppress(AlreadyTested):
            run_command([*words, *self.flags_for(self.resolve_fit(recipe))], log, [test])
        return test


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
