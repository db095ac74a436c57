"""The data of a checkpoint's run, found again by a command that starts from the checkpoint."""

import unicodedata
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from checkpointing.record import CheckpointRecord, as_recorded
from checkpointing.split import Split
from datamodules.loading import ImageSet
from errors import UserError

CLASSES_NAMED = 5  # in an error
# Arguments of data modules that change neither which images are evaluated nor their pixels
LOADING_ARGUMENTS = {"batch_size", "num_workers", "drop_last", "protocol", "on_bad_image"}
LOADING_ARGUMENTS |= {"augmentation", "flip", "padding", "shift", "train_images", "bootstrap"}  # of training images
# Those that change how an image becomes an input, and not which images there are
PREPROCESSING_ARGUMENTS = {
    "size",
    "crop",
    "eval_size",
    "resize",
    "interpolation",
    "mean",
    "std",
    "hflip_preserves_label",
}


@dataclass(frozen=True)
class RunData:
    """What a checkpoint and its run directory say of the data.

    Args:
        record: of the checkpoint.
        split: which files the run trained on and held back; None where that is not known, or images are not files.
        same_source: whether the command's config names the same data as the run's.
        selected_on_validation: whether the checkpoint was chosen by its error on the validation images.
        tested_hashes: `data_hash` of the results on the run's own images that lie beside the checkpoint.
    """

    record: CheckpointRecord
    split: Split | None
    same_source: bool
    selected_on_validation: bool
    tested_hashes: Set[str] = frozenset()


def match_classes(ours: Sequence[str], theirs: Sequence[str]) -> np.ndarray | None:
    """Match the classes of the data with those of a checkpoint, by name.

    Args:
        ours: names of the data's classes, in the order of the labels.
        theirs: names of the checkpoint's classes.

    Returns:
        [K] the checkpoint's label for each of the data's labels; None if they are the same.

    Raises:
        UserError: if a name is missing on either side, or cannot be told from another one.
    """
    ours, theirs = ([unicodedata.normalize("NFC", name) for name in names] for names in (ours, theirs))
    if ours == theirs:
        return None
    missing = [name for name in theirs if name not in set(ours)]
    unknown = [name for name in ours if name not in set(theirs)]
    if missing or unknown:
        parts = [f"the data have no class {name_some(missing)}"] if missing else []
        parts += [f"the checkpoint knows no class {name_some(unknown)}"] if unknown else []
        raise UserError(
            f"The classes of the data are not those that the checkpoint was trained on: {', and '.join(parts)}. Name "
            "the folders as they were (--data.root), or start a new run from the weights (--model.weights)."
        )
    if len(set(theirs)) < len(theirs) or len(ours) != len(theirs):
        raise UserError(
            "The classes of the data are in another order than those of the checkpoint, and two of them have one "
            "name: they cannot be matched, so give the data that the checkpoint was trained on."
        )
    return np.array([theirs.index(name) for name in ours])


def name_some(names: Sequence[str]) -> str:
    """Names for a sentence; of many the first ones."""
    return ", ".join(names[:CLASSES_NAMED]) + (f" and {len(names) - CLASSES_NAMED} more" * (len(names) > CLASSES_NAMED))


def number_classes(sets: Sequence[ImageSet], label_map: np.ndarray) -> None:
    """Number the classes of image sets as the run does, of each set once.

    Args:
        sets: whose labels are changed.
        label_map: [K] the run's label for each of theirs.
    """
    for images in sets:
        if not images.numbered_as_run:
            numbers = torch.from_numpy(label_map) if isinstance(images.labels, torch.Tensor) else label_map
            images.labels, images.numbered_as_run = numbers[images.labels], True


def compare_arguments(record: CheckpointRecord, verb: str, **given: float | None) -> list[str]:
    """Sentences on arguments of the split that have no effect, since the run's own is followed.

    Args:
        record: of the run.
        verb: a run that is resumed with another argument is refused.
        **given: the arguments of this command, by name.

    Raises:
        UserError: see `verb`.
    """
    before = record.config["data"].get("init_args", {})
    notes = []
    for name, value in given.items():
        if (old := before.get(name)) == value:
            continue
        if verb == "fit":
            raise UserError(
                f"{name} is {value} here, and this run was begun with {old}: what it holds back is settled, so leave "
                "it out, or start a new run from the weights with --model.weights."
            )
        notes.append(f"{name} {value} has no effect: the run has held back its images already")
    return notes


def names_same_data(record: CheckpointRecord, config: dict[str, Any]) -> bool:
    """Whether the config of a data module names the same data as that of a checkpoint's run.

    Args:
        record: of the checkpoint.
        config: `class_path` and `init_args` of a command.
    """
    before, now = (each.get("init_args", {}) for each in (record.config["data"], config))
    common = before.keys() & now.keys() - LOADING_ARGUMENTS - PREPROCESSING_ARGUMENTS
    same = all(as_recorded(before[name]) == as_recorded(now[name]) for name in common)
    return same and record.config["data"]["class_path"] == config["class_path"]
