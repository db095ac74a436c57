"""Classes and images in which two runs differ."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from errors import UserError
from reports import metrics
from reports.disagreement import class_differences, class_table, disagreement_section, own_mistakes
from reports.html_page import Images, Table, html
from reports.run_images import Thumbnails
from tests.handmade import predictions

NAMES = ("run A", "run B")


def nets(labels, *predicted, classes=5, **changes):
    """Predictions of nets that take image k for predicted[k], the surer the greater k."""
    sharpness = np.linspace(1, 6, len(labels))[:, None]
    return [predictions(sharpness * np.eye(classes)[np.array(each)], labels, **changes) for each in predicted]


@pytest.fixture(scope="module")
def pair():
    """Two nets on 900 images of 5 classes, of which the last has none. On class 1 the second is much better."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(4, size=900))
    wrong = [rng.random(900) < rate for rate in (np.array([0.19, 0.5, 0.3, 0.2])[labels], 0.2)]
    return nets(labels, *[np.where(each, (labels + 1) % 5, labels) for each in wrong])


# Classes


def test_errors_by_class_are_tested_one_by_one_and_corrected_for_their_number(pair):
    a, b = pair
    wrong = [metrics.topk_errors(each.log_probabilities, each.labels) for each in pair]
    found = {each.name: each for each in class_differences(a, b)}
    assert set(found) == {f"class {k}" for k in range(4)}
    p_values = []
    for k in range(4):
        a_wrong, b_wrong = (each[a.labels == k] for each in wrong)
        own = found[f"class {k}"]
        assert (own.images, own.a_error, own.b_error) == (len(a_wrong), a_wrong.mean(), b_wrong.mean())
        assert own.difference == pytest.approx(a_wrong.mean() - b_wrong.mean(), abs=1e-15)
        assert own.interval == metrics.bootstrap_interval(a_wrong.astype(int) - b_wrong, 0.99)
        p_values.append(stats.binomtest((a_wrong & ~b_wrong).sum(), (a_wrong ^ b_wrong).sum()).pvalue)
    expected = multipletests(p_values, method="holm")[1]
    assert [found[f"class {k}"].p_holm for k in range(4)] == pytest.approx(expected, rel=1e-12)
    assert [each.name for each in found.values() if each.is_evidence] == ["class 1"]


def test_the_largest_differences_come_first_and_the_correction_counts_all_classes(pair, monkeypatch):
    everything = class_differences(*pair)
    sizes = [abs(each.difference) for each in everything]
    assert sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr("reports.disagreement.NUM_CLASSES", 2)
    assert class_differences(*pair) == everything[:2]


def test_the_table_says_what_counts(pair):
    table = class_table(NAMES, class_differences(*pair))
    assert table.names == ["class", "images", "run A, %", "run B, %", "difference, points"]
    assert [row[0] for row in table.rows if row[-1].endswith(" *")] == ["class 1"]
    best = class_differences(*pair)[0]
    assert table.rows[0][2:4] == [f"{100 * best.a_error:.2f}", f"{100 * best.b_error:.2f}"]
    assert table.rows[0][4].startswith(f"{100 * best.difference:+.2f} [")


def test_of_a_thousand_classes_thirty_are_told():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 3)
    a, b = (predictions(rng.normal(size=(3000, 1000)) + 5 * np.eye(1000)[labels], labels) for _ in range(2))
    assert len(class_differences(a, b)) == 30


def test_other_images_are_refused(pair):
    other = predictions(pair[0].log_probabilities, pair[0].labels, data_hash="of others")
    for compare in (class_differences, own_mistakes):
        with pytest.raises(UserError, match="different images"):
            compare(pair[0], other)


# Images


def test_own_mistakes_the_surest_first(monkeypatch):
    labels = np.array([0, 1, 2, 3, 0, 1])
    a, b = nets(labels, [1, 1, 0, 3, 2, 4], [0, 1, 2, 0, 1, 1])
    found = own_mistakes(a, b)
    assert [(each.row, each.label, each.predicted) for each in found] == [
        (5, "class 1", "class 4"), (2, "class 2", "class 0"), (0, "class 0", "class 1")
    ]  # fmt: skip
    probabilities = np.exp(a.log_probabilities.astype(float)).max(axis=1)
    assert [each.probability for each in found] == pytest.approx(probabilities[[5, 2, 0]])
    assert found[0].of_the_class == pytest.approx(np.exp(float(b.log_probabilities[5, 1])))
    assert [each.row for each in own_mistakes(b, a)] == [3]  # both are wrong on image 4
    monkeypatch.setattr("reports.disagreement.NUM_IMAGES", 1)
    assert [each.row for each in own_mistakes(a, b)] == [5]


def test_images_are_named_by_file_or_index():
    labels = np.array([0, 1])
    a, b = nets(labels, [1, 0], [0, 1], indices=np.array([4, 7]))
    assert [each.image for each in own_mistakes(a, b)] == ["image 7", "image 4"]
    a, b = nets(labels, [1, 0], [0, 1], files=np.array(["cat/1.jpg", "dog/2.jpg"]))
    assert [each.image for each in own_mistakes(a, b)] == ["dog/2.jpg", "cat/1.jpg"]


def test_a_section_shows_pictures_of_both_runs_mistakes():
    asked = []
    labels = np.array([0, 1, 2, 3])
    a, b = nets(labels, [1, 1, 2, 0], [0, 1, 0, 3])

    def load(rows):
        asked.extend(rows)
        return Thumbnails([b"\x89PNG%d" % row if row else None for row in rows])

    section = disagreement_section(NAMES, (a, b), load)
    assert asked == [3, 0, 2]
    of_a, of_b = section.parts
    assert isinstance(of_a, Images) and of_a.title.startswith("Images that run A gets wrong and run B right")
    assert [item.png for item in of_a.items] == [b"\x89PNG3", None]
    assert [item.png for item in of_b.items] == [b"\x89PNG2"]
    assert of_a.items[0].caption.startswith("class 3, taken for class 0 (")


def test_a_section_without_pictures_names_the_images_and_says_why():
    labels = np.array([0, 1, 2, 3])
    a, b = nets(labels, [1, 1, 2, 0], labels, files=np.array([f"<b>{k}.jpg" for k in labels]))
    section = disagreement_section(NAMES, (a, b), lambda rows: Thumbnails([None] * len(rows), "No folder."))
    of_a, of_b, note = section.parts
    assert isinstance(of_a, Table) and [row[0] for row in of_a.rows] == ["<b>3.jpg", "<b>0.jpg"]
    assert of_b == "There is no image that run B gets wrong and run A right."
    assert note == "No folder."
    page = html("Title", [section])
    assert "&lt;b&gt;3.jpg" in page and "<b>3" not in page
