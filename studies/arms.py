"""Reads the arms of a study's file."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import UserError
from studies.study import Arm, as_texts


def read_arms(content: Mapping[str, Any], sweep: Mapping[str, Any], path: Path) -> dict[str, Arm]:
    """The arms by name, each once for each value of the sweep.

    Raises:
        UserError: for fewer than one arm, a sweep of more than one flag, and arms that are equal.
    """
    if any(not isinstance(values, list) or not values for values in sweep.values()):
        raise UserError(f"{path}: sweep is {dict(sweep)}: write a flag and the list of its values.")
    if len(sweep) > 1:
        raise UserError(f"{path}: sweep names {', '.join(sweep)}: one flag can be swept, make arms of the others.")
    arms: dict[str, Arm] = {}
    for name, given in content.items():
        if not isinstance(given, dict | None):
            raise UserError(f"{path}: the arm {name} is {given}: write flags such as model.depth, or {{}}.")
        for arm in spread(read_arm(str(name), dict(given or {}), path), sweep, dict(given or {}), path):
            twin = next((each for each in arms.values() if same_recipe(each, arm)), None)
            if twin is not None:
                raise UserError(f"{path}: the arms {twin.name} and {arm.name} are equal: let each change something.")
            arms[arm.name] = with_start(arm, arms, path)
    if not arms:
        raise UserError(f"{path} has no arms: name at least one.")
    return arms


def with_start(arm: Arm, earlier: Mapping[str, Arm], path: Path) -> Arm:
    """The arm with the whole name of the arm that it starts from, which may be one at a value of the sweep.

    Raises:
        UserError: if no arm above it has this name.
    """
    if arm.start_from is None:
        return arm
    start = name_at(arm.start_from, arm.point, earlier)
    start = arm.start_from if start not in earlier else start
    if start not in earlier:
        raise UserError(
            f"{path}: the arm {arm.name} starts from {arm.start_from}, which is no arm above it: there are "
            f"{', '.join(earlier) or 'none'}."
        )
    return replace(arm, start_from=start)


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
    test = given.pop("test", None) or {}
    if not isinstance(test, dict):
        raise UserError(f"{path}: test of the arm {name} is {test}: write flags such as data.protocol.")
    test = dict(test)
    test |= {key.removeprefix("test."): given.pop(key) for key in [*given] if key.startswith("test.")}
    configs, test_configs = as_texts(given.pop("config", [])), as_texts(test.pop("config", []))
    checkpoint, members = str(given.pop("checkpoint", "last")), given.pop("members", 1)
    if isinstance(members, bool) or not isinstance(members, int) or members < 1:
        raise UserError(f"{path}: members of {name} is {members}: give a number of runs, 1 or more.")
    start = given.pop("start_from", None)
    start = None if start is None else str(start)
    return Arm(name, configs, given, test_configs, test, checkpoint, members, start, series=name)


def same_recipe(a: Arm, b: Arm) -> bool:
    """Whether two arms differ in their names alone."""
    return replace(a, name="", series="", point=None) == replace(b, name="", series="", point=None)


def name_at(name: str, point: Any, arms: Mapping[str, Arm]) -> str:
    """The arm of a series at a value of the sweep."""
    found = (arm.name for arm in arms.values() if arm.series == name and arm.point == point)
    return name if point is None else next(found, f"{name} at {point}")
