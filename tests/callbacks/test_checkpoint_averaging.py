"""Means of checkpoints and the verdict on them."""

import gc
import json
import shutil
import types
from copy import deepcopy
from pathlib import Path
from typing import ClassVar

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import Logger
from PIL import Image

from batch import Batch
from callbacks.checkpoint_averaging import distinct_checkpoints, mean_state_dict, save_averaged_checkpoint
from checkpointing.run_dir import find_checkpoint
from lit_models import LitClassifier
from tests.conftest import DIGITS, HOME, TINY, train_once
from tests.test_ddp import TWO, type_it

LAST, BEST = (HOME / f"configs/overlays/average_{which}.yaml" for which in ("last", "best"))
FEW = ["--trainer.callbacks.count", 3]
EPOCHS = ["--trainer.max_epochs", 3, "--trainer.precision", "32-true"]


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def averaged_runs(tmp_path_factory) -> Path:
    """The folder runs/ of a tiny run of four epochs whose last three are averaged; no test may change it."""
    return train_once(tmp_path_factory, "--config", LAST, *FEW, "--trainer.max_epochs", 4)


@pytest.fixture
def averaged(here, averaged_runs) -> Path:
    """That run, in the working directory."""
    shutil.copytree(averaged_runs, here / "runs")
    return Path("runs/digits/resnet20/version_0")


def test_the_mean_is_that_of_the_last_checkpoints(averaged):
    folder = averaged / "checkpoints"
    states = [read(folder / f"epoch_{epoch}.ckpt")["state_dict"] for epoch in (1, 2, 3)]
    mean = read(folder / "averaged.ckpt")
    for name, value in mean["state_dict"].items():
        if "running" in name:
            continue
        if value.is_floating_point():
            expected = torch.stack([state[name].double() for state in states]).mean(0).float()
            assert value.dtype == states[0][name].dtype and torch.equal(value, expected)
        else:
            assert torch.equal(value, states[-1][name])
    assert mean["lit_classics"]["averaged_from"] == ["epoch_1.ckpt", "epoch_2.ckpt", "epoch_3.ckpt"]
    assert "optimizer_states" not in mean and mean["lit_classics"]["class_names"]


def test_without_batches_the_mean_keeps_the_mean_of_the_statistics(run, averaged):
    folder = averaged / "checkpoints"
    run("validate", "--ckpt_path", averaged, "--config", LAST, *FEW, "--trainer.callbacks.batches", 0)
    states = [read(folder / f"epoch_{epoch}.ckpt")["state_dict"] for epoch in (1, 2, 3)]
    kept, recomputed = (read(folder / f"{stem}.ckpt")["state_dict"] for stem in ("averaged", "averaged-1"))
    for name in (name for name in kept if "running" in name):
        expected = torch.stack([state[name].double() for state in states]).mean(0).float()
        assert torch.equal(kept[name], expected) and not torch.equal(kept[name], recomputed[name])
    assert torch.equal(kept["net.fc.weight"], recomputed["net.fc.weight"])


def test_its_statistics_are_those_of_the_whole_training_set(averaged):
    """Of noise that is not augmented: the first BatchNorm sees the same values in every pass."""
    import datamodules

    data = datamodules.Synthetic(classes=6, size=16, train_size=32, val_size=8, test_size=11, batch_size=8)
    data.setup("fit")
    images = data.on_after_batch_transfer(Batch(data.train_set.images, data.train_set.labels), 0).images
    state = read(averaged / "checkpoints/averaged.ckpt")["state_dict"]
    values = torch.nn.functional.conv2d(images.double(), state["net.conv1.weight"].double(), padding=1)
    values = values.transpose(0, 1).flatten(1)
    assert torch.allclose(state["net.bn1.running_mean"].double(), values.mean(1), atol=1e-5)
    assert torch.allclose(state["net.bn1.running_var"].double(), values.var(1), rtol=1e-4)


def test_the_verdict_is_what_validate_finds(run, averaged, capsys):
    content = json.loads((averaged / "averaging.json").read_text())
    rows = {row["label"]: row for row in content["results"]}
    assert list(rows) == ["last", "best", "averaged", "averaged, BatchNorm recomputed", "ensemble of the 3"]
    assert content["members"] == ["epoch_1.ckpt", "epoch_2.ckpt", "epoch_3.ckpt"] and content["choice"] == "last"
    for name, row in (("last", "last"), ("best", "best"), ("averaged", "averaged, BatchNorm recomputed")):
        run("validate", "--ckpt_path", averaged / f"checkpoints/{name}.ckpt")
        printed = capsys.readouterr().out.rpartition("Validated")[2]
        assert (
            f"val/loss {rows[row]['loss']:.4f}" in printed
            and f"val/top1_error {rows[row]['top1_error']:.4f}" in printed
        )


def test_a_checkpoint_averaged_with_itself_is_unchanged(averaged):
    folder = averaged / "checkpoints"
    state = read(folder / "last.ckpt")["state_dict"]
    for name, value in mean_state_dict([folder / "last.ckpt"] * 3).items():
        assert torch.equal(value, state[name]), name


def test_averaging_goes_over_a_finished_run_and_keeps_the_older_mean(run, averaged, capsys):
    first = (averaged / "averaging.json").read_text()
    run("validate", "--ckpt_path", averaged, "--config", LAST, *FEW)
    assert "Averaging" in capsys.readouterr().out
    new, old = (read(averaged / f"checkpoints/{name}.ckpt")["state_dict"] for name in ("averaged", "averaged-1"))
    for name, value in new.items():
        assert torch.allclose(value, old[name], atol=1e-5), name
    assert json.loads(first)["members"] == json.loads((averaged / "averaging.json").read_text())["members"]


def test_the_best_are_those_of_lowest_validation_error(run, averaged):
    run("validate", "--ckpt_path", averaged, "--config", BEST, "--trainer.callbacks.count", 2)
    content = json.loads((averaged / "averaging.json").read_text())
    assert content["choice"] == "best" and len(content["members"]) == 2
    import csv

    with (averaged / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/top1_error"]]
    order = sorted(range(4), key=lambda epoch: (float(rows[epoch]["val/top1_error"]), float(rows[epoch]["val/loss"])))
    assert content["members"] == [f"epoch_{epoch}.ckpt" for epoch in sorted(order[:2])]


def test_averaged_weights_can_be_tested_and_not_resumed(run, fails, averaged):
    run("test", "--ckpt_path", averaged / "checkpoints/averaged.ckpt")
    assert (averaged / "test-averaged-center.json").is_file()
    sentence = fails("fit", "--ckpt_path", averaged / "checkpoints/averaged.ckpt", "--trainer.max_epochs", 9)
    assert "averaged.ckpt holds weights alone" in sentence
    assert find_checkpoint(averaged, "fit").stem == "last"


def test_averaging_changes_nothing_of_the_training(run, here, averaged):
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 4, "--run_name", "a/b")
    with_it, without = (read(folder / "checkpoints/last.ckpt") for folder in (averaged, Path("runs/a/b/version_0")))
    assert all(torch.equal(value, without["state_dict"][name]) for name, value in with_it["state_dict"].items())


def test_without_validation_images_there_is_a_mean_and_no_verdict(run, fails, here, capsys):
    run("fit", "--config", DIGITS, "--config", LAST, *FEW, *TINY, "--data.val_size", 0)
    folder = Path("runs/digits/resnet20/version_0")
    assert (folder / "checkpoints/averaged.ckpt").is_file() and not (folder / "averaging.json").exists()
    assert "no validation images to compare" in capsys.readouterr().out
    assert "cannot tell which checkpoints are best" in fails(
        "fit", "--config", DIGITS, "--config", BEST, *TINY, "--data.val_size", 0
    )


def test_too_few_checkpoints(run, fails, tiny_run):
    assert "has 1 checkpoint" in fails(
        "validate",
        "--ckpt_path",
        shutil.copytree(tiny_run, "alone/version_0", ignore=shutil.ignore_patterns("best*")),
        "--config",
        LAST,
    )
    flags = ["--trainer.callbacks+=callbacks.CheckpointAveraging"]
    assert "would have fewer than 5 checkpoints to average" in fails("fit", "--config", DIGITS, *TINY, *flags)
    assert "count is 1: it must be at least 2" in fails(
        "fit", "--config", DIGITS, *TINY, "--config", LAST, "--trainer.callbacks.count", 1
    )


def test_averaging_goes_over_a_run_on_photos_with_a_val_folder(run, here):
    """Whose training images `validate` does not list by itself."""
    for place in range(12):
        path = here / "photos" / ("train", "val")[place % 2] / ("cat", "dog")[place % 4 // 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 50), 60).convert("RGB").save(path)
    photos = ["--data", "datamodules.ImageNet", "--data.size", 16, "--data.batch_size", 2, "--data.num_workers", 0]
    run("fit", "--config", DIGITS, "--config", LAST, *photos, "--data.root", here / "photos", *FEW, *EPOCHS)
    folder = Path("runs/digits/resnet20/version_0")
    run("validate", "--ckpt_path", folder, "--config", LAST, *FEW)
    assert (folder / "checkpoints/averaged-1.ckpt").is_file() and (folder / "averaging.json").is_file()


def test_a_dense_net_takes_no_checkpoints(fails, averaged):
    dense = ["--data.protocol", "dense"]
    assert "leave out the protocol dense" in fails("validate", "--ckpt_path", averaged, "--config", LAST, *FEW, *dense)


def test_a_short_run_is_not_averaged_and_not_lost(run, here, capsys):
    run("fit", "--config", DIGITS, "--config", LAST, *TINY, "--trainer.max_epochs", 2)
    assert "Not averaged:" in capsys.readouterr().out
    assert Path("runs/digits/resnet20/version_0/checkpoints/last.ckpt").is_file()


@pytest.mark.slow
def test_two_processes_average_alike(here, averaged):
    done = type_it("validate", "--ckpt_path", averaged, "--config", LAST, *FEW, *TWO)
    assert done.returncode == 0, done.stderr
    new, old = (read(averaged / f"checkpoints/{name}.ckpt")["state_dict"] for name in ("averaged", "averaged-1"))
    for name, value in new.items():
        assert torch.allclose(value, old[name], rtol=1e-3, atol=1e-4) or "running" in name, name


def test_kept_checkpoints_are_one_of_each_step(averaged):
    names = [path.name for path in distinct_checkpoints(averaged / "checkpoints")]
    assert names == [f"epoch_{epoch}.ckpt" for epoch in range(4)]
    paths = distinct_checkpoints(averaged / "checkpoints")
    save_averaged_checkpoint(read(paths[0])["state_dict"], paths[:2])
    assert [path.name for path in distinct_checkpoints(averaged / "checkpoints")] == names


def reachable(root: object) -> list[object]:
    """All objects that the object holds, directly or not, without classes, modules and functions' globals."""
    found: dict[int, object] = {}
    left = [root]
    while left:
        each = left.pop()
        if id(each) not in found and not isinstance(each, (type, types.ModuleType, types.FunctionType)):
            found[id(each)] = each
            left += gc.get_referents(each)
    return list(found.values())


class CopyModel(pl.Callback):
    """Copies the model as EMAWeightAveraging does, and keeps what only the copy holds."""

    new: ClassVar[list[object]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        copied = deepcopy(pl_module)
        before = {id(each) for each in reachable(pl_module)}
        CopyModel.new = [each for each in reachable(copied) if id(each) not in before]
        assert all(torch.equal(value, copied.state_dict()[name]) for name, value in pl_module.state_dict().items())


def test_a_copy_of_the_model_holds_neither_data_nor_parser_nor_loggers(run, here):
    run(
        "fit",
        "--config",
        DIGITS,
        *TINY,
        "--trainer.max_epochs",
        1,
        "--trainer.callbacks+=tests.callbacks.test_checkpoint_averaging.CopyModel",
    )
    kinds = (pl.LightningDataModule, pl.Trainer, ArgumentParser, Logger)
    assert len(CopyModel.new) > 100 and not [each for each in CopyModel.new if isinstance(each, kinds)]
    tensors = {each.data_ptr(): each.numel() for each in CopyModel.new if isinstance(each, torch.Tensor)}
    model = LitClassifier.load_from_checkpoint("runs/digits/resnet20/version_0/checkpoints/last.ckpt")
    held = sum(value.numel() for value in model.state_dict().values())
    assert held <= sum(tensors.values()) < 1.1 * held
