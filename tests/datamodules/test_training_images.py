"""Training on some of the images (`train_images`), and on draws with replacement (`bootstrap`)."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import CIFAR10, Digits, ImageNet
from datamodules.identity import data_hash, make_split
from datamodules.run_files import divide_as_run
from datamodules.samplers import ExactSampler
from errors import UserError
from tests.checkpointing.test_resume import EXPERIMENT, same
from tests.conftest import DIGITS, TINY


def make_digits(**arguments) -> Digits:
    data = Digits(**arguments)
    data.setup("fit")
    return data


def test_training_images_are_stratified_nested_and_the_same_for_every_seed(monkeypatch, capsys):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    few, more = make_digits(train_images=200), make_digits(train_images=400)
    assert (few.train_set.labels.bincount() - 20).abs().max() <= 1
    assert set(few.train_set.indices) < set(more.train_set.indices)
    assert "Data: training on 200 of 1,257 training images, of each class in proportion" in capsys.readouterr().out
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    again = make_digits(train_images=200)
    assert np.array_equal(again.train_set.indices, few.train_set.indices)
    assert len({data_hash(data) for data in (few, more, again, make_digits())}) == 3
    assert len(few.val_set) == 180 and len(few.test_set) == 360


def test_every_class_has_a_training_image():
    data = make_digits(train_images=10)
    assert data.train_set.labels.bincount().tolist() == [1] * 10


def test_cifar10_trains_on_some_of_what_is_not_held_back(cifar):
    data = CIFAR10(cifar, val_size=20, train_images=50)
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set)) == (50, 20)
    assert not set(data.train_set.indices) & set(data.val_set.indices)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "train_images is 0: it must be at least 1."),
        (9, "train_images is 9, and the training images have 10 classes: give at least one image of each."),
        (2000, "train_images is 2,000, and there are 1,257 training images: give at most as many, or leave it out"),
    ],
)
def test_a_number_that_cannot_be_is_refused_in_a_sentence(number, said):
    with pytest.raises(UserError, match=said):
        make_digits(train_images=number)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (16, 16), (number, 0, len(name)))
            image.save(tmp_path / "train" / name / f"{number}.png")
    return tmp_path


def test_of_a_folder_the_same_files_are_trained_on_and_a_resumed_run_knows_the_others(folder):
    data = ImageNet(folder, size=16, val_size=4, train_images=6)
    data.setup("fit")
    names = set(data.train_set.file_names)
    assert len(names) == 6 and not names & set(data.val_set.file_names)
    split = make_split(data)
    assert split is not None and len(split.trained_on) == 16 and split.sample.keys() <= names
    everything = data.list_images(folder / "train")
    assert divide_as_run(everything, split, None, "fit").notes == []
    (folder / "train" / "cat" / "3.png").unlink()  # another file changes nothing but the number of those to choose from
    again = ImageNet(folder, size=16, val_size=4, train_images=6)
    again.setup("fit")
    assert len(names & set(again.train_set.file_names)) >= 5


def epoch_of(seed: int, epoch: int = 0, **options) -> list[int]:
    sampler = ExactSampler(1000, shuffle=True, seed=seed, bootstrap=True, **options)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_a_bootstrap_sample_follows_the_seed_and_is_the_same_in_every_epoch():
    first, second = epoch_of(seed=0), epoch_of(seed=0, epoch=1)
    assert first != second and sorted(first) == sorted(second)
    assert len(first) == 1000
    assert abs(len(set(first)) / 1000 - (1 - np.exp(-1))) < 0.04  # 63 % of the images
    assert sorted(epoch_of(seed=1)) != sorted(first)


def test_processes_share_a_bootstrap_sample():
    whole = epoch_of(seed=0, epoch=2)
    shares = [epoch_of(seed=0, epoch=2, rank=rank, world_size=2) for rank in range(2)]
    assert shares == [whole[::2], whole[1::2]]


def test_validation_images_are_not_drawn(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    data = make_digits(bootstrap=True)
    assert list(data.make_sampler(data.val_set, shuffle=False)) == list(range(180))
    assert len(set(data.make_sampler(data.train_set, shuffle=True))) < 0.7 * 1257
    assert data_hash(data) == data_hash(make_digits())  # runs that differ in their seed alone can be compared


def test_a_resumed_run_goes_on_with_its_sample_to_the_same_bits(run, fails, here):
    path = here / "noise" / "net.yaml"
    path.parent.mkdir()
    path.write_text(EXPERIMENT)
    run("fit", "--config", path, "--trainer.max_epochs", 2, "--data.bootstrap", "true")
    whole, copy = (Path(f"runs/noise/net/version_{number}") for number in (0, 1))
    shutil.copytree(whole, copy)
    step = copy / "checkpoints" / "step-2.ckpt"
    (copy / "checkpoints" / "last.ckpt").unlink()
    said = fails("fit", "--allow", "tests", "--ckpt_path", step, "--data.bootstrap", "false")
    assert "bootstrap is False here, and this run was begun with True: leave it out" in said
    run("fit", "--allow", "tests", "--ckpt_path", step)
    assert same(whole / "checkpoints" / "last.ckpt", copy / "checkpoints" / "last.ckpt")


@pytest.mark.slow
def test_a_test_reads_all_its_images_whatever_was_trained_on(run, fails, here):
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 1, "--data.train_images", 24)
    run("test", "--ckpt_path", "runs/digits/resnet20")
    assert (Path("runs/digits/resnet20/version_0") / "test-best-center.json").exists()
    state = torch.load("runs/digits/resnet20/version_0/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 3  # 24 images in batches of 8
    said = fails("fit", "--ckpt_path", "runs/digits/resnet20", "--trainer.max_epochs", 2, "--data.train_images", 16)
    assert "train_images is 16 here, and this run was begun with 24" in said
