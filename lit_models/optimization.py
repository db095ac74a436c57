"""Optimizer and learning-rate schedule of a model, from the callables that its config gives."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, PolynomialLR

from checkpointing.resume import refuse_longer_schedule
from errors import UserError
from trainer_settings import settings

# Schedules that end: the attribute with their length, and what the learning rate is in a longer run
ENDS: dict[type, tuple[str, str]] = {
    CosineAnnealingLR: ("T_max", "lowest there and then rises again"),
    PolynomialLR: ("total_iters", "0 from there on"),
}
LENGTHS = ("total_steps", "epochs", "steps_per_epoch")  # arguments that set the length of a one-cycle schedule


def make_optimizer(make: OptimizerCallable, model: nn.Module, decay_norm_and_bias: bool) -> torch.optim.Optimizer:
    """The optimizer, fused where it can be and the user has not chosen otherwise: one kernel for all parameters.

    Args:
        make: called with the trained parameters of the model.
        model: whose parameters are optimized.
        decay_norm_and_bias: whether biases and norms decay too; if not, they are a group without weight decay.
    """
    trained: list[Any] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not decay_norm_and_bias:
        # Biases, gammas and betas are the parameters of one dimension
        trained = [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
    optimizer = make(trained)
    for group in optimizer.param_groups:
        if group.get("fused", False) is None and not group.get("foreach"):
            group["fused"] = True
    return optimizer


def make_schedule(
    make: LRSchedulerCallable,
    optimizer: torch.optim.Optimizer,
    model: pl.LightningModule,
    interval: Literal["epoch", "step"],
) -> dict[str, Any]:
    """The learning-rate schedule, as Lightning's `configure_optimizers` returns it.

    Args:
        make: called with the optimizer, and with the `total_steps` of the whole run where its config has left all its
            lengths null (OneCycleLR from a YAML file, which cannot know how many steps the data make).
        optimizer: whose rate is scheduled.
        model: whose trainer counts the steps.
        interval: when the schedule steps; its lengths are counted so.
    """
    if isinstance(make, partial) and is_without_length(make.keywords):
        steps = model.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise UserError(
                "The learning-rate schedule must know the length of the run, and max_epochs -1 sets none: give "
                "--trainer.max_epochs or --trainer.max_steps, or the schedule's own total_steps."
            )
        if (length := run_length(model.trainer, interval, steps)) is None:
            raise UserError(
                f"The learning-rate schedule steps after each epoch, and max_steps {model.trainer.max_steps} counts "
                "optimizer steps: give --model.lr_interval step, --trainer.max_epochs alone, or the schedule's own "
                "total_steps in epochs."
            )
        make = partial(make, total_steps=int(length))
    scheduler = make(optimizer)
    monitor = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else "val/loss"
    return {"scheduler": scheduler, "interval": interval, "monitor": monitor}


def is_without_length(arguments: dict[str, Any]) -> bool:
    """Whether a schedule takes a length and its config has left it null."""
    return "total_steps" in arguments and all(arguments.get(name) is None for name in LENGTHS)


def run_length(trainer: pl.Trainer, interval: str, steps: int | float) -> int | float | None:
    """The length of a run in the unit of its schedule.

    Args:
        trainer: of the run.
        interval: when the schedule steps.
        steps: optimizer steps of the whole run.

    Returns:
        Its optimizer steps or its epochs, infinite for a run without an end; None for epochs that max_steps ends,
        before the batches of an epoch are known.
    """
    if interval == "step":
        return steps
    if steps != trainer.max_steps:
        return math.inf if trainer.max_epochs in (-1, None) else trainer.max_epochs
    if trainer.num_training_batches == math.inf:
        return None
    return math.ceil(steps / math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))


def match_memory_layout(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Lay out the optimizers' state of each parameter in memory as the parameter is.

    Fused optimizers walk through both in the order of memory. A run that is resumed with another `channels_last` brings
    the old order along: momentum would go to other weights of the same layer.
    """
    for parameter, state in [item for optimizer in optimizers for item in optimizer.state.items()]:
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def check_schedules(trainer: pl.Trainer, interval: str) -> None:
    """Refuse a run that is longer than its one-cycle schedule, see `refuse_longer_schedule`; warn where others end."""
    if any(isinstance(each, StochasticWeightAveraging) for each in settings(trainer).callbacks):
        return  # the epoch that it adds takes no step
    for scheduler in [config.scheduler for config in trainer.lr_scheduler_configs]:
        length = run_length(trainer, interval, trainer.estimated_stepping_batches)
        if isinstance(scheduler, OneCycleLR):
            refuse_longer_schedule(scheduler.total_steps, interval, length)
        for kind, (name, end) in ENDS.items():
            if isinstance(scheduler, kind) and length is not None and (own := getattr(scheduler, name)) < length:
                said = f"{kind.__name__} has a {name} of {own} {interval}s and the run is longer"
                rank_zero_warn(f"{said}: its learning rate is {end}.", stacklevel=2)


def refuse_to_train(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """Stands for the optimizer of a model that was loaded from a checkpoint for evaluation."""
    raise UserError("This model was loaded without an optimizer: give load_from_checkpoint(path, optimizer=...).")
