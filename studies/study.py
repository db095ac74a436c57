"""A study: a claim, arms, what is measured, and what would support it. See `studies.study_file` for its YAML file."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

from cli.config_parts import flag_name
from errors import UserError

Settings = dict[str, Any]  # the values of flags of main.py by their names, such as {"model.depth": 56}
Relation = Literal["lower", "higher", "equal", "not_higher", "not_lower"]


@dataclass(frozen=True)
class Arm:
    """One of the recipes that a study compares.

    Args:
        name: in the study.
        configs: files for --config, of `fit`.
        settings: flags of `fit`, or of a search. Arms with equal configs and settings are trained once.
        test_configs: files for --config, of `test`.
        test_settings: flags of `test` alone.
        checkpoint: stem of the file that is tested.
        members: number of runs whose mean probabilities are one result; 1 is a single net.
        start_from: name of the arm with whose weights, of the run of the same seed, the nets start; None for those of
            their initialisation.
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
    start_from: str | None = None
    series: str = ""
    point: float | None = None


@dataclass(frozen=True)
class Expectation:
    """A statement about a measure that the claim makes: all of a study's must hold to support it.

    Args:
        measure: name of the measure.
        relation: of the arm's mean to that of the other arm; not_higher: by no more than `by`.
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
        settings: flags of every `fit`, or search, below those of the arm.
    """

    name: str
    seeds: int
    base: tuple[str, ...]
    settings: Settings


@dataclass(frozen=True)
class CountAt:
    """What the nets of a study are built for that trains none of them.

    Args:
        classes: K.
        size: pixels per side of an image.
    """

    classes: int
    size: int


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
        count_at: for a study that counts its nets and trains none; else None.
        is_search: whether its arms are searches for cells, with flags of `studies.search`.
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
    count_at: CountAt | None = None
    is_search: bool = False

    def budget(self, name: str) -> Budget:
        """One of the study's sizes.

        Raises:
            UserError: if it has no such size.
        """
        if name not in self.budgets:
            raise UserError(f"{self.name} has no budget {name}: its sizes are {', '.join(self.budgets)}.")
        return self.budgets[name]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of YAML is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def merge(*layers: Settings) -> Settings:
    """Settings of several layers, the lowest first; what a key that ends in + adds to a list is added up."""
    merged: Settings = {}
    for key, value in ((flag_name(str(key)), value) for layer in layers for key, value in layer.items()):
        merged[key] = [*as_list(merged.get(key, [])), *as_list(value)] if key.endswith("+") else value
    return merged


def as_list(value: Any) -> list[Any]:
    """One value or a list of them as a list."""
    return value if isinstance(value, list) else [value]


def as_texts(value: Any) -> tuple[str, ...]:
    """One text or a list of them as a tuple."""
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)
