"""Whether the state of optimizers and schedules in a checkpoint belongs to those that a resumed run has made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpointing.content import find_mismatch
from errors import UserError, pluralize

# The state that these classes keep of a parameter is known: tensors of its shape, and single numbers of the names in
# NUMBERS. Others are free, as Adafactor with its rows and columns, or LBFGS with one history for all parameters.
KNOWN = {
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.SGD,
}
NUMBERS = {"step", "mu_product", "eta", "mu"}


def refuse_other_optimizer_state(
    optimizers: Sequence[torch.optim.Optimizer],
    states: Sequence[dict[str, Any]],
    step: int,
    path: Path | str,
    counts: Sequence[int] | None = None,
) -> None:
    """Refuse state that is missing, or of another shape than the parameters: momentum would be lost or go astray.

    Names and shapes are compared for the optimizers in `KNOWN` alone, because others are free in what they keep.

    Args:
        optimizers: of the resumed run.
        states: of the optimizers in the checkpoint.
        step: optimizer steps that the checkpoint has taken.
        path: of the checkpoint.
        counts: for each optimizer how many parameters had state when the checkpoint was written, see `count_states`;
            a parameter that never had a gradient has none. None for a checkpoint of version 0.1.

    Raises:
        UserError: with the first difference.
    """
    if len(states) != len(optimizers):
        raise_other(path, f"it holds the state of {pluralize(len(states), 'optimizer')} for {len(optimizers)}")
    for number, (optimizer, state) in enumerate(zip(optimizers, states, strict=True)):
        check_groups(optimizer, state["param_groups"], path)
        check_values(optimizer, state, path)
        if step and not state["state"] and keeps_state(optimizer) and (counts is None or any(counts)):
            raise_other(path, f"it holds no momentum or other state of {type(optimizer).__name__} after {step:,} steps")
        if counts is not None and [len(state["state"])] != list(counts[number : number + 1]):
            raise_other(
                path, f"it holds the state of {pluralize(len(state['state']), 'parameter')}, and held another number"
            )


def count_states(states: Sequence[dict[str, Any]]) -> list[int]:
    """For each optimizer the number of parameters that it keeps state of."""
    return [len(state["state"]) for state in states]


def check_groups(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], path: Path | str) -> None:
    """Refuse other groups of parameters, and settings of another kind."""
    if len(groups) != len(optimizer.param_groups):
        raise_other(path, f"it holds {pluralize(len(groups), 'parameter group')} for {len(optimizer.param_groups)}")
    for number, (own, saved) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        settings = {name: value for name, value in own.items() if name in saved and not isinstance(value, Tensor)}
        # A schedule makes a fraction of a learning rate of 1
        settings = {name: float(value) if type(value) is int else value for name, value in settings.items()}
        if mismatch := find_mismatch(saved, settings | {"params": [0]}, f"param_groups.{number}"):
            raise_other(path, mismatch)
        if len(saved["params"]) != len(own["params"]):
            raise_other(path, f"group {number} has {len(saved['params'])} parameters for {len(own['params'])}")


def check_values(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path | str) -> None:
    """Refuse state of parameters that do not exist, and of known optimizers what does not fit the parameter."""
    indices = {index for group in state["param_groups"] for index in group["params"]}
    for index, values in state["state"].items():
        if index not in indices or not isinstance(values, dict):
            raise_other(path, f"the state of parameter {index} belongs to none of the model's")
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        if type(optimizer) in KNOWN:
            kept = {index: state["state"][index] for index in saved["params"] if index in state["state"]}
            check_known(dict(zip(saved["params"], own["params"], strict=True)), kept, path)


def check_known(parameters: dict[int, Tensor], kept: dict[int, dict[str, Any]], path: Path | str) -> None:
    """Refuse state of a group's parameter that is of another shape or kind, or lacks what others of the group have."""
    names = {name for values in kept.values() for name in values}
    tensors = {name for values in kept.values() for name, value in values.items() if isinstance(value, Tensor)}
    for index, values in kept.items():
        if missing := names - values.keys():
            raise_other(path, f"parameter {index} has no {sorted(missing)[0]}, which the others have")
        parameter = parameters[index]
        for name, value in values.items():
            if name in tensors and not isinstance(value, Tensor):
                raise_other(path, f"the {name} of parameter {index} is {value!r:.80} and no tensor")
            if isinstance(value, Tensor) and not fits(name, value, parameter):
                raise_other(
                    path,
                    f"the {name} of parameter {index} is {value.dtype} {tuple(value.shape)} and the parameter "
                    f"{parameter.dtype} {tuple(parameter.shape)}",
                )


def fits(name: str, value: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor of a known optimizer's state can belong to a parameter: a number, or one for each weight."""
    same_kind = value.is_floating_point() == parameter.is_floating_point()
    return value.numel() == 1 if name in NUMBERS else value.shape == parameter.shape and same_kind


def keeps_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is known to remember anything between steps: SGD does with momentum."""
    momentum = any(group.get("momentum") for group in optimizer.param_groups)
    return type(optimizer) in KNOWN and (momentum or not isinstance(optimizer, torch.optim.SGD))


def raise_other(path: Path | str, difference: str) -> None:
    """Raise the UserError."""
    raise UserError(
        f"{path} cannot be resumed: {difference}. The file is damaged, was changed, or is of another run; resume from "
        "another checkpoint, or start a new run from its weights with --model.weights."
    )
