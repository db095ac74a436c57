"""Two processes train as one: losses, weights, statistics, metrics, errors and predictions."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import DIGITS, HOME
from tests.test_ddp import TWO, type_it

NOISE = ["--data", "tests.dropout_net.AugmentedNoise", "--data.classes", 6, "--data.size", 16, "--data.val_size", 9]
NOISE += ["--data.train_size", 28, "--data.test_size", 11, "--data.batch_size", 8]
FIT = ["fit", "--config", DIGITS, *NOISE, "--trainer.precision", "64-true", "--trainer.max_epochs", 2]
FIT += ["--trainer.log_every_n_steps", 1, "--model.optimizer.lr", 0.01]
SYNC = ["--trainer.sync_batchnorm", "true"]
DENSE = ["--model.depth", 22, "--model.dropout", 0.2, "--model.memory_efficient", "true"]  # recomputes dropouts
NASNET = [
    "--model.variant",
    "cifar",
    "--model.repeats",
    1,
    "--model.filters",
    8,
    "--data.size",
    32,
    "--data.train_size",
    12,
]
NETS = {
    "resnet": SYNC,
    "resnet_dropout": [*SYNC, "--model.dropout", 0.5],
    "selu": ["--model.norm", "none", "--model.activation", "selu", "--model.dropout", 0.3],
    "googlenet": ["--model", "lit_models.LitGoogLeNet", "--model.stem", "cifar"],
    "googlenet_bn": [
        "--model",
        "lit_models.LitGoogLeNet",
        "--model.stem",
        "cifar",
        "--model.variant=batch_norm",
        *SYNC,
    ],
    "vgg": ["--model", "lit_models.LitVGG", "--model.variant", "A", "--model.head", "cifar", "--data.size", 32],
    "densenet": ["--model", "lit_models.LitDenseNet", *DENSE, *SYNC],
    "nasnet": ["--model", "lit_models.LitNASNet", *NASNET, *SYNC],
    "shake_shake": ["--model", "lit_models.LitShakeShake", "--model.width", 32, *SYNC],
    "shake_batch": ["--model", "lit_models.LitShakeShake", "--model.width", 32, "--model.level", "batch", *SYNC],
}


def fit_twice(run: Any, *flags: object) -> tuple[Path, Path]:
    """Train in two processes and in one; the run directories."""
    for name, more in (("two", TWO), ("one", ["--trainer.devices", 1])):
        record = ["--trainer.callbacks+=tests.dying_process.RecordLosses", f"--trainer.callbacks.path=losses_{name}"]
        command = [*FIT, *flags, "--trainer.callbacks+=callbacks.EqualToOneProcess", *record, *more]
        if name == "two":
            done = type_it(*command, "--run_name", name)
            assert done.returncode == 0, done.stderr
        else:
            run(*command, "--run_name", name)
    return Path("runs/two/version_0"), Path("runs/one/version_0")


def weights_difference(a: Path, b: Path) -> float:
    """The largest difference between the weights and buffers of two checkpoints."""
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (a, b)]
    assert states[0].keys() == states[1].keys()
    return max(float((x.double() - y.double()).abs().max()) for x, y in zip(*(s.values() for s in states), strict=True))


def read_metrics(run: Path) -> list[dict[str, float]]:
    with open(run / "metrics.csv") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [{name: value for name, value in row.items() if "images_per_s" not in name} for row in rows]


def assert_equal_runs(two: Path, one: Path) -> None:
    losses = [json.loads(Path(f"losses_{name}").read_text()) for name in ("two", "one")]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-9)
    for name in ("last", "best"):
        assert weights_difference(two / f"checkpoints/{name}.ckpt", one / f"checkpoints/{name}.ckpt") < 1e-9
    for of_two, of_one in zip(read_metrics(two), read_metrics(one), strict=True):
        assert of_two.keys() == of_one.keys()
        for name, value in of_one.items():
            # Evaluation computes log-probabilities in float32
            assert of_two[name] == pytest.approx(value, rel=1e-6 if name == "val/loss" else 1e-9, abs=1e-9), name


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_two_processes_train_as_one(run, here, net):
    two, one = fit_twice(run, *NETS[net])
    assert_equal_runs(two, one)


EXTRAS = {
    "accumulation": ["--trainer.accumulate_grad_batches", 2],
    "precise_bn": ["--trainer.callbacks+=callbacks.PreciseBN", "--trainer.callbacks.batches", 3],
    "ema": [f"--config={HOME}/configs/overlays/ema.yaml"],
    "swa": ["--config=without_decay.yaml", f"--config={HOME}/configs/overlays/swa.yaml", "--trainer.max_epochs", 4],
    "average_last": [f"--config={HOME}/configs/overlays/average_last.yaml", "--trainer.callbacks.count", 2],
    "average_best": [f"--config={HOME}/configs/overlays/average_best.yaml", "--trainer.callbacks.count", 2],
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_two_processes_average_as_one(run, here, extra):
    names = ({"filename": "best", "monitor": "val/top1_error"}, {"filename": "last"})
    savers = [{"class_path": "ModelCheckpoint", "init_args": arguments} for arguments in names]
    Path("without_decay.yaml").write_text(json.dumps({"trainer": {"callbacks": savers}}))  # which SWA is refused beside
    two, one = fit_twice(run, *SYNC, "--trainer.max_epochs", 3, *EXTRAS[extra])
    assert_equal_runs(two, one)
    if extra.startswith("average"):
        assert weights_difference(*(each / "checkpoints/averaged.ckpt" for each in (two, one))) < 1e-9
        results = [json.loads((each / "averaging.json").read_text())["results"] for each in (two, one)]
        for of_two, of_one in zip(*results, strict=True):
            assert of_two == pytest.approx(of_one, abs=2e-6) or of_two["label"] != of_one["label"]


@pytest.mark.slow
def test_two_processes_test_as_one(run, here):
    two, one = fit_twice(run, *SYNC)
    done = type_it("test", "--ckpt_path", two, "--allow", "tests", *TWO)
    assert done.returncode == 0, done.stderr
    run("test", "--ckpt_path", one, "--allow", "tests")
    results = [json.loads((each / "test-best-center.json").read_text()) for each in (two, one)]
    assert results[0]["images"] == results[1]["images"] == 11
    assert results[0]["metrics"] == pytest.approx(results[1]["metrics"], rel=1e-6)
    files = [np.load(each / "predictions-best-center.npz") for each in (two, one)]
    for name in ("labels", "indices"):
        assert np.array_equal(files[0][name], files[1][name])
    np.testing.assert_allclose(*(file["log_probabilities"] for file in files), rtol=1e-6, atol=1e-6)
