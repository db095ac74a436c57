"""Images that a run has trained on, found among those that it is evaluated on."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from checkpointing.split import Split
from datamodules.folder_walk import announce
from datamodules.image_files import ImageFiles, portable_path
from errors import UserError, pluralize, printable


def as_mask(indices: Collection[int], length: int) -> np.ndarray:
    """[length] bool: True at the indices."""
    mask = np.zeros(length, dtype=bool)
    mask[list(indices)] = True
    return mask


def find_moved(
    images: ImageFiles, split: Split, own_paths: Collection[str], is_training_image: Callable[[str], bool]
) -> np.ndarray:
    """[N] bool: whether an image of val/ or test/ seems, by its path, to have been moved there after the training.

    Args:
        images: of the folder.
        split: of the run.
        own_paths: paths that the run had in this folder.
        is_training_image: whether the training images have one of a name, relative to their folder, which has not been
            moved then.
    """
    suspects = set(split.trained_on) - set(own_paths)
    names = enumerate(images.file_names)
    moved = [k for k, name in names if portable_path(name) in suspects and not is_training_image(name)]
    return as_mask(moved, len(images))


def find_sample(images: ImageFiles, split: Split) -> np.ndarray:
    """[N] bool: whether an image has the content of a training image in the run's sample, under any name."""
    known = {
        content for content in split.sample.values() if content and not content.startswith("0-")
    }  # empty ones are none
    candidates = of_same_size(images, range(len(images)), known)
    return as_mask([index for index in candidates if images.content(index) in known], len(images))


def of_same_size(images: ImageFiles, candidates: Iterable[int], contents: Iterable[str]) -> Iterator[int]:
    """The images that have the size of a file with one of some contents: the others need not be read."""
    sizes = {content.partition("-")[0] for content in contents}
    return (index for index in candidates if str(images.size(index)) in sizes)


def describe_sample(found: np.ndarray, images: ImageFiles, split: Split) -> str:
    """A clause on the images that the run has trained on, as `find_sample` has found them."""
    count, total = int(found.sum()), len(split.trained_on)
    example = printable(images.file_names[int(np.argmax(found))])
    clause = f"the run trained on {count:,} of the {pluralize(len(images), 'image')}, such as {example}"
    if len(split.sample) >= total:
        return clause
    return f"{clause}, as far as a sample of {len(split.sample):,} of its {total:,} training images tells"


def leave_out_sample(images: ImageFiles, split: Split) -> ImageFiles:
    """Images that are not the run's own, without those that it has trained on, which are known by their contents.

    Raises:
        UserError: if none are left, or if the contents of a sample alone are known, so that more may be among them.
    """
    found = find_sample(images, split)
    if not found.any():
        return images
    folder, clause = printable(os.fsdecode(images.folder)), describe_sample(found, images, split)
    if found.all() or len(split.sample) < len(split.trained_on):
        raise UserError(f"{folder} cannot be evaluated: {clause}. Remove what was trained on, or name other images.")
    announce(f"{pluralize(int(found.sum()), 'image')} of {folder} left out: {clause}")
    return images.subset(np.flatnonzero(~found))


def leave_out_moved(images: ImageFiles, moved: np.ndarray, folder: Path, train_folder: Path) -> ImageFiles:
    """Images of a folder without those that were moved there from that of the training images.

    Raises:
        UserError: if none are left.
    """
    reason = f"the run trained on images of these names, which are no longer in {train_folder}"
    if moved.all():
        raise UserError(
            f"None of the {pluralize(len(images), 'image')} of {folder} can be evaluated: {reason}. Move them "
            "back, or rename them if they are other images."
        )
    announce(f"{pluralize(int(moved.sum()), 'image')} of {folder} left out: {reason}")
    return images.subset(np.flatnonzero(~moved))
