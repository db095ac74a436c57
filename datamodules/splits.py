"""Splits of labelled images: stratified, exact in size, a function of the seed."""

from typing import TypeVar

import numpy as np

from datamodules.loading import ImageSet
from errors import UserError, pluralize

AnySet = TypeVar("AnySet", bound=ImageSet)


def split_validation(images: AnySet, val_size: float, seed: int) -> tuple[AnySet, AnySet | None]:
    """Hold back a stratified part of the training images for validation.

    Args:
        images: N training images.
        val_size: number of images to hold back, or below 1 their share of all.
        seed: see `stratified_split`.

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
    rest, held_back = stratified_split(np.asarray(images.labels), count, seed)
    return images.subset(rest), images.subset(held_back) if count else None


def stratified_split(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the indices 0..N-1 in two, each class in proportion to its share.

    Args:
        labels: [N] class of each image.
        size: how many images the second part gets. Shares that are no whole numbers are rounded so that the sizes
            are exact (largest remainders first), and so that the first part keeps an image of each class as long as
            other classes have more than one left there.
        seed: the same seed gives the same split on every machine.

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
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, quota, strict=True)]
    second = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), second), second
