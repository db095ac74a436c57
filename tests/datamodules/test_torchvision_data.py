"""Data sets of torchvision, and data modules of the user's own, through the command line."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

from datamodules import TorchvisionData
from datamodules.crops import CenterCrop
from datamodules.decode import EncodedImage
from errors import UserError
from tests.datamodules.test_imagenet import write

FAKE = """
model:
  class_path: tests.dropout_net.LitDropoutNet
  init_args:
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
data:
  class_path: datamodules.TorchvisionData
  init_args:
    train: {class_path: torchvision.datasets.FakeData, init_args: {size: 20, image_size: [3, 12, 15], num_classes: 3}}
    test: {class_path: torchvision.datasets.FakeData, init_args: {size: 7, image_size: [3, 12, 15], num_classes: 3}}
    size: 8
    num_classes: 3
    batch_size: 6
trainer: {max_epochs: 1, accelerator: cpu}
"""
PLAIN = ["--model", "tests.dropout_net.LitDropoutNet", "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr"]
PLAIN += ["0.1", "--data", "tests.plain_data.PlainData", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]


class Named(FakeData):
    """Images of several sizes and modes, and classes with names."""

    classes = ("ant", "bee")

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        image = image.resize((20 + index, 30 - index)).convert("L" if index % 2 else "RGBA")
        return image, int(label)


def fake(size: int = 20, kind: type[FakeData] = Named, **kwargs) -> FakeData:
    return kind(size, (3, 24, 30), 2, **kwargs)


def test_a_data_set_of_torchvision_trains_is_tested_and_predicts(run, here, capsys):
    experiment = here / "fake" / "net.yaml"
    experiment.parent.mkdir()
    experiment.write_text(FAKE)
    run("fit", "--config", experiment)
    run("test", "--allow", "tests", "--ckpt_path", "runs/fake/net")
    folder = Path("runs/fake/net/version_0")
    result = json.loads((folder / "test-best-center.json").read_text())
    assert (result["images"], result["partial"]) == (7, False)
    assert (folder / "predictions-best-center.npz").is_file()
    record = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["lit_classics"]
    assert record["class_names"] == ["0", "1", "2"] and record["preprocessing"]["crop"] == 8
    Image.effect_noise((40, 30), 50).convert("RGB").save(here / "photo.png")
    run("predict", "--allow", "tests", "--ckpt_path", "runs/fake/net", "--data.paths", here / "photo.png")
    assert next(csv.DictReader((here / "predictions.csv").open()))["class_1"] in {"0", "1", "2"}


def test_three_lines_of_python_wrap_a_data_set():
    class Ants(TorchvisionData):
        def __init__(self, **kwargs):
            super().__init__(fake(20), fake(6), size=16, **kwargs)

    data = Ants(batch_size=5, val_size=0.25)
    assert data.class_names == ["ant", "bee"] and data.num_classes == 2 and data.batch_size == 5
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set)) == (15, 5) and not hasattr(data, "test_set")
    again = Ants(val_size=5)
    again.setup("fit")
    assert torch.equal(data.val_set.images, again.val_set.images)  # seeded
    other = Ants(val_size=5, split_seed=1)
    other.setup("fit")
    assert not torch.equal(data.val_set.images, other.val_set.images)
    everything = torch.cat([data.train_set.labels, data.val_set.labels])
    shares = [part.labels.float().mean() for part in (data.train_set, data.val_set)]
    assert everything.shape == (20,) and abs(shares[0] - shares[1]) < 0.2  # stratified
    data.setup("test")
    assert data.test_set.images.shape == (6, 3, 16, 16) and data.test_set.images.dtype == torch.uint8


def test_images_are_cropped_as_those_of_files_are():
    data = TorchvisionData(fake(), fake(9), size=16)
    data.setup("test")
    for index in range(9):
        file = io.BytesIO()
        data.test_data[index][0].convert("RGB").save(file, "png")
        expected = CenterCrop(16, 16)(EncodedImage(file.getvalue()))
        assert (data.test_set.images[index].int() - expected.int()).abs().max() <= 1


def test_training_images_are_augmented_only_as_told():
    images = torch.randint(256, (64, 3, 8, 8), dtype=torch.uint8)
    plain = TorchvisionData(fake(), fake(), flip=False)
    digits = TorchvisionData(fake(), fake(), hflip_preserves_label=False)
    assert torch.equal(plain.augment(images), images) and torch.equal(digits.augment(images), images)
    flipped = TorchvisionData(fake(), fake(), padding=2).augment(images)
    assert flipped.shape == images.shape and not torch.equal(flipped, images)


@pytest.mark.parametrize(
    ("train", "arguments", "said"),
    [
        (fake(kind=FakeData), {}, "FakeData has no list of classes: give --data.num_classes, two or more"),
        (fake(), {"size": 0}, "size is 0: it must be at least 1"),
        (fake(), {"padding": -1}, "padding is -1: it must be at least 0"),
        (fake(), {"std": (0.1, 0.0, 0.1)}, "every channel's must be above 0"),
        (fake(), {"val_size": 20}, "val_size 20 of 20 training images is 20"),
        (fake(kind=FakeData, transform=ToTensor()), {"num_classes": 2}, "FakeData gives a Tensor, not a PIL image"),
        (FakeData(20, (3, 8, 8), 9), {"num_classes": 2}, "and the data have 2 classes, from 0 on"),
    ],
)
def test_data_sets_that_cannot_be_read_are_refused(train, arguments, said):
    with pytest.raises(UserError, match=said):
        TorchvisionData(train, fake(), **arguments).setup("fit")


def test_images_that_were_replaced_in_place_get_a_result_of_their_own(run, here):
    for folder, seed in (("train", 0), ("test", 1)):
        write(here / "images" / folder / "ant", 5, seed), write(here / "images" / folder / "bee", 5, seed + 10)
    text = FAKE.replace("num_classes: 3", "").replace("size: 8", "val_size: 2\n    size: 8")
    for name in ("train", "test"):
        images = f"{{class_path: torchvision.datasets.ImageFolder, init_args: {{root: {here / 'images' / name}}}}}"
        text = re.sub(rf"^    {name}: .*$", f"    {name}: {images}", text, flags=re.MULTILINE)
    (here / "net.yaml").write_text(text)
    run("fit", "--config", here / "net.yaml", "--run_name", "fake/net")
    test = ["test", "--allow", "tests", "--ckpt_path", "runs/fake/net"]
    folder = Path("runs/fake/net/version_0")
    run(*test)
    own = (folder / "test-best-center.json").read_bytes()
    run(*test, "--data.flip", "false", "--data.padding", 1)
    assert [path.name for path in folder.glob("test-*.json")] == ["test-best-center.json"]
    assert (folder / "test-best-center.json").read_bytes() == own
    run(*test, "--data.size", 9)
    write(here / "images" / "test" / "ant", 5, 30)
    run(*test)
    run(*test, "--data.protocol", "ten_crop")
    others = [json.loads(path.read_text()) for path in folder.glob("test-best-*-*.json")]
    assert sorted(result["protocol"] for result in others) == ["center", "center", "ten_crop"]
    assert not any(result["is_run_data"] for result in others) and json.loads(own)["is_run_data"]
    assert (folder / "test-best-center.json").read_bytes() == own


def test_any_data_module_with_num_classes_fits_and_tests(run, here, fails):
    run("fit", "--run_name", "own/net", *PLAIN)
    folder = Path("runs/own/net/version_0")
    run("test", "--allow", "tests", "--ckpt_path", folder)
    result = json.loads((folder / "test-best-center.json").read_text())
    assert result["images"] == 7 and np.isfinite(result["metrics"]["test/top1_error"])
    assert not list(folder.glob("predictions-*"))
    Image.new("RGB", (9, 9)).save(here / "photo.png")
    said = fails("predict", "--allow", "tests", "--ckpt_path", folder, "--data.paths", here / "photo.png")
    assert "holds no preprocessing" in said and "datamodules.ImageData" in said
