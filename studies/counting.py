"""Studies that train nothing: nets are built on the meta device and counted."""

from collections.abc import Mapping, Sequence
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch
from torch import nn

from checkpointing.record import code_version
from errors import UserError
from lit_models.counts import count_used
from studies.commands import Recipe
from studies.measures import FC_SHARE
from studies.results import Row
from studies.study import CountAt
from studies.training import Training

BUILT_WITHOUT = ("optimizer", "lr_scheduler", "weights", "init_from", "num_classes")


class Counting:
    """Counts the nets of a study.

    Args:
        at: what they are built for.
        training: that would train them.
    """

    def __init__(self, at: CountAt, training: Training) -> None:
        self.at, self.training, self.study = at, training, training.study

    def check_study(self) -> None:
        self.training.check_study()

    def check(self, recipe: Recipe) -> Any:
        return self.training.describe(recipe, self.training.resolve_fit(recipe))

    def make_row(self, recipe: Recipe, seed: int) -> Row:
        counted = count_net(build_net(self.training.resolve_fit(recipe)["model"], self.at), self.at.size)
        if unknown := [name for name in self.study.measures if name not in counted]:
            raise UserError(
                f"the measure {unknown[0]} needs a training, and count_at makes none: leave one of them out."
            )
        return Row(
            arm=recipe.arm.name,
            seed=seed,
            state="finished",
            measures={name: counted[name] for name in self.study.measures},
            recipe=recipe.digest,
            num_classes=self.at.classes,
            code_version=code_version(),
        )

    def shell_lines(self, recipes: Sequence[Recipe], seeds: int) -> list[str]:
        return []  # no command of main.py counts at another size

    def commands_of(self, recipe: Recipe) -> list[str]:
        return []


def build_net(model: Mapping[str, Any], at: CountAt) -> nn.Module:
    """The net of the section `model` of a config, on the meta device."""
    family = resolve_name(model["class_path"])
    arguments = {name: value for name, value in model["init_args"].items() if name not in BUILT_WITHOUT}
    with torch.device("meta"):
        return family(at.classes, optimizer=partial(torch.optim.SGD, lr=0.1), **arguments).net


def count_net(net: nn.Module, size: int) -> dict[str, float]:
    """What is measured of a net without training."""
    used = count_used(net, size)
    layers = [
        layer for name, layer in net.named_modules() if isinstance(layer, nn.Linear) and "aux" not in name.lower()
    ]
    linear = sum(each.numel() for layer in layers for each in layer.parameters())
    counts = {"parameters": used.parameters, "multiply_adds": used.multiply_adds}
    return {**counts, FC_SHARE: linear / used.parameters}
