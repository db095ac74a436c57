"""The search methods by name, and the numbers that they are made with."""

import inspect
from collections.abc import Mapping
from typing import Any

from errors import UserError
from lit_models.nets.layers import check_choice
from studies.search.methods import Evolution, Method, RandomSearch
from studies.search.policy_gradient import PPO, Reinforce
from studies.search.spaces import Space

METHODS: dict[str, type[Method]] = {
    "reinforce": Reinforce,
    "ppo": PPO,
    "random": RandomSearch,
    "evolution": Evolution,
}
# A search of 40 children: batches that two or four processes share, and a population that mutates before its end
FEW_EVALUATIONS = {"batch_size": 4, "population_size": 12, "sample_size": 4}
HELP = {
    "batch_size": "proposals that are drawn at a time",
    "learning_rate": "of the controller",
    "entropy_weight": "of the controller's entropy in its objective",
    "baseline_decay": "of the moving average of rewards",
    "hidden_size": "units of the controller",
    "steps": "gradient steps of PPO on each batch",
    "clip": "epsilon of PPO",
    "population_size": "of evolution",
    "sample_size": "members of which evolution mutates the best",
}


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a method with their defaults."""
    parameters = inspect.signature(METHODS[name]).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def choose_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method: its defaults, and in their place what is given."""
    defaults = settings_of(name)
    return defaults | {key: value for key, value in given.items() if key in defaults}


def check_settings(names: list[str], given: Mapping[str, Any]) -> None:
    """Check the methods and settings that a user gave.

    Raises:
        UserError: for an unknown method, and a setting that none of the methods has.
    """
    for name in names:
        check_choice("method", name, METHODS)
    for key in given:
        if not any(key in settings_of(name) for name in names):
            takers = [name for name in METHODS if key in settings_of(name)]
            raise UserError(f"--{key} is of {' and '.join(takers)}: add --method {takers[0]}, or leave it out.")


def make_method(name: str, space: Space, seed: int, settings: Mapping[str, Any]) -> Method:
    """A method with all its settings.

    Raises:
        UserError: for settings out of range.
    """
    return METHODS[name](space, seed, **settings)
