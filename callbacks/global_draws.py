"""Training of several processes with the draws of one."""

import lightning.pytorch as pl

from datamodules import ImageData, ImageNet
from datamodules.base import image_data
from errors import UserError, pluralize
from lit_models.classifier import LitClassifier
from lit_models.nets.layers import find_batch_norms
from lit_models.nets.sync_batch_norm import is_frozen, is_synchronised
from random_draws import GlobalDraws


class EqualToOneProcess(pl.Callback):
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.world_size > 1:
            share_draws(trainer, pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        own = [norm for norm in find_batch_norms(pl_module) if not (is_synchronised(norm) or is_frozen(norm))]
        if own and trainer.world_size > 1:
            refuse("BatchNorm normalises by each device's own images: give --trainer.sync_batchnorm true")


def share_draws(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Let all processes of a training draw what one process would: crops, dropout and every other draw.

    Raises:
        UserError: if they would not be equal to one process all the same.
    """
    data = image_data(trainer)
    assert data is not None and isinstance(module, LitClassifier)
    check_equality(data, module, trainer.world_size)
    data.draws = module.draws = GlobalDraws(trainer.global_rank, trainer.world_size)


def check_equality(data: ImageData, model: LitClassifier, world_size: int) -> None:
    """Refuse a training that several processes cannot do as one would."""
    images = len(data.train_set)
    if isinstance(data, ImageNet) and data.mixing.transforms:
        refuse("mixup and cutmix mix neighbours in the batch of each device: set data.augmentation's to 0")
    if data.skipped.policy == "skip":
        refuse("a device that skips a file draws for fewer images than the others: give --data.on_bad_image stop")
    if model.compile_net:
        refuse("a compiled net draws by itself: give --model.compile false")
    if images % world_size and not data.drop_last:
        refuse(
            f"{world_size} devices leave out {pluralize(images % world_size, 'image')} of {images:,} in each epoch, "
            "for equal shares: give --data.drop_last true, with which one process leaves them out too"
        )


def refuse(reason: str) -> None:
    """Raise a UserError with the reason and the fix."""
    raise UserError(f"equal_to_one_process is true, but {reason}, or leave equal_to_one_process out.")
