"""Splits of labelled images: stratified, exact in size, a function of the seed."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from datamodules.image_files import portable_path
from datamodules.loading import ImageSet
from errors import UserError, check_at_least, pluralize

AnySet = TypeVar("AnySet", bound=ImageSet)


def split_validation(images: AnySet, val_size: float, seed: int, by_name: bool = True) -> tuple[AnySet, AnySet | None]:
    """Hold back a stratified part of the training images for validation.

    Args:
        images: N training images.
        val_size: number of images to hold back, or below 1 their share of all.
        seed: see `stratified_split`.
        by_name: of image files, hold back the same ones when others are added to their folder or removed from it.

    Returns:
        The images to train on, and those held back; None for these if `val_size` is 0.

    Raises:
        UserError: if that holds back nothing, or everything.
    """
    count = round(val_size * len(images)) if val_size < 1 else int(val_size)
    if not 0 <= count < len(images) or (val_size > 0 and count == 0):
        raise UserError(
            f"val_size {val_size} of {pluralize(len(images), 'training image')} is {count:,}: hold back at least one, "
            "and leave some."
        )
    names = images.file_names if by_name and count else ()
    rest, held_back = stratified_split(np.asarray(images.labels), count, seed, names)
    return images.subset(rest), images.subset(held_back) if count else None


def stratified_split(
    labels: np.ndarray, size: int, seed: int, file_names: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Split the indices 0..N-1 in two, each class in proportion to its share.

    Images without files are drawn at random. Of files, the second part of a class are those with the lowest hash of
    seed and name: a file that is added or removed changes the part of another one only where it changes their number.

    Args:
        labels: [N] class of each image.
        size: how many images the second part gets. Shares that are no whole numbers are rounded so that the sizes
            are exact (largest remainders first), and so that the first part keeps an image of each class as long as
            other classes have more than one left there.
        seed: the same seed gives the same split on every machine.
        file_names: [N] relative paths of the images; empty where images are not files.

    Returns:
        The indices of the first part (N - size) and of the second (size), both ascending.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * size / len(labels)
    quota = np.floor(shares).astype(int)
    quota[np.argsort(quota - shares, kind="stable")[: size - quota.sum()]] += 1
    for emptied in np.flatnonzero(quota == counts):
        rich = np.flatnonzero(counts - quota > 1)
        if len(rich):
            quota[emptied] -= 1
            quota[rich[np.argmax((shares - quota)[rich])]] += 1
    if file_names:
        order = order_by_hash(file_names, seed)
        shuffled = [order[labels[order] == c] for c in classes]
    else:
        check_at_least(0, split_seed=seed)  # numpy takes no other
        rng = np.random.default_rng(seed)
        shuffled = [rng.permutation(np.flatnonzero(labels == c)) for c in classes]
    second = np.sort(np.concatenate([indices[:n] for indices, n in zip(shuffled, quota, strict=True)]))
    return np.setdiff1d(np.arange(len(labels)), second), second


def order_by_hash(file_names: Sequence[str], seed: int) -> np.ndarray:
    """[N] indices of files, in the order of the SHA-256 of "<seed>/<portable path>"."""
    keys = (f"{seed}/{portable_path(name)}".encode(errors="surrogateescape") for name in file_names)
    numbers = [int.from_bytes(hashlib.sha256(key).digest()[:8], "big") for key in keys]
    return np.argsort(np.array(numbers, dtype=np.uint64), kind="stable")
