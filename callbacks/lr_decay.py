"""Step decay of the learning rate, as nearly all the papers here use it."""

import math
from bisect import bisect_right
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import StochasticWeightAveraging

from errors import UserError
from trainer_settings import epochs_done, settings


class StepLRDecay(pl.Callback):
    """Multiply the learning rate by `gamma` every `step_size`, or at each of the `milestones`.

    The rate follows in closed form from where training stands, so that a resumed run goes on exactly.

    Args:
        step_size: epochs or steps between two drops; fractions of an epoch are allowed.
        milestones: the epochs or steps at which the rate drops, ascending; instead of `step_size`.
        gamma: what each drop multiplies the rate by.
        interval: the unit of all lengths here: epochs, or optimizer steps.
        warmup: epochs or steps at the start in which the rate is lower.
        warmup_factor: share of the optimizer's rate at the very start.
        warmup_shape: rise linearly from there to the whole rate, or stay there until the warm-up ends.

    Raises:
        UserError: for both or none of `step_size` and `milestones`, milestones out of order, lengths that are not
            positive, or a model that has a scheduler of its own.
    """

    def __init__(
        self,
        step_size: float | None = None,
        milestones: list[float] | None = None,
        gamma: float = 0.1,
        interval: Literal["epoch", "step"] = "epoch",
        warmup: float = 0,
        warmup_factor: float = 0.1,
        warmup_shape: Literal["linear", "constant"] = "linear",
    ) -> None:
        if (step_size is None) == (milestones is None):
            raise UserError(
                f"StepLRDecay needs either step_size or milestones (got {step_size} and {milestones}): give one."
            )
        if step_size is not None and not step_size > 0:  # NaN is refused too
            raise UserError(f"StepLRDecay's step_size is {step_size}: it must be more than 0 {interval}s.")
        if milestones is not None and (sorted(set(milestones)) != milestones or any(map(math.isnan, milestones))):
            raise UserError(f"StepLRDecay's milestones {milestones} must ascend.")
        if not (gamma > 0 and warmup >= 0 and warmup_factor > 0):
            raise UserError(
                f"StepLRDecay's gamma {gamma} and warmup_factor {warmup_factor} must be positive, "
                f"its warmup {warmup} not negative."
            )
        self.step_size, self.milestones, self.gamma, self.interval = step_size, milestones, gamma, interval
        self.warmup, self.warmup_factor, self.warmup_shape = warmup, warmup_factor, warmup_shape

    def factor(self, position: float) -> float:
        """What the optimizer's learning rate is multiplied by after that many epochs or steps."""
        position += 1e-9  # 2 * 2.4 epochs counted in batches may come out a rounding error short of 4.8
        if position < self.warmup:
            risen = position / self.warmup if self.warmup_shape == "linear" else 0.0
            return self.warmup_factor + (1 - self.warmup_factor) * risen
        if self.milestones is not None:
            return self.gamma ** bisect_right(self.milestones, position)
        assert self.step_size is not None
        return self.gamma ** math.floor(position / self.step_size)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.lr_scheduler_configs:
            name = type(trainer.lr_scheduler_configs[0].scheduler).__name__
            raise UserError(
                f"StepLRDecay and the model's lr_scheduler {name} would both set the learning rate: remove one of them."
            )
        callbacks = settings(trainer).callbacks
        if sum(isinstance(callback, StepLRDecay) for callback in callbacks) > 1:
            raise UserError("There are two StepLRDecay callbacks, of which the last would win: remove one of them.")
        if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
            raise UserError(
                "StepLRDecay and StochasticWeightAveraging would both set the learning rate: average with "
                "configs/overlays/average_last.yaml instead, or take StepLRDecay out of the experiment."
            )
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])  # a resumed optimizer brings its own
        epochs: Any = trainer.fit_loop.epoch_progress.current
        # A run resumed at an epoch's end still counts that epoch's batches here
        self._set(trainer, trainer.fit_loop.batch_idx + 1 if epochs.processed < epochs.started else 0)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        # For the step that follows, so that LearningRateMonitor sees at an epoch's start what that epoch uses
        self._set(trainer, trainer.fit_loop.batch_idx + 1)

    def _set(self, trainer: pl.Trainer, batches_done: int) -> None:
        by_epoch = self.interval == "epoch"
        factor = self.factor(epochs_done(trainer, batches_done) if by_epoch else trainer.global_step)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
