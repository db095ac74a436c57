"""Which of two runs or groups is better: the rule, its sentences, and many pairs at once."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from reports.significance import IMAGES_COVER, SEEDS_COVER, Sample, compare_pairs, format_p


def single(name, wrong, **changes):
    """A run that was tested on images."""
    wrong = np.asarray(wrong, dtype=bool)
    return Sample(
        **{"name": name, "errors": [wrong.mean()], "images": len(wrong), "data_hash": "x", "wrong": wrong} | changes
    )


def group(name, *errors, images=10_000, data_hash="x", **more):
    """Runs with several seeds."""
    return Sample(name, errors, images, data_hash, **more)


def compare(a, b):
    (comparison,) = compare_pairs([(a, b)])
    return comparison


# The rule


def test_two_single_runs_are_compared_on_their_images():
    rng = np.random.default_rng(0)
    a, b = rng.random(2000) < 0.05, rng.random(2000) < 0.12
    comparison = compare(single("good", a), single("bad", b))
    assert (comparison.method, comparison.n, comparison.verdict) == ("McNemar", (1, 1), "A is better")
    assert comparison.difference == pytest.approx(a.mean() - b.mean())
    assert comparison.interval[0] < comparison.difference < comparison.interval[1] < 0
    assert comparison.interval_covers == IMAGES_COVER
    assert comparison.wrong_alone == ((a & ~b).sum(), (b & ~a).sum())
    assert comparison.p == comparison.p_holm < 1e-6
    assert 0 < comparison.smallest_detectable < abs(comparison.difference)
    assert comparison.sentence().startswith("good is better than bad by ")
    reverse = compare(single("bad", b), single("good", a))
    assert (reverse.verdict, reverse.p, reverse.difference) == ("B is better", comparison.p, -comparison.difference)
    assert reverse.sentence() == comparison.sentence()


def test_two_groups_are_compared_over_seeds():
    comparison = compare(group("bad", 0.10, 0.101, 0.099), group("good", 0.08, 0.081, 0.0795, 0.0802))
    assert (comparison.method, comparison.n, comparison.verdict) == ("Welch", (3, 4), "B is better")
    assert comparison.interval_covers == SEEDS_COVER
    assert comparison.wrong_alone is None
    assert comparison.difference == pytest.approx(0.1 - np.mean([0.08, 0.081, 0.0795, 0.0802]))


def test_equals_are_called_so_with_what_would_have_been_enough():
    comparison = compare(group("A", 0.08, 0.081, 0.082), group("B", 0.0805, 0.081, 0.0816))
    assert comparison.verdict == "no evidence of a difference"
    points = f"{100 * comparison.smallest_detectable:.2f} points of error would have been enough"
    assert points in comparison.sentence()


FIVE = (0.08, 0.081, 0.082, 0.083, 0.084)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (group("A"), group("B", *FIVE), "A has no result: run `main.py test`"),
        (group("A", 0.08, 0.081), group("B", *FIVE), "A has 2 runs, and a test over seeds needs 3"),
        (group("A", 0.08), group("B", 0.1, 0.2), "A has 1 run and B has 2 runs, and a test over seeds needs 3"),
        (group("A", *FIVE), group("B", math.nan, 0.08, 0.08, 0.09), "1 run of B of 4 diverged"),
        (group("A", *FIVE, data_hash="y"), group("B", *FIVE), "A and B were tested on different images"),
        (group("A", *FIVE, images=9999), group("B", *FIVE), "A and B were tested on different images"),
        (
            group("A", *FIVE, data_hash=None),
            group("B", *FIVE, data_hash=None),
            "not known on which images A was tested",
        ),
        (group("A", *FIVE), group("B", *FIVE, seeds=[0, 1, 2, None, 1]), "Runs of B have the same seed"),
        (
            single("A", [0, 1]),
            group("B", 0.5, images=2),
            "The predictions of B are missing: rerun `main.py test`",
        ),
        (single("A", [0, 1], indices=np.array([0, 2])), single("B", [0, 1]), "since some could not be read"),
    ],
)
def test_anything_else_is_not_tested(a, b, reason):
    comparison = compare(a, b)
    assert (comparison.method, comparison.verdict, comparison.p, comparison.p_holm) == (None, "not tested", None, None)
    assert reason in comparison.reason
    assert comparison.reason.endswith(".")
    assert comparison.reason in comparison.sentence()
    assert comparison.interval is None


def test_a_pair_that_is_not_tested_shows_a_difference_on_the_same_images_alone():
    assert compare(group("A", 0.08), group("B", *FIVE)).difference == pytest.approx(-0.002)
    assert compare(group("A", 0.08, data_hash="y"), group("B", *FIVE)).difference is None
    assert compare(group("A", math.nan), group("B", *FIVE)).difference is None


def test_pairs_that_are_not_tested_do_not_count_in_the_correction():
    a, b = group("A", 0.08, 0.081, 0.082), group("B", 0.09, 0.091, 0.092)
    alone = compare(a, b)
    among = compare_pairs([(group("C", 0.1), a), (a, b), (b, group("C", 0.1))])
    assert [pair.method for pair in among] == [None, "Welch", None]
    assert among[1] == alone
    twice = compare_pairs([(a, b), (b, a)])
    assert [pair.p_holm for pair in twice] == [2 * alone.p] * 2
    assert [pair.verdict for pair in twice] == ["A is better", "B is better"]
    assert compare_pairs([]) == []


def test_what_counts_is_at_least_what_would_have_counted():
    """With Holm's levels, the same for all pairs or not."""
    rng = np.random.default_rng(1)
    groups = [group(str(k), *rng.normal(0.08 + 0.002 * k, 0.001, 5)) for k in range(6)]
    singles = [single(f"s{k}", rng.random(10_000) < 0.08 + 0.004 * k) for k in range(6)]
    pairs = [*itertools.combinations(groups, 2), *itertools.combinations(singles, 2)]
    found = compare_pairs(pairs)
    assert {pair.verdict for pair in found} == {"A is better", "no evidence of a difference"}
    for pair in found:
        counts = abs(pair.difference) >= pair.smallest_detectable - 1e-12
        assert counts == (pair.verdict != "no evidence of a difference")


def test_a_comparison_in_plain_types():
    wrong = np.arange(400) < 20
    pairs = [(single("A", wrong), single("B", ~wrong)), (group("A", 0.1), group("B", *FIVE))]
    plain = json.loads(json.dumps([pair.to_plain() for pair in compare_pairs(pairs)], allow_nan=False))
    assert plain[0]["method"] == "McNemar"
    assert plain[0]["n"] == [1, 1]
    assert plain[0]["wrong_alone"] == [20, 380]
    assert plain[0]["verdict"] == "A is better"
    assert plain[1]["p"] is None
    assert plain[1]["reason"].startswith("A has 1 run")


def test_p_values_in_sentences():
    assert [format_p(p) for p in (1e-30, 0.00012, 0.0345, 1.0)] == ["p < 0.0001", "p = 0.00012", "p = 0.035", "p = 1"]


def test_no_discordant_image_is_no_proof_that_there_is_none_elsewhere():
    wrong = np.arange(360) < 5
    comparison = compare(single("A", wrong), single("B", wrong))
    assert (comparison.p, comparison.difference, comparison.verdict) == (1, 0, "no evidence of a difference")
    low, high = comparison.interval
    assert low == -high
    # With a share of 1.27 % of discordant images, 360 would hold none in 1 of 100 samples
    assert stats.binom.pmf(0, 360, high) == pytest.approx(0.01)


def test_many_pairs_of_equals_give_no_winner():
    """Holm's correction: of all 28 pairs of 8 equal recipes, any is called better in at most 2 % of the reports."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        recipes = [group(str(k), *rng.normal(0.08, 0.0025, 5)) for k in range(8)]
        verdicts = {pair.verdict for pair in compare_pairs(list(itertools.combinations(recipes, 2)))}
        found += verdicts != {"no evidence of a difference"}
    assert found <= 2
