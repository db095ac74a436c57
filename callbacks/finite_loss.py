"""A loss that is NaN or infinite: said with its step and images, and kept out of every checkpoint."""

import warnings
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks.result_writer import gather
from callbacks.run_logger import run_dir
from checkpointing.record import newest_whole
from datamodules.loading import ResumableLoader
from errors import UserError
from trainer_settings import settings

Policy = Literal["stop", "continue"]
IMAGES_NAMED = 4  # of the batch with the first loss that is not finite


class Diverged(UserError):
    """A training whose loss or weights are not finite: to resume it from its last checkpoint would end the same way."""


class BatchLoss(NamedTuple):
    """The loss of a training batch, a scalar that stays on the device, and where in the training it was.

    Args:
        step: optimizer steps taken with this batch.
        batch: its number in the epoch; like the epoch, counted from 0.
    """

    loss: Tensor
    step: int
    epoch: int
    batch: int


class FiniteLoss(pl.Callback):
    """Stops a training whose loss is not finite, or says so once and goes on.

    No step waits for the device: the losses are looked at in every step of a single process on a CPU, and elsewhere
    when the loggers read their values, at the end of an epoch and before a checkpoint is written. The command line adds
    this callback, and its Trainer asks `may_save` before it writes a checkpoint.

    Args:
        policy: stop names the step, the images and the last good checkpoint; continue goes on, and neither writes a
            checkpoint nor removes one while the weights are not finite.

    Raises:
        Diverged: if the policy is to stop.
    """

    def __init__(self, policy: Policy = "stop") -> None:
        self.policy = policy
        self.unchecked: list[BatchLoss] = []
        self.warned: set[str] = set()  # of the loss, the weights, the validation loss: each once
        self.saved: dict[str, dict[str, Any]] = {}  # the states of the ModelCheckpoints that name files that exist

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved = copy_states(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs:  # there is none where no image of the batch could be read
            self.unchecked.append(BatchLoss(outputs["loss"], trainer.global_step, trainer.current_epoch, batch_idx))
        interval = settings(trainer).log_every_n_steps
        alone_on_cpu = trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"
        if alone_on_cpu or (interval and trainer.global_step % interval == 0):
            self._check_losses(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_losses(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if trainer.state.fn == "fit" and not trainer.sanity_checking and loss is not None and not loss.isfinite():
            said = f"The validation loss is {float(loss)} after step {trainer.global_step:,}"
            self._warn(trainer, "val/loss", f"{said}: images whose scores are NaN count as wrong.")

    def may_save(self, trainer: pl.Trainer) -> bool:
        """Whether a checkpoint may be written now; every process must ask."""
        self._check_losses(trainer)
        if not decide_together(trainer, not all_finite(trainer.lightning_module)):
            self.saved = copy_states(trainer)
            return True
        said = f"The weights are not finite after step {trainer.global_step:,}"
        if self.policy == "stop":
            raise Diverged(f"{said}: {advise(trainer)}")
        self._warn(trainer, "weights", f"{said}: no checkpoint is written, and none removed, while they are not.")
        for saver in model_checkpoints(trainer):
            restore_state(saver, self.saved[saver.state_key])
        return False

    def _check_losses(self, trainer: pl.Trainer) -> None:
        """Stop at the first loss that is not finite, or warn of it; every process must call this."""
        losses, self.unchecked = self.unchecked, []
        found = first_not_finite(losses)
        if not decide_together(trainer, found is not None):
            return
        mine = [] if found is None else [(found.step, found.batch, describe(trainer, found))]
        *_, said = min(gather(trainer, mine))
        if self.policy == "stop":
            raise Diverged(f"{said}: {advise(trainer)}")
        self._warn(trainer, "loss", f"{said}: training goes on.")

    def _warn(self, trainer: pl.Trainer, topic: str, sentence: str) -> None:
        if topic not in self.warned and trainer.is_global_zero:
            warnings.warn(sentence, stacklevel=2)
        self.warned.add(topic)


def model_checkpoints(trainer: pl.Trainer) -> list[ModelCheckpoint]:
    """The callbacks that write checkpoints."""
    return [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]


def copy_states(trainer: pl.Trainer) -> dict[str, dict[str, Any]]:
    """The scores and paths that each ModelCheckpoint knows, by its key in checkpoints, in dicts of their own."""
    states = {saver.state_key: saver.state_dict() for saver in model_checkpoints(trainer)}
    return {key: state | {"best_k_models": dict(state["best_k_models"])} for key, state in states.items()}


def restore_state(saver: ModelCheckpoint, state: dict[str, Any]) -> None:
    """Let a ModelCheckpoint forget a file that was not written: it notes files before they are."""
    saver.load_state_dict(state | {"best_k_models": dict(state["best_k_models"])})
    saver.current_score = state["current_score"]
    if saver.save_last == "link":
        saver.save_last = True  # Lightning would link to the file that was not written


def first_not_finite(losses: list[BatchLoss]) -> BatchLoss | None:
    """The first of several losses that is NaN or infinite; waits for the device."""
    if not losses:
        return None
    finite = torch.stack([each.loss for each in losses]).isfinite().tolist()
    return None if all(finite) else losses[finite.index(False)]


def all_finite(module: torch.nn.Module) -> bool:
    """Whether all weights and buffers of a module are finite; waits for the device."""
    values = [value for value in module.state_dict().values() if value.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in values]).all())


def decide_together(trainer: pl.Trainer, mine: bool) -> bool:
    """Whether any process decides so; each of them must call this."""
    return mine if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(mine, all=False)


def describe(trainer: pl.Trainer, found: BatchLoss) -> str:
    """A loss that is not finite, where it was, and the images of its batch."""
    batch = f"batch {found.batch + 1:,} of epoch {found.epoch + 1:,}{name_images(trainer, found)}"
    return f"The training loss is {float(found.loss)} at step {found.step:,} ({batch})"


def name_images(trainer: pl.Trainer, found: BatchLoss) -> str:
    """ ", with the images a.jpg, b.jpg and 6 more": names of files or else indices in the training set."""
    loader = trainer.train_dataloader
    if not isinstance(loader, ResumableLoader):
        return ""
    indices = loader.batch_indices(found.batch)
    files = loader.dataset.file_names
    names = [files[index] if files else str(index) for index in indices]
    more = f" and {len(names) - IMAGES_NAMED} more" if len(names) > IMAGES_NAMED else ""
    return f", with the images {', '.join(names[:IMAGES_NAMED])}{more}"


def advise(trainer: pl.Trainer) -> str:
    """What to do about a training that has diverged, and the last good checkpoint."""
    folder = run_dir(trainer)
    path = newest_whole((folder / "checkpoints").glob("*.ckpt")) if folder else None
    last = f"its last good checkpoint is {path}" if path else "it has no checkpoint yet"
    return (
        "this training has diverged. Start again with a lower --model.optimizer.lr, a warm-up or "
        f"--trainer.gradient_clip_val 1, or look at these images; --on_nonfinite continue goes on regardless; {last}."
    )
