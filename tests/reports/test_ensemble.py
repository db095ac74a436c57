"""Ensembles as merges of prediction files."""

import json
from pathlib import Path

import numpy as np
import pytest

from checkpointing.predictions import Predictions
from reports import ensemble
from reports.ensemble import best_members, error_by_size, merge, select_greedily
from tests.conftest import DIGITS, TINY

rng = np.random.default_rng(0)
LABELS = rng.integers(10, size=400)


def voice(skill: float, seed: int, labels: np.ndarray = LABELS) -> Predictions:
    """A member that is right more often the higher its skill is."""
    scores = np.random.default_rng(seed).normal(size=(len(labels), 10))
    scores[np.arange(len(labels)), labels] += skill
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return Predictions(
        indices=np.arange(len(labels)), files=np.array([], dtype=str), labels=labels,
        log_probabilities=scores.astype(np.float32), class_names=np.array([str(k) for k in range(10)]),
        protocol="center", views=1, checkpoint=f"{seed}.ckpt", checkpoint_hash=str(seed), data_hash="data",
        complete=True,
    )  # fmt: skip


MEMBERS = [voice(1.5, seed) for seed in range(7)]


def merged(members, mean="arithmetic", weights=None) -> np.ndarray:
    return merge(members, mean, weights).log_probabilities


def log_probs(members) -> list[np.ndarray]:
    return [member.log_probabilities for member in members]


def error(scores: np.ndarray) -> float:
    return float((scores.argmax(1) != LABELS).mean())


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_one_member_and_copies_of_it_are_the_member(mean):
    alone = MEMBERS[0].log_probabilities
    assert np.array_equal(merged(MEMBERS[:1], mean), alone)
    assert np.allclose(merged(MEMBERS[:1] * 4, mean), alone, atol=1e-6)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_order_does_not_matter(mean):
    assert np.array_equal(merged(MEMBERS, mean), merged(MEMBERS[::-1], mean))
    weights = [1.0, 2.0, 0.5, 0.0, 1.0, 3.0, 1.0]
    assert np.array_equal(merged(MEMBERS, mean, weights), merged(MEMBERS[::-1], mean, weights[::-1]))


def test_the_means_are_what_they_are_called():
    probabilities = np.stack([np.exp(member.log_probabilities.astype(np.float64)) for member in MEMBERS])
    assert np.allclose(np.exp(merged(MEMBERS)), probabilities.mean(0), atol=1e-6)
    geometric = np.exp(np.log(probabilities).mean(0))
    assert np.allclose(np.exp(merged(MEMBERS, "geometric")), geometric / geometric.sum(1, keepdims=True), atol=1e-6)
    weights = [3, 1, 0, 0, 0, 0, 0]
    assert np.allclose(
        np.exp(merged(MEMBERS, weights=weights)), (3 * probabilities[0] + probabilities[1]) / 4, atol=1e-6
    )
    assert error(merged(MEMBERS)) < min(error(member.log_probabilities) for member in MEMBERS)


def test_the_curve_falls_and_ends_at_the_whole_ensemble():
    rows = error_by_size(log_probs(MEMBERS), LABELS)
    assert [row["members"] for row in rows] == list(range(1, 8))
    assert rows[0]["top1_error"] == pytest.approx(np.mean([error(member.log_probabilities) for member in MEMBERS]))
    assert rows[-1]["least"] == rows[-1]["most"] == pytest.approx(error(merged(MEMBERS)))
    assert rows[0]["top1_error"] > rows[2]["top1_error"] > rows[-1]["top1_error"]


def test_greedy_selection_takes_the_good_and_leaves_the_bad():
    validation = [voice(2, 1), voice(-3, 2), voice(2, 3), voice(-3, 4)]
    steps = select_greedily(log_probs(validation), LABELS)
    assert sorted(step.member for step in steps) == [0, 1, 2, 3] and {step.member for step in steps[:2]} == {0, 2}
    assert best_members(steps) == [0, 2]
    assert steps[1].error == pytest.approx(error(merged([validation[0], validation[2]])))


@pytest.fixture
def families(run, here) -> list[Path]:
    """A ResNet, a VGG and a GoogLeNet, trained for an epoch on the same noise."""
    resnet = ["fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 1]
    sgd = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.01, "--data.size", 32]
    run(*resnet, "--data.size", 32)
    run(
        *resnet,
        "--model",
        "lit_models.LitVGG",
        "--model.variant",
        "A",
        "--model.head",
        "cifar",
        *sgd,
        "--run_name",
        "digits/vgg",
    )
    run(*resnet, "--model", "lit_models.LitGoogLeNet", "--model.stem", "cifar", *sgd, "--run_name", "digits/googlenet")
    return [Path("runs/digits") / name for name in ("resnet20", "vgg", "googlenet")]


def test_families_and_protocols_mix(families, capsys):
    ensemble.main(["--members", *map(str, families), "--protocols", "center", "ten_crop", "dense"])
    printed = capsys.readouterr().out
    folder = Path("runs/digits/ensemble/version_0")
    assert f"Wrote {folder}" in printed and "Test 3 of 3" in printed
    content = json.loads((folder / "ensemble.json").read_text())
    assert [row["protocol"] for row in content["members"]] == ["center", "ten_crop", "dense"]
    assert content["ensemble"]["views"] == 1 + 10 + 2 and content["images"] == 11
    kept = [
        Predictions.read(path / f"version_0/predictions-best-{protocol}.npz")
        for path, protocol in zip(families, ("center", "ten_crop", "dense"), strict=True)
    ]
    written = Predictions.read(folder / "predictions-ensemble.npz")
    assert np.allclose(written.log_probabilities, merged(kept), atol=1e-6)
    assert content["ensemble"]["top1_error"] == pytest.approx((merged(kept).argmax(1) != kept[0].labels).mean())
    page = (folder / "ensemble.html").read_text()
    assert f"The ensemble has {content['ensemble']['top1_error']:.2%} top-1 error" in page
    assert "googlenet" in page and 'class="chart"' in page
    written = ["--html", "a.html", "--markdown", "a.md", "--latex", "a.tex", "--json", "a.json", "--svg", "figures"]
    greedy = ["--members", *map(str, families), "--protocols", "center", "ten_crop", "dense", "--greedy"]
    ensemble.main([*greedy, *written])
    assert len(list(Path("figures").iterdir())) == 2 and r"\begin{table}" in Path("a.tex").read_text()
    assert "| digits/vgg/version_0 | ten_crop |" in Path("a.md").read_text()
    printed = capsys.readouterr().out
    assert "Test 1" not in printed and "Validation 3 of 3" in printed
    content = json.loads(Path("runs/digits/ensemble/version_1/ensemble.json").read_text())
    assert content == json.loads(Path("a.json").read_text())
    assert len(content["greedy"]) == 3 and sum(row["weight"] for row in content["members"]) >= 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "No checkpoints are given"),
        (["--members", "nowhere"], "There is no checkpoint nowhere"),
        (["--members", "a", "b", "--protocols", "center", "dense", "dense"], "2 members and 3 protocols"),
        (["--members", "a", "--greedy", "--weights", "1"], "--weights and --greedy both say"),
        *(
            (["--members", "a", "b", "c", "--weights", *weights.split()], "are not for 3 members: give a number of at")
            for weights in ("1 2", "1 -1 3", "0 0 0", "1 nan 1", "1 inf 1")
        ),
        (["--members", "a", "--protocol", "dense"], "There is no argument --protocol here. Did you mean --protocols?"),
        (["--members", "a", "--mean", "harmonic"], "invalid choice: 'harmonic'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(here, capsys, args, message):
    with pytest.raises(SystemExit) as stop:
        ensemble.main(args)
    assert str(stop.value.code).startswith("error: ") and message in stop.value.code
    assert not Path("runs").exists()
