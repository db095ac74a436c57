"""Folders that are named after splits and after classes: which are which, and the labels of the images in them."""

import contextlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from datamodules.folder_walk import (
    FolderWalk,
    announce,
    classify,
    is_image_file,
    leads_back,
    list_folder,
    scan_folder,
)
from errors import UserError, check_reachable

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# What other projects call them: never read as splits, but three of them are not taken for classes
ALIKE = SPLITS | {"val": (*SPLITS["val"], "dev", "eval"), "test": (*SPLITS["test"], "holdout", "tests")}
ADDRESS_LIKE = re.compile(r"(?:^|/)[A-Za-z]\w+:(?:\w|/|$)")  # also behind the working directory
ENDINGS = ("set", "data", "images", "split")  # training_set, test-images, ValData


@dataclass(frozen=True)
class SplitFolders:
    """Where the images of a data set lie.

    Args:
        train: folder of the training images' class folders.
        val, test: folders beside it, or None.
    """

    train: Path
    val: Path | None = None
    test: Path | None = None


def split_of(name: str) -> str | None:
    """train, val or test for a folder that is named after this split, in any case; None for any other folder."""
    word = name.casefold()
    for ending in ENDINGS:
        word = word.removesuffix(ending)
    word = word.rstrip("_- ")
    return next((split for split, words in SPLITS.items() if word in words), None)


def parse_split(name: str) -> tuple[str, str] | None:
    """The split that a name such as train_2012 or digits-dev seems to mean, and the letters around it; else None."""
    for split, words in ALIKE.items():
        if found := re.fullmatch(rf"(.*[^a-z]|)({'|'.join(words)})({'|'.join(ENDINGS)}|)([^a-z].*|)", name.casefold()):
            return split, re.sub(r"[\W\d_]", "", f"{found[1]}/{found[4]}")
    return None


def refuse_splits_as_classes(root: Path, names: Sequence[str]) -> None:
    """Refuse class folders that are named alike after all splits, as train1/, val1/ and test1/; or after two of them,
    with the same folders in them.
    """
    named: dict[str, dict[str, str]] = {}  # folder of each split, by the letters around the split's name
    for name in names:
        if parsed := parse_split(name):
            named.setdefault(parsed[1], {}).setdefault(parsed[0], name)
    for splits in named.values():
        first, *rest = splits.values()
        if len(splits) == len(SPLITS) or any(holds_classes(root / name, root / first) for name in rest):
            raise UserError(
                f"{root} has {quote(sorted(splits.values()))}, which look like splits and would be classes: rename "
                f"them to train/, val/ and test/, or move them into {root / 'train'} if they are classes."
            )


def find_splits(root: Path) -> SplitFolders:
    """The folders of the splits in a data set's folder, which has class folders in it if it has no splits.

    A folder that is named after a split is one, and no class; but train/ with images right in it, beside class folders
    and no val/ or test/, is a class.

    Raises:
        UserError: if there is no such folder, or it is not clear what is a split and what is a class.
    """
    check_reachable(root)
    if not os.path.isdir(root):
        if ADDRESS_LIKE.search(str(root)):
            raise UserError(
                f"There is no folder {root}. If it is an address, it should begin with s3://, gs://, r2:// or "
                "azure://, or be local:/FOLDER."
            )
        raise UserError(f"There is no folder {root}: name one with class folders in it with --data.root.")
    names, _ = list_folder(root)
    splits = {split: [name for name in names if split_of(name) == split] for split in SPLITS}
    others = [name for name in names if split_of(name) is None]
    for same in splits.values():
        if len(same) > 1:
            raise UserError(
                f"{root} has {' and '.join(same)}, which mean the same split: rename or remove one of them."
            )
    train, val, test = (root / same[0] if same else None for same in splits.values())
    if train is None:
        if val or test:
            refuse_without_train(root, [path.name for path in (val, test) if path], others)
        refuse_splits_as_classes(root, names)
        return SplitFolders(root)
    siblings = [name for name in others if holds_images(root / name)]
    if siblings and not (val or test):
        if list_folder(train)[0]:
            raise UserError(
                f"{root} has {train.name}/ with folders in it beside {quote(siblings)} with images, so it may be a "
                f"split or a class: rename it if it is a class, or else give --data.root {train}."
            )
        refuse_splits_as_classes(root, names)
        return SplitFolders(root)
    for folder in (val, test):
        if folder and folder.samefile(train):
            raise UserError(f"{folder} is {train} by a link: its images would be the ones trained on, remove the link.")
    if unread := [name for name in others if name in siblings or holds_classes(root / name, train)]:
        hint = " (splits are called train/, val/ and test/)" if any(map(parse_split, unread)) else ""
        announce(f"{quote(unread)} beside {train} are not read{hint}")
    return SplitFolders(train, val, test)


def holds_images(folder: Path) -> bool:
    """Whether an image lies right in a folder; no, if it cannot be listed."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return any(classify(entry) == "file" and is_image_file(entry.path) for entry in entries)
    return False


def holds_classes(folder: Path, train: Path) -> bool:
    """Whether images lie in a folder's folders that have the names of class folders; no, if it cannot be listed."""
    with contextlib.suppress(OSError), os.scandir(train) as entries:
        return any(classify(entry) == "folder" and holds_images(folder / entry.name) for entry in entries)
    return False


def refuse_without_train(root: Path, splits: Sequence[str], others: Sequence[str]) -> None:
    """Refuse folders named after val or test where none is named after train."""
    if others:
        raise UserError(
            f"{root} has {quote(splits)}, named after a split, beside {quote(others)}: move the class folders into "
            f"{root / 'train'}, those that are called like a split too."
        )
    raise UserError(f"{root} has {quote(splits)} and no training images: they belong in {root / 'train'}.")


def quote(names: Sequence[str]) -> str:
    """The first three names, for messages."""
    return ", ".join(f"{name}/" for name in names[:3]) + (", ..." if len(names) > 3 else "")


def find_classes(folder: Path) -> list[str]:
    """The names of the class folders in a folder, sorted: their indices are the labels.

    Raises:
        UserError: if there are fewer than two, or two that cannot be told apart.
    """
    classes, _ = list_folder(folder)
    if not classes:
        raise UserError(f"{folder} has no class folders: images belong in {folder / 'CLASS'}, a folder for each class.")
    if len(classes) == 1:
        inner = folder / classes[0]
        hint = f" (or name {inner} with --data.root)" if len(list_folder(inner)[0]) > 1 else ""
        raise UserError(f"{folder} has a single class folder, {classes[0]}: a classifier needs two or more{hint}.")
    refuse_unusable_links(folder)
    for first, second in find_twins(classes, lambda name: unicodedata.normalize("NFC", name)):
        raise UserError(f"{folder} has the class folders {first!a} and {second!a}, which look the same: merge them.")
    for first, second in find_twins(classes, str.casefold):
        announce(f"{first} and {second} are two classes, though only upper and lower case tell them apart")
    return classes


def refuse_unusable_links(folder: Path) -> None:
    """Refuse links among class folders that lead nowhere, or to a folder above them."""
    for entry in scan_folder(folder):
        if entry.is_symlink() and not os.path.splitext(entry.name)[1]:
            if not os.path.exists(entry.path):
                raise UserError(f"{entry.path} is a link to what is not there: repair or remove it.")
            if leads_back(entry.path):
                raise UserError(f"{entry.path} is a link to a folder that it lies in: remove it.")


def find_twins(names: Sequence[str], key: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Pairs of names that a key makes equal."""
    first: dict[str, str] = {}
    for name in names:
        if first.setdefault(key(name), name) != name:
            yield first[key(name)], name


def find_images(folder: Path, class_to_idx: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """List the images in class folders, at any depth, and print what was passed over.

    Returns:
        Their names relative to `folder`, [N] bytes, and their labels, [N] int64.

    Raises:
        UserError: for a class folder without images, or of a class that `class_to_idx` lacks, or with splits in it.
    """
    classes, stray = list_folder(folder)
    known = {unicodedata.normalize("NFC", name): label for name, label in class_to_idx.items()}
    labels = [known.get(unicodedata.normalize("NFC", name)) for name in classes]
    if None in labels:
        refuse_unknown_class(folder, classes[labels.index(None)], class_to_idx)
    walk = FolderWalk()
    for name in stray:
        walk.pass_over("images outside of class folders", os.path.join(folder, name))
    files = walk.list_images(*(os.path.join(folder, name) for name in classes))
    walk.announce(folder)
    refuse_splits_in_classes(folder, walk.entered.values())
    if empty := [name for name, images in zip(classes, files, strict=True) if not images]:
        some = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
        raise UserError(f"{folder} has class folders without an image in them: {some}. Fill or remove them.")
    start = len(os.path.join(folder, ""))  # os.path.relpath would do, in 9 s for ImageNet
    names = [os.fsencode(file[start:]) for images in files for file in images]
    counts = [len(images) for images in files]
    return np.array(names), np.repeat(np.array(labels, dtype=np.int64), counts)


def refuse_unknown_class(folder: Path, name: str, class_to_idx: Mapping[str, int]) -> NoReturn:
    """Refuse a class without training images; one that differs in upper and lower case is named."""
    similar = [known for known in class_to_idx if known.casefold() == name.casefold()]
    hint = f"rename it to {similar[0]}" if similar else "remove it, or add training images"
    raise UserError(f"{folder} has a class {name} and the training images do not: {hint}.")


def refuse_splits_in_classes(folder: Path, entered: Iterable[str]) -> None:
    """Refuse a class folder with folders in it that are named after several splits."""
    found: dict[str, dict[str, str]] = {}  # folder of each split, by class folder
    for path in entered:
        above, name = os.path.split(path)
        if (split := split_of(name)) and os.path.dirname(above) == str(folder):
            found.setdefault(above, {})[split] = name
    for above, splits in found.items():
        if len(splits) > 1:
            raise UserError(
                f"{above} has {quote(list(splits.values()))} in it, so its test images would be trained on: splits lie "
                f"above the classes, as {folder / 'train' / os.path.basename(above)}."
            )
