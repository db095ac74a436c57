"""The commands that a study consists of: `fit` and `test` of main.py for each arm and seed, or searches for cells."""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from cli.config_files import read_config
from cli.config_parts import flag_name, flatten
from cli.messages import HOME
from cli.yaml_files import parse_yaml, write_yaml
from errors import UserError
from studies.study import Arm, Budget, Settings, Study, merge

# W&B takes a quarter of a second and memory for each of hundreds of runs: they keep the run's own files alone
LOGGER = "--trainer.logger=false"
ONE_DEVICE = "--trainer.devices=1"  # so that the numbers do not depend on how many there are
START = "model.init_from"  # the flag for the weights of an arm that another one starts from
LONGEST_NAME = 80  # of a folder


@dataclass(frozen=True)
class Recipe:
    """How an arm of a study is trained and tested at a budget.

    Args:
        arm: of the study.
        run_name: <study>/<arm> of its runs; arms that are trained alike share those of the first one.
        fit: words behind `main.py fit`, or `studies.search`, that the arm's runs have in common.
        test: words behind `main.py test --ckpt_path FILE`.
        digest: of all that the results follow from, but seed, data and code.
        start: recipe of the arm with whose weights the runs start; None for those of their initialisation.
    """

    arm: Arm
    run_name: str
    fit: tuple[str, ...]
    test: tuple[str, ...]
    digest: str
    start: "Recipe | None" = None

    @property
    def root(self) -> "Recipe":
        """The recipe that is trained first: the start, the start of the start, ... or this one."""
        return self.start.root if self.start else self

    def checkpoint(self, folder: Path) -> Path:
        """The file of a run that is tested, and that other arms start from."""
        return folder / "checkpoints" / f"{self.arm.checkpoint}.ckpt"

    def fit_words(
        self, seed: int, version: int, runs: Path, data: Iterable[str] = (), start: Path | None = None
    ) -> list[str]:
        """The arguments of main.py that train a run.

        Args:
            seed: of the run.
            version: number of its folder.
            runs: folder of the budget's runs.
            data: flags of the user, such as --data.root=DIR.
            start: file with the weights that an arm with a start begins with.
        """
        run_dir = [f"--runs={runs}", f"--run_name={self.run_name}", f"--run_version={version}"]
        weights = [f"--{START}={start}"] if start else []
        return ["fit", *self.fit, *weights, *data, f"--seed_everything={seed}", *run_dir]

    def test_words(self, checkpoint: Path, data: Iterable[str] = ()) -> list[str]:
        """The arguments of main.py that test a checkpoint."""
        return ["test", f"--ckpt_path={checkpoint}", ONE_DEVICE, *self.test, *data]

    def run_seeds(self, seed: int) -> range:
        """The seeds of the runs of one result: that of an ensemble has as many as the ensemble has members."""
        return range(seed * self.arm.members, (seed + 1) * self.arm.members)


def make_recipes(study: Study, budget: Budget) -> list[Recipe]:
    """The recipes of all arms of a study, in its order.

    Raises:
        UserError: for a config that cannot be read.
    """
    recipes: dict[str, Recipe] = {}
    names: dict[tuple[str, ...], str] = {}
    base = [find_config(name, study) for name in budget.base]
    contents = [read_config(str(path)).content for path in base]
    common = [] if study.is_search else [*(f"--config={shown(path)}" for path in base), LOGGER, ONE_DEVICE]
    for arm in study.arms.values():
        settings = merge(budget.settings, *read_settings(arm.configs, study), arm.settings or {})
        test_settings = merge(*read_settings(arm.test_configs, study), arm.test_settings or {})
        start = recipes[arm.start_from] if arm.start_from else None
        fit = (*common, *write_flags(settings))
        test = write_flags(test_settings)
        made_of = [contents, write_flags(settings), test, arm.checkpoint, arm.members]
        digest = make_digest([*made_of, start.digest] if start else made_of)
        trained = (*fit, start.run_name, start.arm.checkpoint) if start else fit
        if trained not in names:
            names[trained] = unused_name(f"{study.name}/{slug(arm.name)}", names.values())
        recipes[arm.name] = Recipe(arm, names[trained], fit, test, digest, start)
    return [*recipes.values()]


def unused_name(name: str, used: Collection[str]) -> str:
    """A name, or the first of name-2, name-3, ... that is not used."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(candidate for candidate in candidates if candidate not in used)


def find_config(name: str, study: Study) -> Path:
    """A config file that a study names: relative to the repository, or else to the folder of the study's file."""
    path = HOME / name
    own_path = study.path.parent.absolute() / name
    return own_path if os.path.exists(own_path) and not os.path.exists(path) else path


def shown(path: Path) -> Path:
    """A path relative to the working directory where it lies below, so that a command can be read."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def read_settings(configs: Iterable[str], study: Study) -> list[Settings]:
    """The settings that overlays hold, as flags: so they stand above the settings of the study and of its budget."""
    return [dict(flatten(read_config(str(find_config(name, study))).content)) for name in configs]


def write_flags(settings: Settings) -> tuple[str, ...]:
    """Settings as words of a command line; what is added to a list last, for flags are of the item before them."""
    ordered = sorted(settings.items(), key=lambda item: item[0].endswith("+"))
    return tuple(f"--{flag_name(key)}={write_value(value)}" for key, value in ordered)


def write_value(value: Any) -> str:
    """A value as a flag gives it: text as it stands where YAML reads it as text."""
    if isinstance(value, str):
        try:
            if parse_yaml(value, "") == value:
                return value
        except UserError:
            pass
    return write_yaml([value])[1:-1]


def slug(name: str) -> str:
    """The name of an arm's folder, such as "batch-norm-batch-size-2"."""
    return re.sub(r"[^\w.]+", "-", name)[:LONGEST_NAME].strip("-.") or "arm"


def make_digest(content: Any) -> str:
    """The beginning of the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def shell_line(words: Iterable[str]) -> str:
    """A command of main.py as it is typed, with one thread, as studies train."""
    return "OMP_NUM_THREADS=1 " + shlex.join(["python", str(shown(HOME / "main.py")), *words])
