"""Labels of ImageNet's flat val/ folder, from Kaggle's list or from the devkit; words for WordNet ids."""

import csv
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from errors import UserError

WORDNET_ID = re.compile(r"n\d{8}")
Reader = Callable[[Path], dict[str, str]]


def read_flat_labels(folder: Path, names: list[str], class_to_idx: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Names and labels of the images of a flat val/, whose labels lie in a file of their own.

    Kaggle's LOC_val_solution.csv, or the devkit's ground truth and meta.mat, are looked for in the folder, beside it
    and up to three folders above.

    Raises:
        UserError: if there are no images or neither file, or an image has no label or a class without training images.
    """
    if not names:
        raise UserError(f"{folder} holds neither class folders nor images.")
    path, read = find_label_file(folder)
    try:
        wordnet_ids = read(path)
    except Exception as error:  # csv, scipy and indexing have an error each for files of another content
        raise UserError(f"{path} does not say what the images show ({error!r}): fetch it once more.") from error
    labels = []
    for name in names:
        wordnet_id = wordnet_ids.get(Path(name).stem)
        if wordnet_id is None or wordnet_id not in class_to_idx:
            reason = "does not name it" if wordnet_id is None else f"says {wordnet_id}, a class without training images"
            raise UserError(f"{folder / name} has no label: {path} {reason}.")
        labels.append(class_to_idx[wordnet_id])
    return np.array([os.fsencode(name) for name in names]), np.array(labels, dtype=np.int64)


def find_label_file(folder: Path) -> tuple[Path, Reader]:
    """The nearest file with the labels of a flat val/, and the function that reads it."""
    for parent in [folder.absolute(), *folder.absolute().parents[:4]]:
        if os.path.isfile(path := parent / "LOC_val_solution.csv"):
            return path, read_kaggle
        for data in (parent / "ILSVRC2012_devkit_t12" / "data", parent / "data", parent):
            path = data / "ILSVRC2012_validation_ground_truth.txt"
            if os.path.isfile(path) and os.path.isfile(path.with_name("meta.mat")):
                return path, read_devkit
    raise UserError(
        f"The images in {folder} lie in no class folders, and no file has their labels: put LOC_val_solution.csv "
        f"(Kaggle) or ILSVRC2012_devkit_t12 (image-net.org) into {folder.parent}."
    )


def read_kaggle(path: Path) -> dict[str, str]:
    """WordNet ids by image names without suffix, from LOC_val_solution.csv."""
    with path.open(newline="") as file:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}


def read_devkit(path: Path) -> dict[str, str]:
    """WordNet ids by image names without suffix, from the devkit's ground truth: a line for each image.

    The lines hold numbers of the devkit's own, which do not follow the order of WordNet ids: meta.mat maps them.
    """
    from scipy.io import loadmat

    rows = loadmat(path.with_name("meta.mat"), squeeze_me=True, struct_as_record=True)["synsets"]
    ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    return {f"ILSVRC2012_val_{k:08}": ids[int(line)] for k, line in enumerate(path.read_text().split(), start=1)}


def describe_classes(classes: list[str]) -> list[str]:
    """Words for WordNet ids ("tench, Tinca tinca" for n01440764); other class names stay unchanged."""
    if not all(WORDNET_ID.fullmatch(name) for name in classes):
        return classes
    from timm.data import ImageNetInfo  # two seconds, so only where it is needed

    info = ImageNetInfo("imagenet-22k")
    known = set(info.label_names())
    return [info.label_name_to_description(name, detailed=False) if name in known else name for name in classes]
