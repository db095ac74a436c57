"""The reward of a training: child nets of a space, trained and tested by ordinary commands of main.py."""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from checkpointing.atomic import atomic_write
from cli.config_parts import flatten
from errors import UserError, check_at_least
from reports.evaluation import AlreadyTested
from reports.run_sources.local import read_run
from studies.commands import LOGGER, write_flags
from studies.measures import read_metrics
from studies.process import CommandFailed, resolve, run_command
from studies.runs import Busy, LocateTest, RunFolder, clear_folder, comparable, find_run_folder
from studies.search.rewards import Outcome
from studies.search.spaces import Choices, Space
from studies.workers import prepare_worker

CACHE, LOG = "children.json", "child.log"


@dataclass(frozen=True)
class Child:
    """A net to train.

    Args:
        fit: words behind main.py that train it, without the place of its run.
        runs: folder of the runs.
        name: <dataset>/<experiment> of its run.
    """

    fit: tuple[str, ...]
    runs: Path
    name: str

    def train(self) -> Outcome:
        """Train the net, as far as that is not done, and test its last checkpoint.

        Returns:
            Its accuracies after the last epoch; 0 for a net that has diverged.

        Raises:
            CommandFailed: with the sentence of the command.
        """
        experiment = self.runs / self.name
        experiment.mkdir(parents=True, exist_ok=True)
        try:
            folder = self._fit(experiment)
        except Busy as error:
            raise UserError(f"Another process trains {experiment}: wait for it, or give another --runs.") from error
        if folder.outcome == "diverged":
            return Outcome(0.0, 0.0)
        test = LocateTest(folder.path / "checkpoints" / "last.ckpt")
        root = [word for word in self.fit if word.startswith("--data.root=")]
        with suppress(AlreadyTested):
            run_command(["test", f"--ckpt_path={test.checkpoint}", *root], experiment / LOG, [test])
        test_error = read_metrics(test.result).metrics["test/top1_error"]
        return Outcome(1 - read_run(folder.path).curves["val/top1_error"].last, 1 - test_error)

    def _fit(self, experiment: Path) -> RunFolder:
        """The run: found, resumed, or trained."""
        words = [*self.fit, f"--runs={self.runs}", f"--run_name={self.name}"]
        config = resolve(words)
        folder = find_run_folder(experiment, 0, config)
        if folder.has_ended:
            return folder
        clear_folder(folder)
        if folder.outcome is None:
            words = [*words, f"--run_version={folder.version}"]
        else:
            words = ["fit", f"--ckpt_path={folder.path}"]
        try:
            run_command(words, experiment / LOG)
        except CommandFailed:
            if find_run_folder(experiment, 0, config).outcome != "diverged":
                raise
        return find_run_folder(experiment, 0, config)


@dataclass
class TrainReward:
    """Trains a child net for each cell, once: equal cells share one training, of all searches in a folder.

    Every training uses one thread, so that its numbers do not depend on how many run at the same time.

    Args:
        space: of the architectures.
        flags: of `main.py fit`: --config and others, as FLAG=VALUE.
        folder: for the runs and the accuracies of the children.
        processes: number of children that are trained at the same time; 1 trains in this process.

    Raises:
        UserError: for flags that main.py refuses, and a folder with children of another experiment.
    """

    space: Space
    flags: Sequence[str]
    folder: Path
    processes: int = 1
    known: dict[Choices, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_at_least(1, processes=self.processes)
        config = resolve(["fit", LOGGER, *self.flags])
        if config["model"]["class_path"] != self.space.family:
            raise UserError(
                f"The experiment trains {config['model']['class_path']}, and the cells are for {self.space.family}: "
                "give a --config with that class."
            )
        identity = {"decisions": [list(each) for each in self.space.decisions], "experiment": comparable(config)}
        self.identity = json.loads(json.dumps(identity))
        self._read_known()

    def evaluate(self, architectures: Sequence[Choices]) -> list[Outcome]:
        cells = [self.space.canonical(choices) for choices in architectures]
        missing = [cell for cell in dict.fromkeys(cells) if cell not in self.known]
        for cell, outcome in self._train(missing):
            self.known[cell] = outcome
            self._write_known()
        return [self.known[cell] for cell in cells]

    def child(self, cell: Choices) -> Child:
        """The training of a canonical cell."""
        arguments = {f"model.{name}": value for name, value in self.space.arguments(cell).items()}
        digest = hashlib.sha256(json.dumps(cell).encode()).hexdigest()[:12]
        return Child(("fit", *self.flags, LOGGER, *write_flags(arguments)), self.folder, f"children/{digest}")

    def _train(self, cells: Sequence[Choices]) -> Iterator[tuple[Choices, Outcome]]:
        """Train children, here or in other processes; each is yielded when it is done."""
        if self.processes == 1:
            yield from ((cell, self.child(cell).train()) for cell in cells)
            return
        futures = {self.pool.submit(self.child(cell).train): cell for cell in cells} if cells else {}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()

    @cached_property
    def pool(self) -> ProcessPoolExecutor:
        """The processes. They take some seconds to start, so that they are kept; they end with this one."""
        return ProcessPoolExecutor(self.processes, multiprocessing.get_context("spawn"), prepare_worker)

    def _read_known(self) -> None:
        """Read the accuracies of the children that are trained.

        Raises:
            UserError: if they are of another experiment.
        """
        path = self.folder / CACHE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            before = content["identity"]
            known = {tuple(row["cell"]): Outcome(row["validation"], row["test"]) for row in content["children"]}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} holds no children of a search ({error}): give another --runs.") from error
        if before != self.identity:
            raise UserError(
                f"{self.folder} holds children of another experiment ({first_difference(before, self.identity)}): give "
                "another --runs."
            )
        self.known = {self.space.check(cell): outcome for cell, outcome in known.items()}

    def _write_known(self) -> None:
        rows = [
            {"cell": list(cell), "validation": outcome.validation, "test": outcome.test, "run": self.child(cell).name}
            for cell, outcome in self.known.items()
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / CACHE) as file:
            json.dump({"identity": self.identity, "children": rows}, file, indent=1)


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first key of two nested dictionaries that differs, with both values."""
    old, new = dict(flatten(dict(before))), dict(flatten(dict(now)))
    key = next((key for key in {**new, **old} if old.get(key) != new.get(key)), "")
    return f"{key.removeprefix('experiment.')} {old.get(key)}, not {new.get(key)}"
