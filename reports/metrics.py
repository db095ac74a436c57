"""What can be said of predictions: errors and how sure they are, who is taken for whom, calibration.

Scores are log-probabilities [N, K] float32, rows whose exponentials sum to 1; labels are [N] int64.
"""

from dataclasses import dataclass

import numpy as np

DRAWS = 10_000  # bootstrap samples: chance moves the ends of a 95 % interval by 1 % of its width
BINS = 15  # of equal width, as in Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599
COLDEST, HOTTEST = 0.05, 20.0  # where a temperature is looked for


def misses(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether the class of each image, [N] bool, is not among the k likeliest; of equally likely ones the first is.

    Scores that are no numbers, of a net that has diverged, miss.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ahead = ~(scores <= own) | ((scores == own) & earlier)  # NaN is never "<="
    return ahead.sum(axis=1) >= k


def interval(values: np.ndarray, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The bootstrap's percentile interval of a mean over images.

    Images are drawn anew, as many as there are. Only how often each value comes up matters, and that is drawn exactly:
    of 0 and 1, errors of one net, from a binomial distribution; of -1, 0 and 1, differences between two nets on the
    same images, from a multinomial one; and so for the few values that a mean over several nets has.

    Args:
        values: [N].
        level: share of the bootstrap's means inside, the rest half above and half below.
    """
    kinds, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=DRAWS)
    low, high = np.quantile(drawn @ kinds.astype(float) / len(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def confusion(guesses: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How many images of each class (row) were taken for each class (column), [K, K] int64."""
    return np.bincount(labels * classes + guesses, minlength=classes**2).reshape(classes, classes)


def class_errors(matrix: np.ndarray) -> np.ndarray:
    """Share of the images of each class, [K], that were taken for another one; NaN for a class without images."""
    images = matrix.sum(axis=1)
    return np.where(images, 1 - matrix.diagonal() / np.maximum(images, 1), np.nan)


def confused_pairs(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions: class, what it was taken for, and how many images; the most first."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(row), int(column), int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def confident_mistakes(scores: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Which images a wrong class was given the highest probability for, [at most count], the surest first."""
    wrong = np.flatnonzero(misses(scores, labels))
    return wrong[np.argsort(-scores[wrong].max(axis=1), kind="stable")][:count]


def negative_log_likelihood(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log of the probability of the right class, in nats."""
    return -float(np.take_along_axis(scores, labels[:, None], axis=1).mean(dtype=np.float64))


def brier_score(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance, summed over classes, from the probabilities to certainty of the right class: in [0, 2]."""
    probabilities = np.exp(scores)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return float(((probabilities**2).sum(axis=1) - 2 * own + 1).mean(dtype=np.float64))


@dataclass
class Reliability:
    """Images by the probability of the guess, in bins of equal width from 0 to 1, each without its lower end.

    Args:
        images: [B] int64.
        confidence: [B] mean probability of the guess; NaN in an empty bin, as `accuracy`.
        accuracy: [B] share of right guesses.
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean over the images of the distance between the two in their bin, in [0, 1]."""
        filled = self.images > 0
        distance = np.abs(self.confidence - self.accuracy)[filled]
        return float((distance * self.images[filled]).sum() / self.images.sum())


def reliability(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """How often guesses are right, by how sure they are."""
    confidence = np.exp(scores.max(axis=1).astype(np.float64))
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(places, minlength=bins)
    right = ~misses(scores, labels)
    with np.errstate(invalid="ignore"):
        sums = [np.bincount(places, weights=values, minlength=bins) / images for values in (confidence, right)]
    return Reliability(images, *sums)


def calibration(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Expected calibration error in `BINS` bins, negative log-likelihood and Brier score."""
    return {
        "ece": reliability(scores, labels).error,
        "nll": negative_log_likelihood(scores, labels),
        "brier": brier_score(scores, labels),
    }


def at_temperature(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities divided by a temperature and normalised again: above 1 they are less sure."""
    scaled = scores / np.float32(temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [COLDEST, HOTTEST] at which the negative log-likelihood is least.

    In 1/T the likelihood is convex, and its slope the mean of what the scores are expected to be, by the probabilities
    at T, less what they are for the right class: halving finds where that changes sign. If every image is right (or the
    scores know nothing) it does not, and an end of the range is returned.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1).mean(dtype=np.float64)

    def slope(inverse: float) -> float:
        expected = (np.exp(at_temperature(scores, 1 / inverse)) * scores).sum(axis=1)
        return float(expected.mean(dtype=np.float64) - own)

    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-low))
