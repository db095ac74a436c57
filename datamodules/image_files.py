"""Trees of image files: what lies in them, what it shows, and what cannot be read."""

import csv
import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.decode import SUFFIXES, open_picture
from datamodules.loading import ImageSet, RawBatch, UnreadableFile
from datamodules.samplers import SampleSpec
from datamodules.tensor_images import stratified_split
from errors import UserError, pluralize

WORDNET_ID = re.compile(r"n\d{8}")
Transform = Callable[..., Tensor | list[Tensor]]
SECONDS_TO_LOOK = 10  # for more files that cannot be read, once one has turned up


class ImageFiles(ImageSet):
    """Image files and their labels, read a batch at a time; each image is what `transform` makes of its file.

    Names are kept as one array of bytes: a list of a million strings would be copied, page by page, into every loader
    process, for reading a Python object writes its reference count.

    Args:
        folder: what the names are relative to.
        names: [N] file names as bytes.
        labels: [N] int64.
        transform: from a picture to uint8 [3, H, W], in training with a size as second argument; or to its views, see
            `datamodules.views`.
    """

    def __init__(self, folder: Path, names: np.ndarray, labels: np.ndarray, transform: Transform) -> None:
        self.folder, self.names, self.labels, self.transform = os.fsencode(folder), names, labels, transform

    def __getitems__(self, items: Sequence[SampleSpec] | Sequence[int]) -> RawBatch:
        state = torch.get_rng_state()  # with no loader processes the generator is the training's
        images, labels, unreadable = [], [], []
        for item in items:
            index = item.index if isinstance(item, SampleSpec) else item
            try:
                image = open_picture(self.path(index))
                if isinstance(item, SampleSpec):
                    torch.default_generator.manual_seed(item.seed)
                    images.append(self.transform(image, item.size))
                else:
                    images.append(self.transform(image))
                labels.append(self.labels[index])
            except UserError as error:
                unreadable.append(UnreadableFile(index, os.fsdecode(self.path(index)), str(error)))
        torch.set_rng_state(state)
        return RawBatch(batch(images), torch.tensor(np.array(labels, dtype=np.int64)), unreadable)

    @property
    def file_names(self) -> list[str]:  # type: ignore[override]  # decoded on demand
        """The names, relative to the folder."""
        return [os.fsdecode(name) for name in self.names]

    def path(self, index: int) -> bytes:
        """The file of an image."""
        return os.path.join(self.folder, self.names[index])

    def fingerprint(self) -> str:
        """A hash of names and labels."""
        content = hashlib.sha256(b"\n".join(self.names.tolist()))
        content.update(self.labels.tobytes())
        return content.hexdigest()

    def subset(self, places: np.ndarray) -> "ImageFiles":
        """The images at these places, in this order."""
        return ImageFiles(Path(os.fsdecode(self.folder)), self.names[places], self.labels[places], self.transform)

    def with_transform(self, transform: Transform) -> "ImageFiles":
        """The same images with another transform."""
        return ImageFiles(Path(os.fsdecode(self.folder)), self.names, self.labels, transform)


def batch(images: list[Any]) -> Tensor | list[Tensor]:
    """Images [3, H, W] as one tensor [B, 3, H, W]; views of images, as many tensors [B, V, 3, H, W] as there are sizes.

    Of no image, an empty tensor.
    """
    if images and isinstance(images[0], list):
        return [torch.stack(views) for views in zip(*images, strict=True)]
    # Colours side by side, as decoders write them and channels_last wants them
    pixels = [image.permute(1, 2, 0) for image in images] or [torch.empty(1, 1, 3, dtype=torch.uint8)]
    return torch.stack(pixels)[: len(images)].permute(0, 3, 1, 2)


def split(images: ImageFiles, held_back: float, seed: int) -> tuple[ImageFiles, ImageFiles]:
    """Hold back some images, in proportion to the classes: a number of them, or below 1 a share."""
    count = round(held_back * len(images)) if held_back < 1 else int(held_back)
    if not 0 <= count < len(images) or (held_back > 0 and count == 0):
        raise UserError(
            f"val_size {held_back} of {pluralize(len(images), 'training image')} is {count:,}: hold back at least one, "
            "and leave some."
        )
    rest, chosen = stratified_split(images.labels, count, seed)
    return images.subset(rest), images.subset(chosen)


def unreadable(sets: list[ImageFiles], transform: Transform) -> tuple[list[tuple[str, str]], bool]:
    """The first ten files that cannot be read, as far as they are found in time; and whether all files were read."""
    found: list[tuple[str, str]] = []
    end = time.monotonic() + SECONDS_TO_LOOK
    for images in sets:
        for place in range(len(images)):
            try:
                transform(open_picture(images.path(place)))
            except UserError as error:
                found.append((os.fsdecode(images.path(place)), str(error)))
            if len(found) == 10 or time.monotonic() > end:
                return found, False
    return found, True


def scan(folder: Path) -> list[os.DirEntry]:
    """What lies in a folder, hidden files left out, in the order of the names."""
    try:
        return sorted((entry for entry in os.scandir(folder) if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be listed ({error.strerror}): name a folder that may be read with --data.root."
        ) from error


def is_image(name: str) -> bool:
    """Whether a file name is that of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and name[0] != "."


def class_folders(folder: Path) -> list[str]:
    """The names of the class folders in a folder, sorted: their places are the labels.

    Raises:
        ValueError, FileNotFoundError: if there are fewer than two.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: name one with class folders in it with --data.root.")
    classes = [entry.name for entry in scan(folder) if entry.is_dir()]
    if not classes:
        raise UserError(f"{folder} has no class folders: images belong in {folder / 'CLASS'}, a folder for each class.")
    if len(classes) == 1:
        where = "" if classes[0] not in ("val", "test") else f" (its training images belong in {folder / 'train'})"
        raise UserError(f"{folder} has a single class folder, {classes[0]}{where}: a classifier wants two or more.")
    return classes


def tree(folder: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The images in class folders at any depth: their names from `folder` on, and their labels.

    Raises:
        ValueError: for class folders without images, or of classes that are not among these.
    """
    names: list[bytes] = []
    labels: list[int] = []
    numbers, empty = {name: number for number, name in enumerate(classes)}, []
    start = len(os.path.join(folder, ""))  # os.path.relpath would do, in 9 s for ImageNet
    for entry in scan(folder):
        if not entry.is_dir():
            continue
        if entry.name not in numbers:
            raise UserError(
                f"{folder} has a class {entry.name} and the training images do not: remove it, or add training images."
            )
        below = sorted(
            os.path.join(path[start:], name)
            for path, _, files in os.walk(entry.path, onerror=refuse, followlinks=True)
            for name in files
            if is_image(name)
        )
        empty += [] if below else [entry.name]
        names += [os.fsencode(name) for name in below]
        labels += [numbers[entry.name]] * len(below)
    if empty:
        some = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
        raise UserError(f"{folder} has class folders without an image in them: {some}. Fill or remove them.")
    return np.array(names), np.array(labels, dtype=np.int64)


def refuse(error: OSError) -> None:
    """Raise what os.walk would pass over."""
    raise UserError(f"{error.filename} cannot be listed ({error.strerror}): its images would be missing.")


def labelled(folder: Path, names: list[str], classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The names and labels of ImageNet's flat val/, whose labels lie in a file of their own.

    Kaggle's LOC_val_solution.csv or the devkit's ground truth and meta.mat are looked for in the folder, beside it and
    up to three folders above.

    Raises:
        FileNotFoundError: if neither is there.
        ValueError: if there are no images, or one has no label or another class than the training images.
    """
    if not names:
        raise UserError(f"{folder} holds neither class folders nor images.")
    places = [folder.absolute(), *folder.absolute().parents[:4]]
    for place in places:
        if (path := place / "LOC_val_solution.csv").is_file():
            truth = read_truth(path, kaggle_truth)
            break
        for data in (place / "ILSVRC2012_devkit_t12" / "data", place / "data", place):
            path = data / "ILSVRC2012_validation_ground_truth.txt"
            if path.is_file() and (data / "meta.mat").is_file():
                truth = read_truth(path, devkit_truth)
                break
        else:
            continue
        break
    else:
        raise UserError(
            f"The images in {folder} lie in no class folders, and what they show is said nowhere: put "
            f"LOC_val_solution.csv (Kaggle) or ILSVRC2012_devkit_t12 (image-net.org) into {folder.parent}."
        )
    numbers, labels = {name: number for number, name in enumerate(classes)}, []
    for name in names:
        wordnet_id = truth.get(Path(name).stem)
        if wordnet_id not in numbers:
            reason = "does not name it" if wordnet_id is None else f"says {wordnet_id}, a class without training images"
            raise UserError(f"{folder / name} has no label: {path} {reason}.")
        labels.append(numbers[wordnet_id])
    return np.array([os.fsencode(name) for name in names]), np.array(labels, dtype=np.int64)


def read_truth(path: Path, read: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """WordNet ids by the names of images, without suffix. Raises ValueError if the file holds anything else."""
    try:
        return read(path)
    except Exception as error:  # csv, scipy and indexing have an error each for files that are not what they should be
        raise UserError(f"{path} does not say what the images show ({error!r}): fetch it once more.") from error


def kaggle_truth(path: Path) -> dict[str, str]:
    """Of LOC_val_solution.csv."""
    with path.open(newline="") as file:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}


def devkit_truth(path: Path) -> dict[str, str]:
    """Of the devkit: a line for each image, in its own numbers, which do not follow the order of WordNet ids."""
    from scipy.io import loadmat

    rows = loadmat(path.parent / "meta.mat", squeeze_me=True, struct_as_record=True)["synsets"]
    ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    return {f"ILSVRC2012_val_{k:08}": ids[int(line)] for k, line in enumerate(path.read_text().split(), start=1)}


def readable(classes: list[str]) -> list[str]:
    """What WordNet ids stand for ("n01440764" is "tench, Tinca tinca"); other names as they are."""
    if not all(WORDNET_ID.fullmatch(name) for name in classes):
        return classes
    from timm.data import ImageNetInfo  # two seconds, so only where it is needed

    info = ImageNetInfo("imagenet-22k")
    known = set(info.label_names())
    return [info.label_name_to_description(name, detailed=False) if name in known else name for name in classes]
