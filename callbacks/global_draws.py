"""Training on several devices with the random draws of one process."""

import lightning.pytorch as pl

from datamodules import ImageData, ImageNet
from datamodules.base import image_data
from errors import UserError, pluralize
from lit_models.classifier import LitClassifier
from lit_models.nets.layers import find_batch_norms
from lit_models.nets.sync_batch_norm import is_frozen, is_synchronised
from random_draws import GlobalDraws


class EqualToOneProcess(pl.Callback):
    """Lets several devices train as one process would: equal losses and weights, up to rounding.

    Crops, dropout and every other draw are made for the batch of all devices, and each device takes those of its
    images. This costs time, for each device draws for all. Without this callback each device draws for itself. In one
    process the callback changes nothing.

    Raises:
        UserError: where the devices would not be equal to one process all the same: MixUp and CutMix, files that are
            skipped, a compiled net, BatchNorm that is not synchronised, training images that cannot be shared equally.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data = image_data(trainer)
        if stage == "fit" and trainer.world_size > 1 and data is not None and isinstance(pl_module, LitClassifier):
            check_equality(data, pl_module, trainer.world_size)
            data.draws = pl_module.draws = GlobalDraws(trainer.global_rank, trainer.world_size)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        norms = [norm for norm in find_batch_norms(pl_module) if not is_frozen(norm)]
        if trainer.world_size > 1 and not all(map(is_synchronised, norms)):
            refuse("BatchNorm normalises by the images of each device: give --trainer.sync_batchnorm true")


def check_equality(data: ImageData, model: LitClassifier, world_size: int) -> None:
    """Refuse a training that several devices cannot do as one process would.

    Raises:
        UserError: with the reason and the fix.
    """
    left_out = len(data.train_set) % world_size
    if isinstance(data, ImageNet) and data.mixing.transforms:
        refuse("mixup and cutmix mix neighbours in the batch of each device: set both to 0 in data.augmentation")
    if data.skipped.policy == "skip":
        refuse("a device that skips a file draws for fewer images than the others: give --data.on_bad_image stop")
    if model.compile_net:
        refuse("a compiled net draws by itself: give --model.compile false")
    if left_out and not data.drop_last:
        refuse(
            f"for equal shares {world_size} devices leave {pluralize(left_out, 'image')} of {len(data.train_set):,} "
            "out of each epoch: give --data.drop_last true, with which one process leaves them out too"
        )


def refuse(reason: str) -> None:
    """Raise a UserError for a reason, which ends with a fix."""
    raise UserError(f"EqualToOneProcess cannot make the devices equal to one process; {reason}, or leave it out.")
