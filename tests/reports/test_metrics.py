"""Metrics of predictions against scikit-learn, closed forms and simulations; the mean of an ensemble."""

import numpy as np
import pytest
import sklearn.metrics

from reports import metrics
from reports.metrics import ensemble_mean
from tests.handmade import predictions


@pytest.fixture
def noisy():
    """Log-probabilities [500, 7] of a mediocre net, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=500)
    logits = rng.normal(size=(500, 7)) + 1.5 * np.eye(7)[labels]
    return predictions(logits, labels).log_probabilities, labels


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_errors_are_those_of_sklearn(noisy, k):
    scores, labels = noisy
    scores = scores + np.random.default_rng(1).normal(size=scores.shape) * 1e-6  # sklearn takes the last of equal ones
    share = 1 - sklearn.metrics.top_k_accuracy_score(labels, scores, k=k)
    assert metrics.topk_errors(scores, labels, k).mean() == pytest.approx(share) and share > 0.01


def test_of_equal_scores_the_first_counts_as_it_does_for_argmax():
    scores = np.log(np.full((3, 3), 1 / 3, np.float32))
    assert metrics.topk_errors(scores, np.array([0, 1, 2]), 1).tolist() == [False, True, True]
    assert metrics.topk_errors(scores, np.array([0, 1, 2]), 2).tolist() == [False, False, True]
    assert scores.argmax(1).tolist() == [0, 0, 0]


def test_errors_of_classes(noisy):
    scores, labels = noisy
    matrix = sklearn.metrics.confusion_matrix(labels, scores.argmax(1))
    recall = sklearn.metrics.recall_score(labels, scores.argmax(1), average=None)
    assert metrics.class_errors(matrix) == pytest.approx(1 - recall)
    assert np.isnan(metrics.class_errors(np.array([[2, 1], [0, 0]]))).tolist() == [False, True]


def test_pairs_that_are_confused_most():
    matrix = np.array([[9, 2, 0], [5, 8, 1], [0, 0, 7]])
    assert metrics.most_confused(matrix, 10) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert metrics.most_confused(matrix, 1) == [(1, 0, 5)]


def test_the_surest_mistakes_come_first():
    chances = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]], np.float32)
    labels = np.array([0, 0, 0, 0])
    assert metrics.most_confident_errors(np.log(chances), labels, 10).tolist() == [1, 3, 2]
    assert metrics.most_confident_errors(np.log(chances), labels, 2).tolist() == [1, 3]


def test_likelihood_and_brier_score(noisy):
    scores, labels = noisy
    chances = np.exp(scores.astype(np.float64))
    loss = sklearn.metrics.log_loss(labels, chances / chances.sum(1, keepdims=True))
    assert metrics.negative_log_likelihood(scores, labels) == pytest.approx(loss, rel=1e-5)
    by_hand = ((np.exp(scores) - np.eye(7)[labels]) ** 2).sum(1).mean()
    assert metrics.brier_score(scores, labels) == pytest.approx(by_hand, rel=1e-5)


def test_closed_forms_of_calibration():
    labels = np.array([0, 0, 0, 1, 2])
    knows_nothing = np.log(np.full((5, 4), 0.25, np.float32))
    assert metrics.calibration(knows_nothing, labels) == pytest.approx(
        {"ece": 0.6 - 0.25, "nll": np.log(4), "brier": 0.75}, abs=1e-6
    )
    sure_and_wrong = np.log(np.eye(4, dtype=np.float32)[labels - 1] + 1e-30)
    assert metrics.brier_score(sure_and_wrong, labels) == pytest.approx(2)
    assert metrics.reliability(sure_and_wrong, labels).expected_calibration_error == pytest.approx(1)


def test_reliability_bin_by_bin(noisy):
    scores, labels = noisy
    bins = metrics.reliability(scores, labels, 10)
    assert bins.images.sum() == 500
    confidence, right = np.exp(scores).max(1), scores.argmax(1) == labels
    expected = 0.0
    for k in range(10):
        inside = (confidence > k / 10) & (confidence <= (k + 1) / 10)
        assert bins.images[k] == inside.sum()
        if inside.any():
            assert bins.confidence[k] == pytest.approx(confidence[inside].mean(), rel=1e-5)
            assert bins.accuracy[k] == pytest.approx(right[inside].mean())
            expected += abs(confidence[inside].mean() - right[inside].mean()) * inside.mean()
    assert bins.expected_calibration_error == pytest.approx(expected, rel=1e-4) and expected > 0.01
    certain = metrics.reliability(np.array([[0.0, -50.0]], np.float32), np.array([0]))
    assert certain.images[-1] == 1 and np.isnan(certain.accuracy[0])


def test_an_interval_of_errors_is_the_binomial_one():
    wrong = np.arange(400) < 40
    low, high = metrics.bootstrap_interval(wrong)
    assert (low, high) == pytest.approx((29 / 400, 52 / 400), abs=0.003)  # quantiles of Binomial(400, 0.1)
    assert metrics.bootstrap_interval(wrong) == (low, high)  # seeded
    assert metrics.bootstrap_interval(wrong[::-1]) == (low, high)
    assert metrics.bootstrap_interval(wrong, seed=1) != (low, high)
    narrower = metrics.bootstrap_interval(wrong, level=0.5)
    assert low < narrower[0] < 0.1 < narrower[1] < high


def test_an_interval_of_differences_is_that_of_drawing_images():
    rng = np.random.default_rng(3)
    differences = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], p=[0.1, 0.1, 0.6, 0.15, 0.05], size=300)
    means = [rng.choice(differences, 300).mean() for _ in range(4000)]
    assert metrics.bootstrap_interval(differences) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.008)
    assert metrics.bootstrap_interval(np.zeros(300)) == (0, 0)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(5)
    ends = [metrics.bootstrap_interval(rng.random(300) < 0.2) for _ in range(300)]
    inside = np.mean([low <= 0.2 <= high for low, high in ends])
    assert 0.91 < inside < 0.985


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_is_recovered(true):
    rng = np.random.default_rng(7)
    logits = 2 * rng.normal(size=(20_000, 5))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) > rng.random((20_000, 1))).argmax(1)  # drawn from them: calibrated
    off = true * logits
    scores = (off - np.log(np.exp(off).sum(1, keepdims=True))).astype(np.float32)
    temperature = metrics.fit_temperature(scores, labels)
    assert temperature == pytest.approx(true, rel=0.03)
    least = metrics.negative_log_likelihood(metrics.apply_temperature(scores, temperature), labels)
    for other in (0.97 * temperature, 1.03 * temperature):
        assert metrics.negative_log_likelihood(metrics.apply_temperature(scores, other), labels) > least
    if true != 1:
        errors = [
            metrics.reliability(each, labels).expected_calibration_error
            for each in (scores, metrics.apply_temperature(scores, true))
        ]
        assert errors[1] < 0.02 < errors[0]


def test_a_temperature_stays_in_its_range(noisy):
    scores, _ = noisy
    assert metrics.fit_temperature(scores, scores.argmax(1)) == pytest.approx(metrics.MIN_TEMPERATURE)
    assert metrics.fit_temperature(scores, scores.argmin(1)) == pytest.approx(metrics.MAX_TEMPERATURE)
    assert metrics.apply_temperature(scores, 1.0) == pytest.approx(scores, abs=1e-5)
    assert (metrics.apply_temperature(scores, 3.0).argmax(1) == scores.argmax(1)).all()
    assert np.exp(metrics.apply_temperature(scores, 0.2)).sum(1) == pytest.approx(1, abs=1e-5)


def test_scores_that_are_no_numbers_miss():
    scores, labels = np.full((4, 10), np.nan, dtype=np.float32), np.arange(4)
    assert metrics.topk_errors(scores, labels).all() and metrics.topk_errors(scores, labels, 5).all()


@pytest.fixture
def members():
    rng = np.random.default_rng(11)
    return [predictions(rng.normal(size=(20, 6)), rng.integers(6, size=20) * 0) for _ in range(3)]


def mean_of(members, *args, **kwargs):
    return ensemble_mean([member.log_probabilities for member in members], *args, **kwargs)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_an_ensemble_of_one_is_the_model_and_of_equal_ones_too(members, mean):
    alone = members[0].log_probabilities
    assert (mean_of(members[:1], mean) == alone).all()
    assert mean_of([members[0]] * 3, mean) == pytest.approx(alone, abs=3e-7)
    assert mean_of(members[:1], mean, weights=[0.3]).dtype == mean_of(members, mean).dtype == np.float32


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_the_order_of_members_does_not_change_a_bit(members, mean, monkeypatch):
    merged = mean_of(members, mean, [0.2, 0.5, 0.3])
    monkeypatch.setattr(metrics, "VALUES_PER_CHUNK", 42)  # nor does how many images are merged at once
    for order in ([2, 0, 1], [1, 2, 0], [2, 1, 0]):
        again = mean_of([members[k] for k in order], mean, [[0.2, 0.5, 0.3][k] for k in order])
        assert (again == merged).all()


def test_means_by_hand(members):
    chances = np.stack([np.exp(member.log_probabilities.astype(np.float64)) for member in members])
    assert np.exp(mean_of(members)) == pytest.approx(chances.mean(0), abs=1e-6)
    weighted = np.average(chances, axis=0, weights=[1, 2, 5])
    assert np.exp(mean_of(members, weights=[1, 2, 5])) == pytest.approx(weighted, abs=1e-6)
    assert mean_of(members, weights=[10, 20, 50]) == pytest.approx(mean_of(members, weights=[1, 2, 5]), abs=1e-6)
    roots = np.exp(np.log(chances).mean(0))
    assert np.exp(mean_of(members, "geometric")) == pytest.approx(roots / roots.sum(1, keepdims=True), abs=1e-6)
    for mean in ("arithmetic", "geometric"):
        assert mean_of(members, mean, [0, 1, 0]) == pytest.approx(members[1].log_probabilities, abs=3e-7)
