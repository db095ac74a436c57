"""The files of a checkpoint's run, found again in folders that may have changed since."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from checkpointing.split import Split
from datamodules.decode import SUFFIXES
from datamodules.image_files import ImageFiles, file_size, portable_path
from errors import UserError, pluralize


@dataclass(frozen=True)
class FoundFiles:
    """What became of a run's files in the folder of its training images.

    Args:
        held_back: [N] bool: whether the run has held an image back, also under another name or in another class.
        new: [N] bool: whether an image is in neither list of the run.
        missing: how many of the images that the run held back are gone.
        other_folder: whether none of the run's images is there.
    """

    held_back: np.ndarray
    new: np.ndarray
    missing: int
    other_folder: bool


def find_run_files(images: ImageFiles, split: Split) -> FoundFiles:
    """Find a run's files in the folder of its training images, from which it has held some back.

    A file that was held back and is gone may have been renamed, converted or moved to another class: an unlisted file
    of the same path up to its suffix, or of the same size in bytes, is taken for it, and stays held back.
    """
    paths = [portable_path(name) for name in images.file_names]
    trained_on, there = set(split.trained_on), set(paths)
    held_back = np.array([path in split.held_back for path in paths], dtype=bool)
    new = np.array([path not in trained_on for path in paths], dtype=bool) & ~held_back
    gone = {path: size for path, size in split.held_back.items() if path not in there}
    stems, sizes = {without_suffix(path) for path in gone}, Counter(gone.values())
    for index in np.flatnonzero(new).tolist() if gone else ():
        size = file_size(images.path(index))
        if without_suffix(paths[index]) in stems or sizes[size] > 0:
            sizes[size] -= 1
            held_back[index], new[index] = True, False
    known = {without_suffix(path) for path in (*split.trained_on, *split.held_back)} if new.all() else set()
    other_folder = bool(new.all()) and not any(without_suffix(path) in known for path in paths)
    return FoundFiles(held_back, new, max(0, len(split.held_back) - int(held_back.sum())), other_folder)


def without_suffix(path: str) -> str:
    """A path without the suffixes of image formats: a resized copy of a.png is a.png.jpg."""
    stem, suffix = os.path.splitext(path)
    return without_suffix(stem) if suffix.lower() in SUFFIXES else path


def find_trained_on(images: ImageFiles, split: Split, own_paths: Sequence[str], train_folder: Path) -> np.ndarray:
    """[N] bool: whether an image of val/ or test/ was moved there after the run had trained on it.

    Args:
        images: of the folder.
        split: of the run.
        own_paths: paths that the run had in this folder.
        train_folder: files that are still there have not been moved.
    """
    suspects = set(split.trained_on) - set(own_paths)
    names = enumerate(images.file_names)
    moved = [k for k, name in names if portable_path(name) in suspects and not os.path.exists(train_folder / name)]
    return np.isin(np.arange(len(images)), moved)


def find_validated(images: ImageFiles, split: Split, val_folder: Path) -> np.ndarray:
    """[N] bool: whether a training image was moved there from val/, judged by path or size in bytes."""
    gone = {path: size for path, size in split.held_back.items() if not os.path.exists(val_folder / path)}
    trained_on, sizes = set(split.trained_on), Counter(gone.values())
    moved = np.zeros(len(images), dtype=bool)
    for index, name in enumerate(images.file_names) if gone else ():
        path = portable_path(name)
        if path in trained_on and path not in gone:
            continue
        size = file_size(images.path(index))
        if sizes[size] > 0 or (path in gone and path not in trained_on):
            sizes[size] -= 1
            moved[index] = True
    return moved


@dataclass(frozen=True)
class Division:
    """The images of a run's training folder, divided as the run did.

    Args:
        train: to train on.
        held_back: to validate on; None if the run has held none of them back.
        notes: sentences on what is different.
        other_folder: whether none of the run's images is there, and all are tested.
    """

    train: ImageFiles
    held_back: ImageFiles | None
    notes: list[str]
    other_folder: bool = False


def divide_as_run(images: ImageFiles, split: Split, val_folder: Path | None, verb: str) -> Division:
    """Divide the training folder of a run as the run did.

    What the run held back stays held back. New images are trained on by `fit`, and left out by `test` and `validate`.
    A folder in which none of the run's images is there is another one: all of it is tested.

    Raises:
        UserError: if none of the images that the run has held back is there.
    """
    if split.own_folder:
        assert val_folder is not None
        moved = find_validated(images, split, val_folder)
        count = pluralize(int(moved.sum()), "image")
        notes = [f"{count} not trained on: the run validated on them, in {val_folder}"] if moved.any() else []
        return Division(images.subset(np.flatnonzero(~moved)), None, notes)
    found = find_run_files(images, split)
    if found.other_folder and verb == "test":
        return Division(images, images, ["none of the images is one of the run's, so all of them are tested"], True)
    if split.held_back and not found.held_back.any():
        raise UserError(
            f"None of the {pluralize(len(split.held_back), 'image')} that this run held back is in "
            f"{os.fsdecode(images.folder)}: name the run's folder with --data.root, put images that are to be tested "
            "into a folder test/ in it, or start a new run from the weights with --model.weights."
        )
    notes = []
    if found.missing:
        total = pluralize(len(split.held_back), "image")
        notes.append(f"of the {total} that the run held back, {found.missing:,} cannot be found")
    if found.new.any():
        fate = "trained on from now on" if verb == "fit" else "left out"
        notes.append(f"{pluralize(int(found.new.sum()), 'new image')}, in neither list of the run: {fate}")
    held_back = images.subset(np.flatnonzero(found.held_back)) if found.held_back.any() else None
    return Division(images.subset(np.flatnonzero(~found.held_back)), held_back, notes)
