"""Optimizer and learning-rate schedule of a model, from the callables that its config gives."""

import math
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from checkpointing.resume import refuse_longer_schedule
from errors import UserError
from trainer_settings import settings


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
        make: called with the optimizer, and with the `total_steps` of the whole run where its config has left them
            null (OneCycleLR from a YAML file, which cannot know how many steps the data make).
        optimizer: whose rate is scheduled.
        model: whose trainer counts the steps.
        interval: when the schedule steps.
    """
    if isinstance(make, partial) and make.keywords.get("total_steps", 0) is None:
        steps = model.trainer.estimated_stepping_batches
        if steps == math.inf:
            raise UserError(
                "The learning-rate schedule must know the length of the run, and max_epochs -1 sets none: give "
                "--trainer.max_epochs or --trainer.max_steps, or the schedule's own total_steps."
            )
        make = partial(make, total_steps=int(steps))
    scheduler = make(optimizer)
    monitor = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else "val/loss"
    return {"scheduler": scheduler, "interval": interval, "monitor": monitor}


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
    """Refuse a run that is longer than its one-cycle schedule: see `refuse_longer_schedule`. Warn of longer cosines."""
    if any(isinstance(each, StochasticWeightAveraging) for each in settings(trainer).callbacks):
        return  # the epoch that it adds takes no step
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, OneCycleLR):
            refuse_longer_schedule(config.scheduler.total_steps, interval, trainer.estimated_stepping_batches)
        if isinstance(config.scheduler, CosineAnnealingLR):
            warn_of_longer_run(config.scheduler.T_max, interval, trainer)


def warn_of_longer_run(period: int, interval: str, trainer: pl.Trainer) -> None:
    """Say so where the run goes on after a cosine has ended, half its period: torch's then rises again."""
    length = trainer.estimated_stepping_batches
    if interval == "epoch" and trainer.max_epochs not in (-1, None):
        length = min(length, trainer.max_epochs)
    if period < length:
        warnings.warn(
            f"CosineAnnealingLR has a T_max of {period} {interval}s and the run is longer: its learning rate is lowest "
            "there and then rises again.",
            stacklevel=2,
        )


def refuse_to_train(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """Stands for the optimizer of a model that was loaded from a checkpoint for evaluation."""
    raise UserError("This model was loaded without an optimizer: give load_from_checkpoint(path, optimizer=...).")
