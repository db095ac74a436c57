"""Random draws of several devices as those of one process, and where they would not make the devices equal to it."""

from typing import NoReturn

import lightning.pytorch as pl

from datamodules import ImageData, ImageNet
from errors import UserError, pluralize
from lit_models.classifier import LitClassifier
from lit_models.nets.layers import find_batch_norms
from lit_models.nets.sync_batch_norm import is_frozen, is_synchronised
from random_draws import GlobalDraws


def draw_as_one_process(data: ImageData, model: pl.LightningModule, rank: int, world_size: int) -> None:
    """Let every draw of a training be made for the batch of all devices, of which each device takes its images' part.

    Args:
        data: whose augmentation draws.
        model: whose net draws.
        rank: of this process.
        world_size: number of processes; each has one device.

    Raises:
        UserError: where the devices would not be equal to one process all the same, see `check_equality`.
    """
    if not isinstance(model, LitClassifier):
        refuse("the model is no LitClassifier, whose draws can be shared")
    check_equality(data, model, world_size)
    data.draws = model.draws = GlobalDraws(rank, world_size)


def check_equality(data: ImageData, model: LitClassifier, world_size: int) -> None:
    """Refuse a training that several devices cannot do as one process would: MixUp and CutMix, files that are skipped,
    a compiled net, BatchNorm that is not synchronised, training images that cannot be shared equally.

    Raises:
        UserError: with the reason and the fix.
    """
    remainder = len(data.train_set) % world_size
    if isinstance(data, ImageNet) and data.mixing.transforms:
        refuse("mixup and cutmix mix neighbours in the batch of each device: set both to 0 in data.augmentation")
    if data.skipped.policy == "skip":
        refuse("a device that skips a file draws for fewer images than the others: give --data.on_bad_image stop")
    if model.compile_net:
        refuse("a compiled net draws by itself: give --model.compile false")
    if remainder and not data.drop_last:
        refuse(
            f"for equal shares {world_size} devices leave {pluralize(remainder, 'image')} of {len(data.train_set):,} "
            "out of each epoch: give --data.drop_last true, with which one process leaves them out too"
        )
    if not all(is_synchronised(norm) or is_frozen(norm) for norm in find_batch_norms(model)):
        refuse("BatchNorm normalises by the images of each device: give --trainer.callbacks.sync_batchnorm true")


def refuse(reason: str) -> NoReturn:
    """Raise a UserError for a reason, which ends with a fix."""
    raise UserError(f"equal_to_one_process cannot make the devices equal to one process; {reason}, or leave it out.")
