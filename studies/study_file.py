"""Reads the YAML file of a study in configs/studies/, or of a user's own."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from cli.messages import HOME
from cli.yaml_files import read_yaml
from errors import UserError
from studies.arms import name_at, read_arms, same_recipe
from studies.search.settings import HELP
from studies.study import Arm, Budget, CountAt, Expectation, Relation, Settings, Study, as_texts, is_number, merge
from studies.units import is_curve

FOLDER = HOME / "configs" / "studies"
KEYS = (
    "claim",
    "notes",
    "paper",
    "base",
    "settings",
    "arms",
    "sweep",
    "measures",
    "supported_if",
    "budgets",
    "count_at",
    "search",
)
OPTIONAL = ("settings", "sweep", "count_at", "search")
KINDS: dict[str, type] = dict.fromkeys(("settings", "arms", "sweep", "budgets", "count_at", "search"), dict) | {
    "supported_if": list
}
SEARCH_KEYS = ("reward", "evaluations", "dataset")
SEARCH_FLAGS = (*SEARCH_KEYS, "method", *HELP)
EXPECTATION_KEYS = ("of", *get_args(Relation), "than", "to", "by", "factor", "within", "at")


def list_studies(folder: Path = FOLDER) -> list[str]:
    """Names of all studies, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_study(name: str, folder: Path = FOLDER) -> Study:
    """The study of a name, or of a YAML file of the user's.

    Raises:
        UserError: if there is none, or its file is not that of a study.
    """
    names = list_studies(folder)
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if path.stem in names and path.resolve() != (folder / f"{path.stem}.yaml").resolve():
            raise UserError(
                f"{path} has the name of a study in {folder}, and would share its results: rename the file."
            )
        return read_study(path)
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
    needed = [key for key in KEYS if key not in OPTIONAL and not (key == "base" and "search" in content)]
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"{path} has no {missing[0]}: a study needs {', '.join(needed)}.")
    for key, kind in KINDS.items():
        if content.get(key) is not None and not isinstance(content[key], kind):
            raise UserError(
                f"{path}: {key} is {content[key]}: write {'a list' if kind is list else 'keys with values'}."
            )
    for key in ("claim", "notes", "paper"):
        if not isinstance(content[key], str) or not content[key].strip():
            raise UserError(f"{path}: {key} is {content[key]}: write a text, in quotes if it holds a colon.")
    search = read_search(content, path)
    settings, base = search | (content.get("settings") or {}), as_texts(content.get("base", []))
    arms = read_arms(content["arms"] or {}, content.get("sweep") or {}, path)
    for key in ("measures", "supported_if", "budgets"):
        if not content[key]:
            raise UserError(f"{path}: {key} is empty: it holds at least one entry.")
    measures = as_texts(content["measures"])
    expectations = [read_expectation(each, arms, measures, path) for each in content["supported_if"]]
    budgets = {
        str(name): read_budget(str(name), each, base, settings, path) for name, each in content["budgets"].items()
    }
    claim, notes, paper = (str(content[key]).strip() for key in ("claim", "notes", "paper"))
    sweep = next(iter(content.get("sweep") or {}), "")
    at, name = read_count_at(content.get("count_at"), path), path.stem
    study = Study(
        name, claim, notes, paper, arms, sweep, list(measures), expectations, budgets, path, at, is_search=bool(search)
    )
    check_flags(study, settings)
    return study


def read_expectation(
    given: Mapping[str, Any], arms: Mapping[str, Arm], measures: Iterable[str], path: Path
) -> Expectation:
    """One entry of supported_if: {of: MEASURE, lower: ARM, than: ARM or number, by: 0.01}, or equal: ARM, to: ARM.

    Raises:
        UserError: for a measure or an arm that the study has not, and for anything else than one relation.
    """
    if not isinstance(given, dict):
        raise UserError(f"{path}: supported_if holds {given}: write {{of: MEASURE, lower: ARM, than: ARM}}.")
    check_keys(given, EXPECTATION_KEYS, f"supported_if of {path}")
    relations: list[Relation] = [each for each in get_args(Relation) if each in given]
    if len(relations) != 1 or "of" not in given or ("than" in given) == ("to" in given):
        raise UserError(
            f"{path}: supported_if holds {dict(given)}: write of, and lower, higher, not_higher or not_lower "
            "with than, or equal with to."
        )
    relation, other = relations[0], given.get("than", given.get("to"))
    measure = str(given["of"])
    if measure not in measures:
        raise UserError(
            f"{path}: supported_if names {measure}, which is not among the measures: {', '.join(measures)}."
        )
    if is_curve(measure):
        raise UserError(f"{path}: supported_if names {measure}, a list of values: compare one, such as train/loss@3.")
    if is_number(given[relation]):
        raise UserError(
            f"{path}: supported_if {dict(given)}: {relation} names an arm, than or to another one or a number."
        )
    names = [name_at(str(each), given.get("at"), arms) for each in (given[relation], other) if not is_number(each)]
    if len(names) == 2 and names[0] == names[1]:
        raise UserError(f"{path}: supported_if compares {names[0]} with itself: name another arm.")
    for name in names:
        if name not in arms:
            raise UserError(f"{path}: supported_if names the arm {name}: the study has {', '.join(arms)}.")
    factor, by = given.get("factor"), given.get("by", given.get("within", 0.0))
    if not is_number(by) or not (factor is None or is_number(factor)):
        raise UserError(f"{path}: supported_if {dict(given)}: by, within and factor are numbers.")
    is_alike = relation in ("equal", "not_higher", "not_lower")
    if by < 0 or (factor is not None and not factor > 1) or (is_alike and not by > 0 and factor is None):
        raise UserError(
            f"{path}: supported_if {dict(given)}: by is at least 0, factor above 1; equal needs within, not_higher and "
            "not_lower need by, above 0, for nothing can be shown to be exactly alike."
        )
    return Expectation(measure, relation, names[0], float(other) if is_number(other) else names[-1], by, factor)


def read_count_at(given: Mapping[str, Any] | None, path: Path) -> CountAt | None:
    """The classes and the size of images of a study that trains nothing."""
    if given is None:
        return None
    check_keys(given, ("classes", "size"), f"count_at of {path}")
    classes, size = given.get("classes"), given.get("size")
    if not (isinstance(classes, int) and isinstance(size, int) and classes > 0 and size > 0):
        raise UserError(f"{path}: count_at is {dict(given)}: write classes and size (pixels), such as 1000 and 224.")
    return CountAt(classes, size)


def read_search(content: Mapping[str, Any], path: Path) -> Settings:
    """What all searches of a study have in common; empty for a study that does not search."""
    if content.get("search") is None:
        return {}
    given = dict(content["search"])
    check_keys(given, SEARCH_KEYS, f"search of {path}")
    if missing := [key for key in ("reward", "evaluations") if key not in given]:
        raise UserError(f"{path}: search has no {missing[0]}: write {{reward: table, evaluations: 500}}.")
    if unused := [key for key in ("base", "count_at") if content.get(key) is not None]:
        raise UserError(f"{path}: a study that searches trains no net of a config: leave out {unused[0]}.")
    return given


def read_budget(name: str, given: Any, base: tuple[str, ...], settings: Settings, path: Path) -> Budget:
    """A size of the study: seeds, perhaps another base, and flags over those of the study."""
    if not isinstance(given, dict):
        raise UserError(f"{path}: the budget {name} is {given}: write seeds, and flags such as trainer.max_epochs.")
    given = dict(given)
    seeds = given.pop("seeds", None)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"{path}: the budget {name} cannot name files: use letters, digits, hyphens and underscores.")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise UserError(f"{path}: the budget {name} has seeds {seeds}: give a number, 3 or more for an interval.")
    base = as_texts(given.pop("base", base))
    return Budget(name, seeds, base, merge(settings, given))


def check_flags(study: Study, settings: Settings) -> None:
    """Check that all settings are flags that a study may set.

    Args:
        settings: of all arms.

    Raises:
        UserError: for the first that is not.
    """
    named: dict[str, Iterable[str]] = {"settings": settings}
    for arm in study.arms.values():
        named[f"the arm {arm.name}"] = [*(arm.settings or {}), *(arm.test_settings or {})]
        if study.is_search and not same_recipe(arm, Arm("", settings=arm.settings, test_settings={})):
            raise UserError(f"{study.path}: the arm {arm.name} is a search, and takes {', '.join(SEARCH_FLAGS)}.")
    named |= {f"the budget {each.name}": each.settings for each in study.budgets.values()}
    for where, names in named.items():
        for name in map(str, names):
            if study.is_search and name not in SEARCH_FLAGS:
                raise UserError(f"{study.path}: {where} has {name}: a search takes {', '.join(SEARCH_FLAGS)}.")
            if not study.is_search and name.partition(".")[0] not in ("model", "data", "trainer"):
                raise UserError(
                    f"{study.path}: {where} has {name}, which is no flag of main.py for a study: write model.*, data.* "
                    "or trainer.*. An arm also takes config, checkpoint, members, start_from and test, a budget seeds "
                    "and base."
                )


def check_keys(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise UserError for the first key that is not known."""
    for key in given:
        if key not in known:
            similar = difflib.get_close_matches(str(key), [*known], n=1)
            meant = f"did you mean {similar[0]}?" if similar else f"the keys are {', '.join(known)}."
            raise UserError(f"{where} has the key {key}: {meant}")
