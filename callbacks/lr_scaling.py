"""Linear scaling of the learning rate with the batch, and its gradual warm-up: Goyal et al., arXiv 1706.02677."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CyclicLR, LinearLR, OneCycleLR, SequentialLR

from callbacks.lr_decay import StepLRDecay
from trainer_settings import settings

WITH_WARMUP = (OneCycleLR, CyclicLR, SequentialLR, LinearLR, ConstantLR)  # schedules that bring one of their own


class LearningRateScaling:
    """Multiplies the learning rates of optimizers while they take a step, whatever schedule sets them.

    Behind each step the rates are restored: schedules and checkpoints hold the recipe's own, and the factor follows in
    closed form from the epochs done, so a resumed run goes on exactly.

    Args:
        optimizers: of the training.
        scale: the factor in the end (section 2.1).
        warmup_epochs: epochs over which a factor above 1 rises to it linearly from 1 (section 2.2).
    """

    def __init__(self, optimizers: Sequence[Optimizer], scale: float = 1.0, warmup_epochs: float = 0) -> None:
        self.optimizers, self.scale, self.warmup_epochs = optimizers, scale, warmup_epochs if scale > 1 else 0
        self.recipe_rates: dict[Optimizer, list[float]] = {}  # of its groups, while they hold the scaled ones
        for optimizer in optimizers:
            optimizer.register_step_post_hook(self._restore_after_step)

    def factor(self, epochs: float) -> float:
        """The factor after some epochs, which need not be whole."""
        risen = min(1.0, epochs / self.warmup_epochs) if self.warmup_epochs else 1.0
        return 1 + (self.scale - 1) * risen

    def scale_rates(self, epochs: float) -> None:
        """Scale the learning rates for the next step, after so many epochs; scaled ones stay as they are."""
        if self.scale == 1 or self.recipe_rates:
            return
        for optimizer in self.optimizers:
            self.recipe_rates[optimizer] = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"] *= self.factor(epochs)

    def restore_rates(self) -> None:
        """Give all optimizers the recipe's own learning rates back, also where no step was taken."""
        for optimizer in [*self.recipe_rates]:
            self._restore_after_step(optimizer)

    def _restore_after_step(self, optimizer: Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self.recipe_rates.pop(optimizer, []), strict=False):
            group["lr"] = rate


def has_warmup(trainer: pl.Trainer) -> bool:
    """Whether the recipe's own schedule begins below its learning rate."""
    decays = [each for each in settings(trainer).callbacks if isinstance(each, StepLRDecay)]
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    return any(each.warmup > 0 for each in decays) or any(isinstance(each, WITH_WARMUP) for each in schedules)
