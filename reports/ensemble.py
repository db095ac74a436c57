"""What the members of an ensemble say together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from callbacks.predictions import Predictions
from reports.evaluation import check_same_set

IMAGES_AT_ONCE = 4096  # seven nets with 1,000 classes are then 230 MB in float64


def merge(
    members: Sequence[Predictions],
    mean: Literal["arithmetic", "geometric"] = "arithmetic",
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Log-probabilities [N, K] float32 of the mean of the members' probabilities, the same for every order of them.

    Args:
        members: of one set of images; one member is returned as it is.
        mean: arithmetic, of the probabilities, as the papers do; or geometric, of their logarithms, normalised again.
        weights: what each member counts, at least 0; only their ratios matter. Unset, all the same.

    Raises:
        ValueError: if there are no members, they are not of the same images, or the weights are not for them.
    """
    check_same_set(members)
    given = [1.0] * len(members) if weights is None else list(weights)
    if len(given) != len(members) or not (min(given) >= 0 and 0 < sum(given) < np.inf):
        raise ValueError(
            f"The weights {given} are not for {len(members)} members: give a number of at least 0 for each, not all 0."
        )
    if len(members) == 1:
        return members[0].normalised()
    shares = np.array(given) / sum(given)
    starts = range(0, len(members[0].labels), IMAGES_AT_ONCE)
    return np.concatenate([_merged(members, shares, mean, slice(start, start + IMAGES_AT_ONCE)) for start in starts])


def _merged(members: Sequence[Predictions], shares: np.ndarray, mean: str, images: slice) -> np.ndarray:
    """Some rows of the result. Sums run over sorted terms, so that their rounding does not know the order either."""
    parts = [replace(member, log_probabilities=member.log_probabilities[images]).normalised() for member in members]
    scores = np.stack(parts).astype(np.float64)  # [M, n, K]
    if mean == "arithmetic":
        with np.errstate(divide="ignore"):  # a member that counts 0 has the logarithm -inf
            terms = scores + np.log(shares)[:, None, None]
        return np.logaddexp.reduce(np.sort(terms, axis=0), axis=0).astype(np.float32)
    terms = np.sort(scores * shares[:, None, None], axis=0).sum(axis=0)
    return (terms - np.logaddexp.reduce(terms, axis=1, keepdims=True)).astype(np.float32)
