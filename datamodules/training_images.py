"""What a run trains on where that is not each of the training images once: some of them, or a bootstrap sample."""

from typing import Any

import numpy as np

from checkpointing.record import CheckpointRecord
from datamodules.folder_walk import announce
from datamodules.image_files import ImageFiles
from datamodules.loading import ImageSet
from datamodules.splits import stratified_split
from errors import UserError, pluralize

SEED = 0  # not the run's, so that runs with other seeds differ in their draws alone


def choose_training_images(images: ImageSet, count: int) -> tuple[ImageSet, list[str]]:
    """Choose training images, of each class in proportion to its share, and announce their number.

    Args:
        images: all training images.
        count: how many to choose.

    Returns:
        The chosen images, in the order of all; and the paths of the others, where images are files.

    Raises:
        UserError: if there are fewer images, or more classes.
    """
    labels = np.asarray(images.labels)
    classes = len(np.unique(labels))
    if count > len(labels):
        raise UserError(
            f"train_images is {count:,}, and there are {pluralize(len(labels), 'training image')}: give at most as "
            "many, or leave it out to train on all of them."
        )
    if count < classes:
        raise UserError(
            f"train_images is {count:,}, and the training images have {classes:,} classes: give at least one image of "
            "each."
        )
    chosen, others = stratified_split(labels, len(labels) - count, SEED, images.file_names)
    announce(f"training on {count:,} of {pluralize(len(labels), 'training image')}, of each class in proportion")
    rest = images.subset(others)
    return images.subset(chosen), rest.portable_paths() if isinstance(rest, ImageFiles) else []


def refuse_other_training_images(record: CheckpointRecord, train_images: int | None, bootstrap: bool) -> None:
    """Raise UserError for a run that is resumed on other training images; the arguments are those of `ImageData`."""
    before: dict[str, Any] = record.config["data"].get("init_args", {})
    for name, now, default in (("train_images", train_images, None), ("bootstrap", bootstrap, False)):
        if (old := before.get(name, default)) != now:
            raise UserError(
                f"{name} is {now} here, and this run was begun with {old}: leave it out, or start a new run from the "
                "weights with --model.weights."
            )
