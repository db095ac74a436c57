"""Runs a study: `fit` and `test` of each arm and seed, those that are not done yet, and keeps a row of each."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpointing.run_facts import read_run_facts
from errors import UserError
from reports.run_sources.local import read_run
from studies.commands import Recipe, make_recipes
from studies.measures import check_measures, read_measures
from studies.process import CommandFailed, resolve, run_command
from studies.results import Row, add_row, read_rows, results_path
from studies.runs import FoundRun, TestFiles, find_run, locate_test
from studies.study import Budget, Study


@dataclass
class Runner:
    """The results of a study at a budget.

    Args:
        study: of configs/studies.
        budget: of the study.
        seeds: results of each arm.
        runs: folder of the runs.
        results: folder of the rows.
        data: flags of the user, such as --data.root=DIR, for the runs whose data takes them.
    """

    study: Study
    budget: Budget
    seeds: int
    runs: Path
    results: Path
    data: Sequence[str] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recipes = make_recipes(self.study, self.budget)
        self.path = results_path(self.study.name, self.budget.name, self.results)
        self.folder = self.runs / self.budget.name

    def check(self) -> None:
        """Check what can be known before anything is trained.

        Raises:
            UserError: for a measure that does not exist, and for flags that main.py refuses.
        """
        check_measures(self.study.measures, str(self.study.path))
        for recipe in self.recipes:
            try:
                self.resolve_fit(recipe, 0)
            except CommandFailed as error:
                raise UserError(f"{self.study.path}, the arm {recipe.arm.name}: {error}") from error

    def resolve_fit(self, recipe: Recipe, seed: int) -> dict[str, Any]:
        """The whole config of a run."""
        return resolve(recipe.fit_words(seed, self.folder))

    def rows(self) -> list[Row]:
        """The rows that are stored, of the recipes as they are now, in the order of arms and seeds."""
        stored = {(row.arm, row.seed, row.recipe): row for row in read_rows(self.path)}
        keys = [(each.arm.name, seed, each.digest) for each in self.recipes for seed in range(self.seeds)]
        return [stored[key] for key in keys if key in stored]

    def run(self) -> Iterator[Row]:
        """Train and test what is missing, seed by seed; each row is stored before it is yielded."""
        done = {(row.arm, row.seed) for row in self.rows()}
        for seed in range(self.seeds):
            for recipe in self.recipes:
                if (recipe.arm.name, seed) not in done:
                    row = self.make_row(recipe, seed)
                    add_row(self.path, self.study.name, self.budget.name, row, [each.arm.name for each in self.recipes])
                    yield row

    def make_row(self, recipe: Recipe, seed: int) -> Row:
        """Train and test the runs of a row, as far as that is not done."""
        try:
            return self._make_row(recipe, seed)
        except UserError as error:
            raise UserError(f"{self.study.path.name}, the arm {recipe.arm.name}, seed {seed}: {error}") from error

    def _make_row(self, recipe: Recipe, seed: int) -> Row:
        begin, runs, tests = time.monotonic(), [], []
        for run_seed in recipe.run_seeds(seed):
            run = self.train(recipe, run_seed)
            runs.append(run.folder)
            if run.outcome != "diverged":
                tests.append(self.test(recipe, run.folder, run_seed))
        facts = read_run_facts(runs[0])
        assert facts is not None
        has_all = len(tests) == len(runs)
        names = self.study.measures
        results = [read_result(each) for each in tests]
        return Row(
            arm=recipe.arm.name,
            seed=seed,
            state="finished" if has_all else "diverged",
            measures=read_measures(
                names,
                [read_run(run) for run in runs],
                [each["metrics"] for each in results],
                [each.predictions for each in tests],
            )
            if has_all
            else dict.fromkeys(names),
            recipe=recipe.digest,
            test_images=results[0]["images"] if results else 0,
            num_classes=facts.data.num_classes,
            code_version=facts.sessions[-1].code_version,
            environment=facts.sessions[-1].environment,
            seconds=round(time.monotonic() - begin, 1),
        )

    def train(self, recipe: Recipe, seed: int) -> FoundRun:
        """The finished or diverged run of a seed: found, resumed, or trained."""
        config, experiment = self.resolve_fit(recipe, seed), self.folder / recipe.run_name
        run = find_run(experiment, config)
        if run and run.has_ended:
            return run
        words = ["fit", f"--ckpt_path={run.folder}"] if run else recipe.fit_words(seed, self.folder)
        try:
            run_command([*words, *self.flags_of(config)], self.log(recipe, seed))
        except CommandFailed:
            run = find_run(experiment, config)
            if run and run.outcome == "diverged":
                return run
            raise
        run = find_run(experiment, config)
        if run is None:
            raise UserError("its training left no run directory with a checkpoint.")
        return run

    def test(self, recipe: Recipe, folder: Path, seed: int) -> TestFiles:
        """The files of the test of a run, which is done where they are missing."""
        checkpoint = folder / "checkpoints" / f"{recipe.arm.checkpoint}.ckpt"
        words = recipe.test_words(checkpoint)
        config = resolve(words)
        files = locate_test(checkpoint, config)
        if not files.are_current():
            run_command([*words, *self.flags_of(config)], self.log(recipe, seed))
        return files

    def flags_of(self, config: dict[str, Any]) -> list[str]:
        """The user's flags that the data of a config takes."""
        taken = config["data"]["init_args"]
        return [flag for flag in self.data if flag.partition("=")[0].removeprefix("--data.") in taken]

    def log(self, recipe: Recipe, seed: int) -> Path:
        """The file with the output of the commands of a run."""
        return self.folder / recipe.run_name / f"seed_{seed}.log"


def read_result(files: TestFiles) -> dict[str, Any]:
    """The result of a test.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return json.loads(files.result.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{files.result} cannot be read ({error}): remove it, and run the study again.") from error
