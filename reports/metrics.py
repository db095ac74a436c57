"""Metrics of predictions: top-k errors, intervals, confusions, calibration, and the mean of an ensemble.

`log_probs` are log-probabilities, [N, K] float32, whose exponentials sum to 1 in each row; `labels` are [N] int64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

BOOTSTRAP_SAMPLES = 10_000  # the sampling error of an end of a 95 % interval is 1 % of the interval's width
BINS = 15  # of equal width, as in Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
VALUES_PER_CHUNK = 2**16  # of each member: 7 members take 4 MB in float64, which stay in the cache
Mean = Literal["arithmetic", "geometric"]
LogProbs = Sequence[np.ndarray]  # of several members, [N, K] each


def topk_errors(log_probs: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether the label of each image is not among its k most probable classes, [N] bool.

    Of equally probable classes the one with the lowest index comes first, as in argmax. NaN, from a net that has
    diverged, is an error. scikit-learn's `top_k_accuracy_score` differs in both.
    """
    own = _of_labels(log_probs, labels)[:, None]
    has_lower_index = np.arange(log_probs.shape[1]) < labels[:, None]
    comes_before = ~(log_probs <= own) | ((log_probs == own) & has_lower_index)  # NaN is never "<="
    return comes_before.sum(axis=1) >= k


def mean_topk_errors(predictors: LogProbs, labels: np.ndarray, k: int) -> np.ndarray:
    """Share of the predictors whose top-k prediction is wrong, for each image: [N] in [0, 1]."""
    return np.mean([topk_errors(log_probs, labels, k) for log_probs in predictors], axis=0)


def reported_k(num_classes: int) -> list[int]:
    """The k of the top-k errors that reports show: 1 and, with more than five classes, 5."""
    return [k for k in (1, 5) if k < num_classes]


def bootstrap_interval(values: np.ndarray, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over images.

    A bootstrap sample is determined by how often it holds each distinct value, and these counts are multinomial.
    They are sampled directly: errors of one net have the values 0 and 1, differences between two nets -1, 0 and 1.

    Args:
        values: [N], one of each image.
        level: coverage.
    """
    distinct, counts = np.unique(values, return_counts=True)
    samples = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=BOOTSTRAP_SAMPLES)
    means = samples @ distinct.astype(float) / len(values)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def error_interval(errors: np.ndarray) -> tuple[float, float]:
    """95 % interval of an error rate, in [0, 1]: bootstrap; at a rate of 0 or 1, where that has no width, Wilson's.

    Args:
        errors: [N], 0 or 1 for one net; a share of the nets for several.
    """
    if not np.isin(errors.mean(), (0, 1)):
        return bootstrap_interval(errors)
    low, high = binomtest(int(errors.sum()), len(errors)).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def upper_bound_without_errors(images: int) -> float:
    """Exact (Clopper-Pearson) one-sided 95 % upper bound of an error rate, in [0, 1], when no image was an error."""
    return 1 - 0.05 ** (1 / images)


def ensemble_mean(
    member_log_probs: LogProbs, mean: Mean = "arithmetic", weights: Sequence[float] | None = None
) -> np.ndarray:
    """Log-probabilities of an ensemble, [N, K] float32: the same bits for every order of its members.

    Args:
        member_log_probs: [N, K] of each member. One member is returned unchanged.
        mean: arithmetic, of the probabilities, as in the papers; or geometric, normalised.
        weights: one of each member, at least 0; only their ratios matter. None weighs all members equally.
    """
    if len(member_log_probs) == 1:
        return member_log_probs[0]
    weights = weights or [1.0] * len(member_log_probs)
    shares = np.array(weights)[:, None, None] / math.fsum(weights)
    num_chunks = 1 + member_log_probs[0].size // VALUES_PER_CHUNK
    chunks = zip(*(np.array_split(member, num_chunks) for member in member_log_probs), strict=True)
    return np.concatenate([_mean_of_chunk(np.stack(chunk), mean, shares) for chunk in chunks])


def _mean_of_chunk(log_probs: np.ndarray, mean: Mean, shares: np.ndarray) -> np.ndarray:
    """The weighted mean of [M, n, K]."""
    if mean == "geometric":
        summed = _sum_of_members(log_probs * shares)
        return (summed - _logsumexp(summed)).astype(np.float32)
    with np.errstate(divide="ignore"):  # a weight of 0 has the logarithm -inf
        terms = log_probs + np.log(shares)
    largest = terms.max(axis=0)
    return (largest + np.log(_sum_of_members(np.exp(terms - largest)))).astype(np.float32)


def _sum_of_members(terms: np.ndarray) -> np.ndarray:
    """Sum over the first axis, the same for every order: float64 adds multiples of 2^-40 without rounding them."""
    return np.rint(terms * 2.0**40).sum(axis=0) / 2.0**40


def _logsumexp(values: np.ndarray) -> np.ndarray:
    """scipy's `logsumexp` over the classes, with `keepdims`, in an eighteenth of its time."""
    largest = values.max(axis=1, keepdims=True)
    return largest + np.log(np.exp(values - largest).sum(axis=1, keepdims=True))


def class_errors(confusion: np.ndarray) -> np.ndarray:
    """Error rate of each class, [K] in [0, 1], from a confusion matrix with a row per class; NaN without images."""
    images = confusion.sum(axis=1)
    return np.where(images, 1 - confusion.diagonal() / np.maximum(images, 1), np.nan)


def most_confused(confusion: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions: class, predicted class and number of images, in descending order of the number."""
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(row), int(column), int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def most_confident_errors(log_probs: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the errors with the most probable predictions, at most `count`, in descending order of probability."""
    wrong = np.flatnonzero(topk_errors(log_probs, labels))
    return wrong[np.argsort(-log_probs[wrong].max(axis=1), kind="stable")][:count]


def negative_log_likelihood(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log of the probability of the label, in nats."""
    return -float(_of_labels(log_probs, labels).mean(dtype=np.float64))


def brier_score(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance between probabilities and the one-hot label, summed over the classes: in [0, 2]."""
    probabilities = np.exp(log_probs)
    own = _of_labels(probabilities, labels)
    return float(((probabilities**2).sum(axis=1) - 2 * own + 1).mean(dtype=np.float64))


def _of_labels(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The value of each image's label, [N] of [N, K]."""
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]


@dataclass
class Reliability:
    """Predictions in bins of equal width, by the probability of the predicted class; a bin excludes its lower end.

    Args:
        images: [B] int64, number of images.
        confidence: [B] mean probability of the predicted class; NaN in an empty bin, like `accuracy`.
        accuracy: [B] share of correct predictions.
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Distance between confidence and accuracy, averaged over the images, in [0, 1]."""
        return float(np.nansum(np.abs(self.confidence - self.accuracy) * self.images) / self.images.sum())


def reliability(log_probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Accuracy by confidence."""
    confidence = np.exp(log_probs.max(axis=1).astype(np.float64))
    indices = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(indices, minlength=bins)
    correct = ~topk_errors(log_probs, labels)
    with np.errstate(invalid="ignore"):  # an empty bin has no mean
        means = [np.bincount(indices, weights=values, minlength=bins) / images for values in (confidence, correct)]
    return Reliability(images, *means)


def calibration(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Expected calibration error in `BINS` bins, negative log-likelihood and Brier score."""
    return {
        "ece": reliability(log_probs, labels).expected_calibration_error,
        "nll": negative_log_likelihood(log_probs, labels),
        "brier": brier_score(log_probs, labels),
    }


def summary(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Top-k errors, in [0, 1], their 95 % intervals, and calibration."""
    found: dict[str, Any] = {}
    for k in reported_k(log_probs.shape[1]):
        errors = topk_errors(log_probs, labels, k)
        found |= {f"top{k}_error": float(errors.mean()), f"top{k}_interval": error_interval(errors)}
    return found | calibration(log_probs, labels)


def apply_temperature(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities divided by a temperature and normalised; above 1 they are less confident."""
    scaled = log_probs / np.float32(temperature)
    return scaled - _logsumexp(scaled)


def fit_temperature(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [MIN_TEMPERATURE, MAX_TEMPERATURE] with the least negative log-likelihood.

    The likelihood is convex in 1/T (arXiv 1706.04599, section 4.2). It has no minimum if all images are correct: then
    an end of the range is returned.
    """
    own = _of_labels(log_probs, labels).mean(dtype=np.float64)

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-np.float64(log_temperature))
        return float(_logsumexp(log_probs * inverse).mean() - own * inverse)

    bounds = np.log([MIN_TEMPERATURE, MAX_TEMPERATURE])
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x))
