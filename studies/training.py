"""Studies that train: each result is `fit` and `test` of main.py, or several of them; also as lines of a shell."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from checkpointing.locks import hold_lock
from checkpointing.run_facts import read_run_facts
from errors import UserError
from reports.evaluation import AlreadyTested
from reports.run_sources.local import read_run
from studies.commands import START, Recipe, shell_line
from studies.measures import check_measures, read_first_gradients, read_measures, read_metrics
from studies.process import CommandFailed, resolve, run_command
from studies.results import WITHOUT_LOCKS, Row
from studies.runs import Busy, LocateTest, RunFolder, clear_folder, find_run_folder
from studies.study import Study


class Training:
    """Trains and tests the runs of a study.

    Args:
        study: whose arms are trained.
        budget: name of its size.
        runs: folder for the runs of that size.
        data: flags of the user, such as --data.root=DIR, for the data that takes them.
    """

    def __init__(self, study: Study, budget: str, runs: Path, data: Sequence[str] = ()) -> None:
        self.study, self.budget, self.runs, self.data = study, budget, runs, data
        self.fit_configs: dict[str, dict[str, Any]] = {}  # by the name of the run, for seed 0

    def check_study(self) -> None:
        check_measures(self.study.measures, str(self.study.path))

    def check(self, recipe: Recipe) -> Any:
        config = self.resolve_fit(recipe)
        self.refuse_missing_data(config)
        return self.describe(recipe, config)

    def describe(self, recipe: Recipe, config: Mapping[str, Any]) -> list[Any]:
        """The whole configs of `fit` and `test`."""
        tested = self.resolve_nameless(recipe, recipe.test) if recipe.test else config  # fit knows the flags
        return [config, tested, recipe.arm.checkpoint, recipe.arm.members]

    def resolve_fit(self, recipe: Recipe, seed: int = 0) -> dict[str, Any]:
        """The whole config of a run, without its name."""
        if recipe.run_name not in self.fit_configs:
            self.fit_configs[recipe.run_name] = self.resolve_nameless(recipe)
        config = self.fit_configs[recipe.run_name] | {"seed_everything": seed}
        if start := self.find_start(recipe, seed):
            section, name = START.split(".")
            arguments = config[section]["init_args"] | {name: str(start)}
            config[section] = config[section] | {"init_args": arguments}
        return config

    def resolve_nameless(self, recipe: Recipe, flags: Sequence[str] = ()) -> dict[str, Any]:
        """The whole config of a recipe's first run with further flags, without its name."""
        fit = recipe.fit_words(0, 0, self.runs, start=self.find_start(recipe, 0))
        return resolve([*fit, *flags]) | {"run_name": None}

    def refuse_missing_data(self, config: Mapping[str, Any]) -> None:
        """Refuse data that needs a folder which is not given."""
        data = config["data"]
        arguments = data.get("init_args", {})
        if "root" in arguments and arguments["root"] is None and not self.flags_for(config):
            raise UserError(f"at {self.budget} it needs {data['class_path']}: give its folder as --data.root DIR.")

    def flags_for(self, config: Mapping[str, Any]) -> list[str]:
        """The user's flags that the data of a config takes."""
        taken = config["data"].get("init_args", {})
        return [flag for flag in self.data if flag.partition("=")[0].removeprefix("--data.") in taken]

    def find_folder(self, recipe: Recipe, seed: int) -> RunFolder:
        """The folder of a run.

        Raises:
            Busy: if another process trains there.
        """
        return find_run_folder(self.runs / recipe.run_name, seed, self.resolve_fit(recipe, seed))

    def expect_folder(self, recipe: Recipe, seed: int) -> RunFolder:
        """The folder of a run; that of one which another process trains counts as one to begin."""
        try:
            return self.find_folder(recipe, seed)
        except Busy:
            return RunFolder(self.runs / recipe.run_name / f"version_{seed}")

    def find_start(self, recipe: Recipe, seed: int) -> Path | None:
        """The file with the weights that a run starts from, written or still to be written; None without one."""
        start = recipe.start
        return start.checkpoint(self.expect_folder(start, seed).path) if start else None

    def make_row(self, recipe: Recipe, seed: int) -> Row:
        begin = time.monotonic()
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
        with self.hold(recipe, seed) as log:
            folder = self.train(recipe, seed, log)
            return folder, None if folder.outcome == "diverged" else self.test(recipe, folder, log)

    @contextmanager
    def hold(self, recipe: Recipe, seed: int) -> Iterator[Path]:
        """Keep other processes out of a run; gives the file for the output of its commands.

        Raises:
            Busy: if another process has it.
        """
        experiment = self.runs / recipe.run_name
        experiment.mkdir(parents=True, exist_ok=True)
        try:
            with hold_lock(experiment / f".seed_{seed}.lock", blocking=False, advice=WITHOUT_LOCKS):
                yield experiment / f"seed_{seed}.log"
        except Timeout as error:
            raise Busy from error

    def train(self, recipe: Recipe, seed: int, log: Path) -> RunFolder:
        """The run of a seed, finished or diverged: found, resumed, or trained after the run that it starts from."""
        folder = self.find_folder(recipe, seed)
        if folder.has_ended:
            return folder
        if start := self.train_start(recipe, seed):
            folder = self.find_folder(recipe, seed)  # which its start decides
        clear_folder(folder)
        words = ["fit", f"--ckpt_path={folder.path}"]
        if folder.outcome is None:
            words = recipe.fit_words(seed, folder.version, self.runs, start=start)
        try:
            run_command([*words, *self.flags_for(self.resolve_fit(recipe))], log)
        except CommandFailed:
            folder = self.find_folder(recipe, seed)
            if folder.outcome != "diverged":
                raise
        return self.find_folder(recipe, seed)

    def train_start(self, recipe: Recipe, seed: int) -> Path | None:
        """The file with the weights that a run starts from, after the training of these; None without one.

        Raises:
            Busy: if another process trains them.
        """
        if recipe.start is None:
            return None
        with self.hold(recipe.start, seed) as log:
            folder = self.train(recipe.start, seed, log)
        if folder.outcome == "diverged":
            raise UserError(
                f"it starts from {folder.path}, which diverged: correct the recipe of {recipe.start.arm.name}."
            )
        return find_checkpoint(recipe.start, folder)

    def test(self, recipe: Recipe, folder: RunFolder, log: Path) -> LocateTest:
        """The files of the test of a run, which is done where they are missing."""
        checkpoint = find_checkpoint(recipe, folder)
        test, words = LocateTest(checkpoint), recipe.test_words(checkpoint)
        with suppress(AlreadyTested):
            run_command([*words, *self.flags_for(self.resolve_fit(recipe))], log, [test])
        return test

    def shell_lines(self, recipes: Sequence[Recipe], seeds: int) -> list[str]:
        """A line for each run, seed by seed: `fit`, where it has not ended, and the tests of all arms that share it.

        Behind them stand the commands of runs that start from its weights, so that lines may run in any order.
        """
        lines: dict[tuple[str, int], list[str]] = {}
        for number in range(seeds):
            for recipe in recipes:
                for seed in recipe.run_seeds(number):
                    line = lines.setdefault((recipe.root.run_name, seed), [])
                    checkpoint = recipe.checkpoint(self.expect_folder(recipe, seed).path)
                    commands = [*self.fit_lines(recipe, seed), self.test_line(recipe, checkpoint)]
                    line += [command for command in commands if command not in line]
        return [" && ".join(line) for line in lines.values()]

    def fit_lines(self, recipe: Recipe, seed: int) -> list[str]:
        """The commands that train or resume a run and what it starts from; none for a run that has ended."""
        folder, before = self.expect_folder(recipe, seed), []
        if folder.has_ended:
            return []
        if recipe.start:
            before = self.fit_lines(recipe.start, seed)
        if folder.outcome is None:
            return [*before, self.fit_line(recipe, seed, folder.version)]
        flags = self.flags_for(self.resolve_fit(recipe))
        return [*before, shell_line(["fit", f"--ckpt_path={folder.path}", *flags])]

    def fit_line(self, recipe: Recipe, seed: int, version: int) -> str:
        """The command that trains a run from its beginning."""
        flags, start = self.flags_for(self.resolve_fit(recipe)), self.find_start(recipe, seed)
        return shell_line(recipe.fit_words(seed, version, self.runs, flags, start))

    def test_line(self, recipe: Recipe, checkpoint: Path) -> str:
        """The command that tests a checkpoint."""
        return shell_line([*recipe.test_words(checkpoint), *self.flags_for(self.resolve_fit(recipe))])

    def commands_of(self, recipe: Recipe) -> list[str]:
        checkpoint = recipe.checkpoint(self.runs / recipe.run_name / "version_0")
        return [self.fit_line(recipe, 0, 0), self.test_line(recipe, checkpoint)]


def find_checkpoint(recipe: Recipe, folder: RunFolder) -> Path:
    """The file of a run that is tested, and that other arms start from.

    Raises:
        UserError: if the run has not written it.
    """
    checkpoint = recipe.checkpoint(folder.path)
    if not os.path.isfile(checkpoint):
        raise UserError(f"its run {folder.path} has no checkpoints/{checkpoint.name}: correct its `checkpoint`.")
    return checkpoint
