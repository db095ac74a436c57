"""Two processes train as one: losses, weights, statistics, metrics, errors and predictions."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import DIGITS, HOME
from tests.test_ddp import OVERLAY, TWO, type_it

NOISE = ["--data", "tests.dropout_net.AugmentedNoise", "--data.classes", 6, "--data.size", 16, "--data.val_size", 9]
NOISE += ["--data.train_size", 28, "--data.test_size", 11, "--data.batch_size", 8]
FIT = ["fit", "--config", DIGITS, *NOISE, "--trainer.precision", "64-true", "--trainer.max_epochs", 2]
FIT += ["--trainer.log_every_n_steps", 1, "--model.optimizer.lr", 0.08]  # scaled by the batch: 0.01
DENSE = ["--model.depth", 22, "--model.dropout", 0.2, "--model.memory_efficient", "true"]  # recomputes dropouts
NASNET = ["--model.variant", "cifar", "--model.repeats", 1, "--model.filters", 8, "--data.size", 32]
NASNET += ["--data.train_size", 12]
GOOGLENET = ["--model", "lit_models.LitGoogLeNet", "--model.stem", "cifar"]
SHAKE_SHAKE = ["--model", "lit_models.LitShakeShake", "--model.width", 32]
NETS = {
    "resnet": [],
    "resnet_dropout": ["--model.dropout", 0.5],
    "selu": ["--model.norm", "none", "--model.activation", "selu", "--model.dropout", 0.3],
    "googlenet": GOOGLENET,
    "googlenet_bn": [*GOOGLENET, "--model.variant=batch_norm"],
    "vgg": ["--model", "lit_models.LitVGG", "--model.variant", "A", "--model.head", "cifar", "--data.size", 32],
    "densenet": ["--model", "lit_models.LitDenseNet", *DENSE],
    "nasnet": ["--model", "lit_models.LitNASNet", *NASNET],
    "shake_shake": SHAKE_SHAKE,
    "shake_batch": [*SHAKE_SHAKE, "--model.level", "batch"],
}
TESTED = {"resnet", "resnet_dropout", "googlenet", "shake_shake"}  # by two processes and by one


def fit_twice(
    run: Any, *flags: object, configs: Sequence[str] = (), equal: bool = True, record: bool = True
) -> tuple[Path, Path]:
    """Train in two processes and in one; the run directories.

    Args:
        run: the fixture.
        flags: of both.
        configs: flags that name the overlays of both.
        equal: whether the draws are those of one process.
        record: whether the losses are written; a checkpoint may not name the file.
    """
    for name, ddp in (("two", OVERLAY), ("one", ["--trainer.callbacks+=callbacks.DDP"])):
        losses = ["--trainer.callbacks+=tests.dying_process.RecordLosses", f"--trainer.callbacks.path=losses_{name}"]
        as_one = ["--trainer.callbacks.equal_to_one_process", str(equal).lower()]
        command = [*FIT, *configs, *ddp, *as_one, *flags, *(losses if record else []), "--run_name", name]
        if name == "two":
            done = type_it(*command)
            assert done.returncode == 0, done.stderr
        else:
            run(*command)
    return Path("runs/two/version_0"), Path("runs/one/version_0")


def weights_difference(a: Path, b: Path) -> float:
    """The largest difference between the weights and buffers of two checkpoints."""
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (a, b)]
    assert states[0].keys() == states[1].keys()
    return max(float((x.double() - y.double()).abs().max()) for x, y in zip(*(s.values() for s in states), strict=True))


def read_metrics(run: Path) -> list[dict[str, float]]:
    with open(run / "metrics.csv") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    speeds = ("images_per_s", "scaling_efficiency")
    return [{name: value for name, value in row.items() if not any(each in name for each in speeds)} for row in rows]


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


def assert_equal_tests(run: Any, two: Path, one: Path) -> None:
    """Test the best checkpoint of a run in two processes and that of the other in one: errors and predictions."""
    done = type_it("test", "--ckpt_path", two, "--allow", "tests", *TWO)
    assert done.returncode == 0, done.stderr
    run("test", "--ckpt_path", one, "--allow", "tests")
    results = [json.loads((each / "test-best-center.json").read_text()) for each in (two, one)]
    assert results[0]["images"] == results[1]["images"] == 11
    for name, value in results[1]["metrics"].items():
        assert results[0]["metrics"][name] == (pytest.approx(value, rel=1e-6) if name == "test/loss" else value)
    files = [np.load(each / "predictions-best-center.npz") for each in (two, one)]
    for name in ("labels", "indices"):
        assert np.array_equal(files[0][name], files[1][name])
    np.testing.assert_allclose(*(file["log_probabilities"] for file in files), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_two_processes_train_as_one(run, here, net):
    two, one = fit_twice(run, *NETS[net])
    assert_equal_runs(two, one)
    if net in TESTED:
        assert_equal_tests(run, two, one)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["resnet", "shake_shake"])  # crops and colours alone, and a net that draws
def test_with_draws_of_their_own_they_do_not(run, here, net):
    two, one = fit_twice(run, *NETS[net], equal=False)
    with pytest.raises(AssertionError, match="Mismatched elements: [1-9]"):
        assert_equal_runs(two, one)
    assert weights_difference(two / "checkpoints/last.ckpt", one / "checkpoints/last.ckpt") > 1e-4


@pytest.mark.slow
def test_the_overlay_with_one_flag_trains_digits_as_one_process(here):
    """At 32 images on a device, where BatchNorm would not be synchronised otherwise."""
    fit = ["fit", "--config", DIGITS, *OVERLAY, "--trainer.callbacks.equal_to_one_process", "true"]
    fit += ["--trainer.max_epochs", 1, "--trainer.limit_train_batches", 8, "--trainer.precision", "64-true"]
    fit += ["--model.optimizer.lr", 0.01]  # at 0.1 the net multiplies a rounding error by ten with each of these steps
    refused = type_it(*fit)
    assert refused.returncode == 1 and refused.stderr.count("error: ") == 1
    assert "give --data.drop_last true" in refused.stderr
    refused = type_it(*fit, "--data.drop_last", "true", "--trainer.callbacks.sync_batchnorm", "false")
    assert "give --trainer.callbacks.sync_batchnorm true" in refused.stderr
    assert not list(here.rglob("version_*"))
    for devices in (2, 1):
        done = type_it(*fit, "--data.drop_last", "true", "--trainer.devices", devices)
        assert done.returncode == 0, done.stderr
        assert ("draws of one process" in done.stdout) == (devices == 2)
    two, one = (here / f"runs/digits/resnet20/version_{number}/checkpoints/last.ckpt" for number in (0, 1))
    assert weights_difference(two, one) < 1e-9


AVERAGING = ["--trainer.max_epochs", 6]
EXTRAS = {
    "accumulation": ([], ["--trainer.accumulate_grad_batches", 2]),
    "precise_bn": ([], ["--trainer.callbacks+=callbacks.PreciseBN", "--trainer.callbacks.batches", 3]),
    "ema": (["ema"], []),
    "swa": (["swa"], ["--trainer.max_epochs", 4]),
    "average_last": (["average_last"], AVERAGING),
    "average_best": (["average_best"], AVERAGING),
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_two_processes_average_as_one(run, here, extra):
    names = ({"filename": "best", "monitor": "val/top1_error"}, {"filename": "last"})
    savers = [{"class_path": "ModelCheckpoint", "init_args": arguments} for arguments in names]
    Path("without_decay.yaml").write_text(json.dumps({"trainer": {"callbacks": savers}}))  # which SWA is refused beside
    overlays, flags = EXTRAS[extra]
    configs = ["--config=without_decay.yaml"] * (extra == "swa")
    configs += [f"--config={HOME}/configs/overlays/{name}.yaml" for name in overlays]
    two, one = fit_twice(run, "--trainer.max_epochs", 3, *flags, configs=configs)
    assert_equal_runs(two, one)
    if extra.startswith("average"):
        assert weights_difference(*(each / "checkpoints/averaged.ckpt" for each in (two, one))) < 1e-9
        results = [json.loads((each / "averaging.json").read_text())["results"] for each in (two, one)]
        for of_two, of_one in zip(*results, strict=True):
            assert of_two == pytest.approx(of_one, abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_resumed_inside_an_epoch_two_processes_or_one_end_as_one(run, here, devices):
    saver = "{class_path: ModelCheckpoint, init_args: {filename: inside, every_n_train_steps: 6, save_top_k: -1}}"
    two, one = fit_twice(run, "--model.dropout", 0.5, f"--trainer.callbacks+={saver}", record=False)
    inside = next((two / "checkpoints").glob("inside*.ckpt"))
    state = torch.load(inside, weights_only=True)
    assert state["global_step"] == 6  # of 4 in an epoch
    done = type_it("fit", "--ckpt_path", inside, "--allow", "tests", "--trainer.devices", devices)
    assert done.returncode == 0, done.stderr
    assert weights_difference(two / "checkpoints/last.ckpt", one / "checkpoints/last.ckpt") < 1e-9
