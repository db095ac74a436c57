"""Checks of the model against the data, before anything is written."""

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from callbacks.ddp import DDP
from callbacks.sync_batch_norm import SyncBatchNorm
from callbacks.trainer_checks import check_callbacks, check_limit, check_monitors, check_validation_interval
from datamodules.base import ImageData, image_data
from errors import UserError, pluralize
from lit_models.classifier import LitClassifier
from lit_models.nets.layers import find_batch_norms
from trainer_settings import settings


class InputChecks(pl.Callback):
    """Refuses images that the model cannot take and batches that cannot be shared out, in one sentence.

    Sizes of the images, their normalisation, the number of classes, the sizes of batches and sets, a last batch of one
    image. The command line adds this callback and asks it before any logger opens a file.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        check_inputs(trainer, pl_module, settings(trainer).datamodule, stage)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = image_data(trainer)
        if data is not None and isinstance(pl_module, LitClassifier):
            warn_of_normalisation(data, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_monitors(trainer, pl_module)


def check_inputs(
    trainer: pl.Trainer, model: pl.LightningModule, data: pl.LightningDataModule | None, verb: str
) -> None:
    """Check model against data for a verb.

    Raises:
        UserError: with the value, the reason and the fix.
    """
    check_limit(trainer, verb)
    check_callbacks(trainer, model)
    if data is None or verb == "predict":
        return
    world_size = trainer.num_devices * trainer.num_nodes
    if not isinstance(data, ImageData):
        if world_size > 1:
            raise UserError(
                f"{type(data).__name__} does not share its images out among {world_size} devices: give "
                "--trainer.devices 1, or derive it from datamodules.ImageData."
            )
        return
    data.setup(verb)
    check_sets(data, verb, world_size)
    if verb == "fit":
        check_frozen_layers(data, model)
        own_statistics = not synchronises(trainer, data, model, world_size)
        check_batches(data, model, world_size, own_statistics and not settings(trainer).fast_dev_run)
        check_validation_interval(trainer, data.count_train_batches(world_size))
    if isinstance(model, LitClassifier):
        check_model(data, model, verb)


def check_frozen_layers(data: ImageData, model: pl.LightningModule) -> None:
    """Refuse to begin a run with BatchNorms that are frozen as they were initialised: such a net hardly learns."""
    if data.run is None and isinstance(model, LitClassifier) and model.batch_norms_frozen and not model.has_weights:
        raise UserError(
            "freeze_batch_norm is true, and no weights are given whose BatchNorms it could keep: give --model.weights, "
            "or --model.freeze_batch_norm false."
        )


def check_sets(data: ImageData, verb: str, world_size: int) -> None:
    """Refuse a batch size or a set of images that cannot be shared out among the devices."""
    if data.batch_size % world_size:
        raise UserError(
            f"batch_size {data.batch_size} is for all devices together and cannot be divided among {world_size}: "
            f"choose {data.batch_size - data.batch_size % world_size or world_size} or another multiple of it."
        )
    sets = {"test": data.test_set} if verb == "test" else {"val": data.val_set}
    sets |= {"train": data.train_set} if verb == "fit" else {}
    if verb == "validate" and data.val_set is None:
        raise UserError(
            "This run holds no validation images back (val_size is 0): run test instead, or give --data.val_size."
        )
    for name, images in sets.items():
        if images is not None and len(images) < world_size:
            raise UserError(
                f"The {name} set has {pluralize(len(images), 'image')}, fewer than the {world_size} devices: "
                "each device needs one at least, so use fewer (--trainer.devices)."
            )


def check_batches(data: ImageData, model: nn.Module, world_size: int, own_statistics: bool) -> None:
    """Refuse an epoch without a full batch, and a last batch of one image that BatchNorm cannot train on.

    Args:
        data: set up for `fit`.
        model: with its BatchNorms, if any.
        world_size: number of devices.
        own_statistics: whether each device's BatchNorms see its own images alone, and an epoch's last batch is reached.
    """
    images, batch_size = len(data.train_set) // world_size, data.batch_size // world_size
    if data.count_train_batches(world_size) == 0:
        raise UserError(
            f"With {images} training images and batch_size {batch_size} per device there is no full batch, and "
            "drop_last leaves out all others: choose a smaller --data.batch_size, or --data.drop_last false."
        )
    one_left = not data.drop_last and (images % batch_size or batch_size) == 1
    if one_left and own_statistics and any(norm.training for norm in find_batch_norms(model)):
        raise UserError(
            f"With {pluralize(images, 'training image')} and batch_size {batch_size} per device the last batch "
            "holds one image, of which BatchNorm cannot take statistics: choose another --data.batch_size, or "
            "--data.drop_last true."
        )


def synchronises(trainer: pl.Trainer, data: ImageData, model: nn.Module, world_size: int) -> bool:
    """Whether BatchNorms are going to take their statistics over the batch of all devices."""
    images = data.batch_size // world_size
    ddps = [each for each in settings(trainer).callbacks if isinstance(each, DDP)]
    by_flag = world_size > 1 and any(isinstance(each, SyncBatchNorm) for each in settings(trainer).callbacks)
    return by_flag or any(each.synchronises(model, images, world_size) for each in ddps)


def check_model(data: ImageData, model: LitClassifier, verb: str) -> None:
    """Refuse another number of classes and sizes that the net cannot take."""
    if model.num_classes != data.num_classes:
        raise UserError(
            f"The model's num_classes is {model.num_classes} and the data have {data.num_classes} classes: give the "
            f"model num_classes={data.num_classes}."
        )
    # Crops of another size, where an augmentation makes some, are refused in the model's forward
    model.input_size.check(data.preprocessing["crop"], training=False)
    if verb == "fit":
        model.input_size.check(data.train_size, training=True)


def warn_of_normalisation(data: ImageData, model: LitClassifier) -> None:
    """Say so where images are normalised otherwise than for the pretrained weights."""
    expected = model.expected_normalisation
    given = {name: list(data.preprocessing[name]) for name in ("mean", "std")}
    if expected is None:
        return
    difference = max(abs(a - b) for name in given for a, b in zip(expected[name], given[name], strict=True))
    if difference > 0.02:
        rank_zero_warn(
            f"The pretrained weights were trained on images normalised with {expected}, these data use {given}: "
            "training will adapt, but a test without training would be wrong.",
            stacklevel=2,
        )
