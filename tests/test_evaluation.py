"""What reports stand on: tests that are read or run, statistics, ensembles, pages."""

import dataclasses
import io
import re
from pathlib import Path

import altair
import numpy as np
import pytest
import sklearn.metrics
from rich.console import Console

from checkpointing.predictions import Predictions, file_hash, predictions_path
from errors import UserError
from reports import evaluation, html_page, metrics, plots
from reports.command import terminal_table
from reports.evaluation import check_same_images, load_predictions
from reports.html_page import Figure, Section, Table
from reports.metrics import ensemble_mean


def predictions(scores, labels, **changes):
    """Predictions by hand; `scores` [N, K] are any numbers, brought to log-probabilities."""
    scores = np.asarray(scores, np.float64)
    scores = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    content = {
        "indices": np.arange(len(labels)),
        "files": np.array([], dtype=str),
        "labels": np.asarray(labels),
        "log_probabilities": scores.astype(np.float32),
        "class_names": np.array([f"class {k}" for k in range(scores.shape[1])]),
        "protocol": "center",
        "views": 1,
        "checkpoint": "a.ckpt",
        "checkpoint_hash": "",
        "data_hash": "the data",
        "complete": True,
    }
    return Predictions(**content | changes)


@pytest.fixture
def noisy():
    """Log-probabilities [500, 7] of a mediocre net, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=500)
    logits = rng.normal(size=(500, 7)) + 1.5 * np.eye(7)[labels]
    return predictions(logits, labels).log_probabilities, labels


# Statistics


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


# Ensembles


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
    monkeypatch.setattr(metrics, "IMAGES_PER_CHUNK", 7)  # nor does how many images are merged at once
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


NAMES = np.array(["ant", "bee", "cow", "dog", "eel", "fox"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class_names": np.array([*NAMES[:2], "dog", "cow", *NAMES[4:]])},
         "number 2 is dog and cow, the same ones in another order"),
        ({"class_names": np.array([*NAMES[:5], "gnu"])}, r"number 5 is gnu and fox\)"),
        ({"class_names": NAMES[:5]}, "5 and 6 of them"),
        ({"labels": np.ones(20, int)}, "are of different data sets of the same size"),
        ({"data_hash": "other data"}, "are of different data sets of the same size"),
        ({"indices": np.arange(1, 21)}, "are of different images .20 and 20, with different indices"),
        ({"indices": np.arange(19)}, "are of different images .19 and 20"),
    ],
)  # fmt: skip
def test_members_of_another_set_are_refused(members, changes, sentence):
    first = dataclasses.replace(members[0], class_names=NAMES)
    other = dataclasses.replace(first, checkpoint="b.ckpt", **changes)
    check_same_images([first, dataclasses.replace(first, protocol="ten_crop", views=10)])
    with pytest.raises(UserError, match=sentence) as raised:
        check_same_images([first, first, other])
    assert str(raised.value).startswith("b.ckpt (center) and a.ckpt (center) ")


# Tests that are read or run


@pytest.fixture
def tested(tmp_path, monkeypatch, noisy):
    """A checkpoint of four bytes, and a command line that leaves predictions and keeps what was typed."""
    folder = tmp_path / "runs" / "digits" / "net" / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "best.ckpt").write_bytes(b"best")
    typed = []

    def main(command):
        typed.append(command)
        verb, _, path = command[:3]
        protocol = command[command.index("--data.protocol") + 1]
        digest = file_hash(folder / "best.ckpt")
        fresh = predictions(*noisy, protocol=protocol, checkpoint=path, checkpoint_hash=digest)
        fresh.write(predictions_path(folder / "best.ckpt", protocol, verb))

    monkeypatch.setattr(evaluation.command_line, "main", main)
    return folder / "best.ckpt", typed


def load(checkpoint, protocol, **kwargs):
    return load_predictions([(checkpoint, protocol)], **kwargs)[0]


def test_a_missing_test_is_run_once_and_then_read(tested, capsys):
    checkpoint, typed = tested
    experiment = checkpoint.parents[2]
    first = load(experiment, "ten_crop", flags=["--data.root", "here"])
    assert typed == [
        ["test", "--ckpt_path", str(checkpoint), "--data.root", "here", "--data.protocol", "ten_crop",
         "--trainer.devices", "1"]
    ]  # fmt: skip
    assert capsys.readouterr().out == f"Test 1 of 1: {checkpoint}, ten_crop\n"
    again = load(checkpoint, "ten_crop")
    assert len(typed) == 1 and capsys.readouterr().out == ""
    assert (again.log_probabilities == first.log_probabilities).all() and again.protocol == "ten_crop"


def test_only_what_is_missing_is_run_and_counted(tested, capsys):
    checkpoint, typed = tested
    load(checkpoint, "center")
    capsys.readouterr()
    wanted = [(checkpoint, name) for name in ("center", "ten_crop", "dense", "ten_crop")]
    found = load_predictions(wanted)
    assert [each.protocol for each in found] == ["center", "ten_crop", "dense", "ten_crop"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Test 1 of 2: {checkpoint}, ten_crop", f"Test 2 of 2: {checkpoint}, dense"]
    assert len(typed) == 3


def test_a_checkpoint_that_changed_is_tested_anew(tested):
    checkpoint, typed = tested
    load(checkpoint, "center")
    checkpoint.write_bytes(b"other")
    assert load(checkpoint, "center").checkpoint_hash == file_hash(checkpoint)
    assert len(typed) == 2


def test_a_broken_file_of_predictions_is_made_anew(tested):
    checkpoint, typed = tested
    load(checkpoint, "center")
    path = predictions_path(checkpoint, "center")
    path.write_bytes(path.read_bytes()[:100])
    load(checkpoint, "center")
    assert len(typed) == 2 and Predictions.read(path).views == 1


def test_validation_is_another_test(tested, capsys):
    checkpoint, typed = tested
    load(checkpoint, "center")
    load(checkpoint, "center", verb="validate")
    assert [command[0] for command in typed] == ["test", "validate"]
    assert f"Validation 1 of 1: {checkpoint}, center" in capsys.readouterr().out


def test_a_run_that_was_moved_is_read_where_it_lies(tested):
    checkpoint, typed = tested
    load(checkpoint, "center")
    version = checkpoint.parents[1]
    version.rename(version.with_name("version_7"))
    moved = load(version.with_name("version_7"), "center")
    assert moved.checkpoint == str(version.with_name("version_7") / "checkpoints" / "best.ckpt") and len(typed) == 1


@pytest.mark.parametrize(
    ("wanted", "flags", "sentence"),
    [
        ([], [], "No checkpoints are given: name runs or files"),
        ([("nowhere", "center")], [], "There is no checkpoint nowhere"),
        ([("best.ckpt", "center"), ("best.ckpt", "tencrop")], [], "There is no protocol tencrop: choose one of center"),
        ([("best.ckpt", "center")], ["--trainer.devices=2"], "one device and takes no --trainer.devices=2: type"),
        ([("best.ckpt", "center")], ["--trainer.strategy", "ddp"], "one device and takes no --trainer.strategy: type"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_anything_is(tested, monkeypatch, wanted, flags, sentence):
    checkpoint, typed = tested
    monkeypatch.chdir(checkpoint.parent)
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_predictions([(Path(name), protocol) for name, protocol in wanted], flags=flags)
    assert not typed


def test_a_test_that_leaves_nothing_behind(tested, monkeypatch):
    checkpoint, _ = tested
    monkeypatch.setattr(evaluation.command_line, "main", lambda command: None)
    with pytest.raises(ValueError, match=r"left no predictions in .*predictions-best-center\.npz: test whole sets"):
        load(checkpoint, "center")


@pytest.mark.parametrize(("code", "becomes"), [("error: no data.", "error: no data."), (2, 1)])
def test_a_test_that_fails_ends_with_its_own_sentence_and_status_1(tested, monkeypatch, code, becomes):
    def main(command):
        raise SystemExit(code)

    monkeypatch.setattr(evaluation.command_line, "main", main)
    with pytest.raises(SystemExit) as stop:
        load(tested[0], "center")
    assert stop.value.code == becomes


# Pages


def line_chart():
    values = altair.Data(values=[{"x": 1, "y": 3}, {"x": 2, "y": 4}])
    return plots.styled(altair.Chart(values, title="a < b").mark_line(color=plots.INK).encode(x="x:Q", y="y:Q"))


@pytest.fixture
def sections():
    table = Table("Errors & costs", ["<net", "error, %"], [["a<b>", "1.0"], ["c|d", "2.0"]])
    figure = Figure("A line", line_chart)
    return [Section("One", ["Some text.", table, figure]), Section("Two", [Table("Empty", ["x"], [])])]


def test_a_page_needs_nothing_beside_it(sections):
    text = html_page.html("A <report>", sections)
    assert "http" not in text and "src=" not in text and "<script" not in text and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert text.count("<table>") == 2 and text.count("<svg") == 1 and text.count("<h2>") == 2
    assert "<td>a&lt;b&gt;</td><td class=r>1.0</td>" in text and "Errors &amp; costs" in text
    assert "<title>A &lt;report&gt;</title>" in text and "color-scheme: light dark" in text
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n")
    svg = sections[0].parts[2].svg()
    assert "xmlns" not in svg and "xlink" not in svg and svg.count("currentColor") > 3
    assert re.findall(r'href="(?!#)', svg) == []
    assert " id=" not in svg  # two figures of a page would share it


def test_a_figure_is_the_same_text_twice(sections):
    assert Figure("", line_chart).svg() == sections[0].parts[2].svg()


def test_markdown_has_the_same_tables(sections):
    lines = html_page.markdown("A report", sections).splitlines()
    start = lines.index("Errors & costs:")
    assert lines[start + 2 : start + 6] == ["| net | error, % |", "| --- | --: |", "| a<b> | 1.0 |", "| c\\|d | 2.0 |"]
    assert lines[0] == "# A report" and "## Two" in lines and "Some text." in lines


def test_a_terminal_shows_cells_as_they_are():
    console = Console(width=60, file=io.StringIO())
    console.print(terminal_table(Table("", ["<net", "error"], [["[bold]x[/bold]", "1 [0, 2]"]])))
    assert re.search(r"net +error *\n.*\n +\[bold\]x\[/bold\] +1 \[0, 2\]", console.file.getvalue())


def test_scores_that_are_no_numbers_miss():
    scores, labels = np.full((4, 10), np.nan, dtype=np.float32), np.arange(4)
    assert metrics.topk_errors(scores, labels).all() and metrics.topk_errors(scores, labels, 5).all()
