"""Whether the state of optimizers and schedules in a checkpoint belongs to those that a resumed run has made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpointing.content import find_mismatch
from errors import UserError, pluralize


def refuse_other_optimizer_state(
    optimizers: Sequence[torch.optim.Optimizer], states: Sequence[dict[str, Any]], step: int, path: Path | str
) -> None:
    """Refuse state that is missing, or of another shape than the parameters: momentum would be lost or go astray.

    Args:
        optimizers: of the resumed run.
        states: of the optimizers in the checkpoint.
        step: optimizer steps that the checkpoint has taken.
        path: of the checkpoint.

    Raises:
        UserError: with the first difference.
    """
    if len(states) != len(optimizers):
        raise_other(path, f"it holds the state of {pluralize(len(states), 'optimizer')} for {len(optimizers)}")
    for optimizer, state in zip(optimizers, states, strict=True):
        check_groups(optimizer, state["param_groups"], path)
        check_values(optimizer, state, path)
        if step and not state["state"] and keeps_state(optimizer):
            raise_other(path, f"it holds no momentum or other state of {type(optimizer).__name__} after {step:,} steps")


def check_groups(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], path: Path | str) -> None:
    """Refuse other groups of parameters, and settings of another kind."""
    if len(groups) != len(optimizer.param_groups):
        raise_other(path, f"it holds {pluralize(len(groups), 'parameter group')} for {len(optimizer.param_groups)}")
    for number, (own, saved) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        settings = {name: value for name, value in own.items() if name in saved and not isinstance(value, Tensor)}
        if mismatch := find_mismatch(saved, settings | {"params": [0]}, f"param_groups.{number}"):
            raise_other(path, mismatch)
        if len(saved["params"]) != len(own["params"]):
            raise_other(path, f"group {number} has {len(saved['params'])} parameters for {len(own['params'])}")


def check_values(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path | str) -> None:
    """Refuse state of a parameter that is of another shape or kind than the parameter, or lacks what others have."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = [index for group in state["param_groups"] for index in group["params"]]
    kept = [values for values in state["state"].values() if isinstance(values, dict)]
    names = {name for values in kept for name in values}
    tensors = {name for values in kept for name, value in values.items() if isinstance(value, Tensor)}
    for index, values in state["state"].items():
        if index not in indices or not isinstance(values, dict):
            raise_other(path, f"the state of parameter {index} belongs to none of the model's")
        if missing := names - values.keys():
            raise_other(path, f"parameter {index} has no {sorted(missing)[0]}, which the others have")
        parameter = parameters[indices.index(index)]
        for name, value in values.items():
            if name in tensors and not isinstance(value, Tensor):
                raise_other(path, f"the {name} of parameter {index} is {value!r:.80} and no tensor")
            if isinstance(value, Tensor) and not fits(value, parameter):
                raise_other(
                    path,
                    f"the {name} of parameter {index} is {value.dtype} {tuple(value.shape)} and the parameter "
                    f"{parameter.dtype} {tuple(parameter.shape)}",
                )


def fits(value: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor of an optimizer's state can belong to a parameter: a number, or one for each weight."""
    if value.numel() == 1 and parameter.numel() != 1:
        return True
    same_kind = value.is_floating_point() == parameter.is_floating_point() or value.dtype == torch.uint8
    return value.shape == parameter.shape and same_kind


def keeps_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer remembers anything from one step to the next: all do but SGD without momentum."""
    return not isinstance(optimizer, torch.optim.SGD) or any(group["momentum"] for group in optimizer.param_groups)


def raise_other(path: Path | str, difference: str) -> None:
    """Raise the UserError."""
    raise UserError(
        f"{path} cannot be resumed: {difference}. The file is damaged, was changed, or is of another run; resume from "
        "another checkpoint, or start a new run from its weights with --model.weights."
    )
