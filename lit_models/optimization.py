"""How long a run is, and how an optimizer's state lies in memory."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor


def steps_of_run(trainer: pl.Trainer) -> int | float:
    """The optimizer steps of a whole run.

    For our data modules without `trainer.estimated_stepping_batches`, which waits for the other processes and builds
    the loaders: a resumed run's would never get back the state by which they refuse other batches inside an epoch.
    """
    data: Any = getattr(trainer, "datamodule", None)
    if not hasattr(data, "preprocessing") or trainer.max_epochs == -1:
        return trainer.estimated_stepping_batches
    batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def match_strides(optimizer: torch.optim.Optimizer) -> None:
    """Lay the optimizer's memory of each parameter out as the parameter is.

    Fused optimizers walk through both in the order of memory. A run that is resumed with another `channels_last` brings
    the old order along: momentum would go to other weights of the same layer.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
