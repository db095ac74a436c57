"""Studies that train nothing: nets are built on the meta device and counted."""

from collections.abc import Mapping
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
from studies.study import CountAt, Study

BUILT_WITHOUT = ("optimizer", "lr_scheduler", "weights", "init_from", "num_classes")


def count_row(study: Study, recipe: Recipe, seed: int, config: Mapping[str, Any]) -> Row:
    """The row of an arm that is counted.

    Args:
        config: whole config of its `fit`.
    """
    assert study.count_at is not None
    counted = count_net(build_net(config["model"], study.count_at), study.count_at.size)
    if unknown := [name for name in study.measures if name not in counted]:
        raise UserError(f"the measure {unknown[0]} needs a training, and count_at makes none: leave one of them out.")
    return Row(
        arm=recipe.arm.name,
        seed=seed,
        state="finished",
        measures={name: counted[name] for name in study.measures},
        recipe=recipe.digest,
        num_classes=study.count_at.classes,
        code_version=code_version(),
    )


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
