"""A study as its YAML file in configs/studies/ says it: a claim, arms, what is measured, and what would support it."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cli.config_parts import flag_name
from cli.yaml_files import read_yaml
from errors import UserError

FOLDER = Path(__file__).parent.parent / "configs" / "studies"
Settings = dict[str, Any]  # the values of flags of main.py by their names, such as {"model.depth": 56}
Relation = Literal["lower", "higher", "equal"]

KEYS = ("claim", "notes", "paper", "base", "settings", "arms", "sweep", "measures", "supported_if", "budgets")
OPTIONAL = ("settings", "sweep")
EXPECTATION_KEYS = ("of", "lower", "higher", "equal", "than", "to", "by", "factor", "within", "at")


@dataclass(frozen=True)
class Arm:
    """One of the recipes that a study compares.

    Args:
        name: in the study.
        configs: files for --config, of `fit`.
        settings: flags of `fit`. Arms with equal configs and settings are trained once.
        test_configs: files for --config, of `test`.
        test_settings: flags of `test` alone.
        checkpoint: stem of the file that is tested.
        members: number of runs whose mean probabilities are one result; 1 is a single net.
        series: name of the arm without the value of the sweep.
        point: value of the sweep, the arm's position on the axis of a figure; None without a sweep.
    """

    name: str
    configs: tuple[str, ...] = ()
    settings: Settings | None = None
    test_configs: tuple[str, ...] = ()
    test_settings: Settings | None = None
    checkpoint: str = "last"
    members: int = 1
    series: str = ""
    point: float | None = None


@dataclass(frozen=True)
class Expectation:
    """A statement about a measure that the claim makes: all of a study's must hold to support it.

    Args:
        measure: name of the measure.
        relation: of the arm's mean to that of the other arm.
        arm: name of an arm.
        other: name of another arm, or a number.
        by: smallest difference that counts, in units of the measure; for equal, the largest that counts as none.
        factor: smallest ratio that counts, above 1, in place of `by`; None for differences.
    """

    measure: str
    relation: Relation
    arm: str
    other: str | float
    by: float = 0.0
    factor: float | None = None


@dataclass(frozen=True)
class Budget:
    """A fixed size of a study; its name is an estimate of the time on two cores.

    Args:
        name: such as 5min.
        seeds: results of each arm.
        base: files for --config, of every `fit`, below those of the arm.
        settings: flags of every `fit`, below those of the arm.
    """

    name: str
    seeds: int
    base: tuple[str, ...]
    settings: Settings


@dataclass(frozen=True)
class Study:
    """A study.

    Args:
        name: of its file.
        claim: one sentence.
        notes: section of the lecture notes that makes the claim.
        paper: authors, arXiv number, section, table or figure.
        arms: by name, in the order of the file.
        sweep: name of the flag that is swept; empty without a sweep.
        measures: names, see `studies.measures`; the first is the one that the figure shows.
        expectations: what supports the claim.
        budgets: by name.
        path: of the file.
    """

    name: str
    claim: str
    notes: str
    paper: str
    arms: dict[str, Arm]
    sweep: str
    measures: list[str]
    expectations: list[Expectation]
    budgets: dict[str, Budget]
    path: Path

    def budget(self, name: str) -> Budget:
        """One of the study's sizes.

        Raises:
            UserError: if it has no such size.
        """
        if name not in self.budgets:
            raise UserError(f"{self.name} has no budget {name}: its sizes are {', '.join(self.budgets)}.")
        return self.budgets[name]


def list_studies(folder: Path = FOLDER) -> list[str]:
    """Names of all studies, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_study(name: str, folder: Path = FOLDER) -> Study:
    """The study of a name, or of a YAML file of the user's.

    Raises:
        UserError: if there is none, or its file is not that of a study.
    """
    if name.endswith((".yaml", ".yml")):
        return read_study(Path(name))
    names = list_studies(folder)
    if name not in names:
        similar = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {similar[0]}?" if similar else "`python -m studies --list` shows all."
        raise UserError(f"There is no study {name}: {meant}")
    return read_study(folder / f"{name}.yaml")


def read_study(path: Path) -> Study:
    """Read and check the file of a study.

    Raises:
        UserError: with file, key and fix.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no study: give it the keys {', '.join(KEYS)}.")
    check_keys(content, KEYS, f"{path}")
    if missing := [key for key in KEYS if key not in content and key not in OPTIONAL]:
        raise UserError(f"{path} has no {missing[0]}: a study needs {', '.join(k for k in KEYS if k not in OPTIONAL)}.")
    settings, base = content.get("settings") or {}, as_texts(content["base"])
    arms = read_arms(content["arms"], content.get("sweep") or {}, path)
    measures = as_texts(content["measures"])
    expectations = [read_expectation(each, arms, measures, path) for each in content["supported_if"]]
    budgets = {
        str(name): read_budget(str(name), dict(each), base, settings, path) for name, each in content["budgets"].items()
    }
    claim, notes, paper = (str(content[key]).strip() for key in ("claim", "notes", "paper"))
    sweep = next(iter(content.get("sweep") or {}), "")
    return Study(path.stem, claim, notes, paper, arms, sweep, list(measures), expectations, budgets, path)


def read_arms(content: Mapping[str, Any], sweep: Mapping[str, Any], path: Path) -> dict[str, Arm]:
    """The arms by name, each once for each value of the sweep.

    Raises:
        UserError: for fewer than one arm, a sweep of more than one flag, and arms that are equal.
    """
    if len(sweep) > 1:
        raise UserError(f"{path}: sweep names {', '.join(sweep)}: one flag can be swept, make arms of the others.")
    arms: dict[str, Arm] = {}
    for name, given in content.items():
        for arm in spread(read_arm(str(name), dict(given or {}), path), sweep, dict(given or {}), path):
            twin = next((each for each in arms.values() if same_recipe(each, arm)), None)
            if twin is not None:
                raise UserError(f"{path}: the arms {twin.name} and {arm.name} are equal: let each change something.")
            arms[arm.name] = arm
    if not arms:
        raise UserError(f"{path} has no arms: name at least one.")
    return arms


def spread(arm: Arm, sweep: Mapping[str, Any], given: dict[str, Any], path: Path) -> Iterable[Arm]:
    """The arm at each value of the sweep, or itself without one."""
    if not sweep:
        return [arm]
    key, values = next(iter(sweep.items()))
    return [
        replace(read_arm(name_point(arm.name, key, value), given | {key: value}, path), series=arm.name, point=value)
        for value in values
    ]


def name_point(arm: str, key: str, value: Any) -> str:
    """The name of an arm at a value of a sweep, such as "batch norm, batch_size 2"."""
    return f"{arm}, {key.rpartition('.')[2]} {value}"


def read_arm(name: str, given: dict[str, Any], path: Path) -> Arm:
    """An arm: dotted keys are flags of `fit`, `test` holds those of `test`, or they begin with "test."."""
    given = dict(given)
    test = dict(given.pop("test", None) or {})
    test |= {key.removeprefix("test."): given.pop(key) for key in [*given] if key.startswith("test.")}
    configs, test_configs = as_texts(given.pop("config", [])), as_texts(test.pop("config", []))
    checkpoint, members = str(given.pop("checkpoint", "last")), given.pop("members", 1)
    if not isinstance(members, int) or members < 1:
        raise UserError(f"{path}: members of {name} is {members}: give a number of runs, 1 or more.")
    for key in [*given, *test]:
        if "." not in key and key not in ("model", "data"):
            raise UserError(
                f"{path}: the arm {name} has {key}, which is no flag of main.py: write model.*, data.*, trainer.*, "
                "config, checkpoint, members or test."
            )
    return Arm(name, configs, given, test_configs, test, checkpoint, members, series=name)


def same_recipe(a: Arm, b: Arm) -> bool:
    """Whether two arms differ in their names alone."""
    return replace(a, name="", series="", point=None) == replace(b, name="", series="", point=None)


def read_expectation(
    given: Mapping[str, Any], arms: Mapping[str, Arm], measures: Iterable[str], path: Path
) -> Expectation:
    """One entry of supported_if: {of: MEASURE, lower: ARM, than: ARM or number, by: 0.01}, or equal: ARM, to: ARM.

    Raises:
        UserError: for a measure or an arm that the study has not, and for anything else than one relation.
    """
    check_keys(given, EXPECTATION_KEYS, f"supported_if of {path}")
    relations: list[Relation] = [each for each in ("lower", "higher", "equal") if each in given]
    if len(relations) != 1 or "of" not in given or ("than" in given) == ("to" in given):
        raise UserError(
            f"{path}: supported_if holds {dict(given)}: write of, and lower or higher with than, or equal with to."
        )
    relation, other = relations[0], given.get("than", given.get("to"))
    measure = str(given["of"])
    if measure not in measures:
        raise UserError(
            f"{path}: supported_if names {measure}, which is not among the measures: {', '.join(measures)}."
        )
    names = [name_at(str(each), given.get("at"), arms) for each in (given[relation], other) if not is_number(each)]
    for name in names:
        if name not in arms:
            raise UserError(f"{path}: supported_if names the arm {name}: the study has {', '.join(arms)}.")
    factor, by = given.get("factor"), float(given.get("by", given.get("within", 0.0)))
    if by < 0 or (factor is not None and not factor > 1) or (relation == "equal" and not by > 0):
        raise UserError(f"{path}: supported_if {dict(given)}: by is at least 0, factor above 1, within above 0.")
    return Expectation(measure, relation, names[0], float(other) if is_number(other) else names[-1], by, factor)


def name_at(name: str, point: Any, arms: Mapping[str, Arm]) -> str:
    """The arm of a series at a value of the sweep."""
    found = (arm.name for arm in arms.values() if arm.series == name and arm.point == point)
    return name if point is None else next(found, f"{name} at {point}")


def read_budget(name: str, given: dict[str, Any], base: tuple[str, ...], settings: Settings, path: Path) -> Budget:
    """A size of the study: seeds, perhaps another base, and flags over those of the study."""
    seeds = given.pop("seeds", None)
    if not isinstance(seeds, int) or seeds < 1:
        raise UserError(f"{path}: the budget {name} has seeds {seeds}: give a number, 3 or more for an interval.")
    base = as_texts(given.pop("base", base))
    return Budget(name, seeds, base, merge(settings, given))


def merge(*layers: Settings) -> Settings:
    """Settings of several layers, the lowest first; what a key that ends in + adds to a list is added up."""
    merged: Settings = {}
    for key, value in ((flag_name(str(key)), value) for layer in layers for key, value in layer.items()):
        merged[key] = [*as_list(merged.get(key, [])), *as_list(value)] if key.endswith("+") else value
    return merged


def as_list(value: Any) -> list[Any]:
    """One value or a list of them as a list."""
    return value if isinstance(value, list) else [value]


def check_keys(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise UserError for the first key that is not known."""
    for key in given:
        if key not in known:
            similar = difflib.get_close_matches(str(key), [*known], n=1)
            meant = f"did you mean {similar[0]}?" if similar else f"the keys are {', '.join(known)}."
            raise UserError(f"{where} has the key {key}: {meant}")


def is_number(value: Any) -> bool:
    """Whether a value of YAML is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def as_texts(value: Any) -> tuple[str, ...]:
    """One text or a list of them as a tuple."""
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)
