"""Small pictures of a run's test images: the right ones, or none. Nothing is downloaded, no stranger's code is run."""

import io
from pathlib import Path

import jsonargparse
import numpy as np
import pytest
import torch
from PIL import Image

import datamodules
from checkpointing.predictions import Predictions, predictions_path
from checkpointing.record import CheckpointRecord
from datamodules.cifar10 import read_batch
from reports import run_images
from reports.run import Run
from reports.run_images import load_thumbnails, thumbnails
from tests import hostile
from tests.conftest import DIGITS
from tests.handmade import checkpoint, predictions

FAKE = "torchvision.datasets.FakeData"


def fake_set(images, size):
    return {"class_path": FAKE, "init_args": {"size": images, "image_size": [3, *size], "num_classes": 3}}


def save_run(name, **arguments):
    """A checkpoint of a run on a data module, and nothing else of it."""
    config = {"class_path": f"datamodules.{name}", "init_args": arguments}
    return save_config(config)


def save_config(config):
    path = Path("runs/digits/net/version_0/checkpoints/best.ckpt")
    path.parent.mkdir(parents=True, exist_ok=True)
    model = {"class_path": "lit_models.LitResNet", "init_args": {}}
    record = CheckpointRecord({"seed_everything": 0, "model": model, "data": config}, [], {})
    torch.save(checkpoint(record), path)
    return path


def predict(path, flags=(), **changes):
    """Predictions of a checkpoint for all of its images, and these images."""
    data = run_images.build_data(path, flags)
    data.setup("test")
    images = data.evaluated_set("test")
    labels = np.asarray(images.labels)
    content = {"data_hash": data.fingerprint(images), "files": np.array(images.file_names, dtype=str)} | changes
    return predictions(np.zeros((len(labels), data.num_classes)), labels, checkpoint=str(path), **content), images


def decode(png):
    """[3, H, W] uint8 of a PNG file."""
    assert png.startswith(b"\x89PNG")
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)))).permute(2, 0, 1)


def write_folder(root, count=4, size=(90, 120)):
    """Class folders of photos, each of one grey."""
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                shade = (40 * k + 20 * label, 100, 100)
                Image.new("RGB", size[::-1], shade).save(root / split / name / f"{split}{k}.png")
    return root


# The right images


def test_digits_are_shown_as_they_are(here, capsys):
    path = save_run("Digits")
    found, images = predict(path)
    shown = load_thumbnails(path, found, [7, 0, 100])
    assert shown.note == ""
    for png, row in zip(shown.pngs, [7, 0, 100], strict=True):
        assert torch.equal(decode(png), images.images[row])
    assert capsys.readouterr().out == ""


def test_rows_follow_the_indices_of_predictions(here):
    """Some images of a set may have been skipped."""
    path = save_run("Digits")
    found, images = predict(path)
    found.indices, found.complete = found.indices + 1, False
    found.indices[-1] = 0
    (png,) = load_thumbnails(path, found, [4]).pngs
    assert torch.equal(decode(png), images.images[5])


def test_cifar10(here, cifar):
    path = save_run("CIFAR10", root=str(cifar), val_size=20)
    found, _ = predict(path)
    (png,) = load_thumbnails(path, found, [3]).pngs
    assert torch.equal(decode(png), read_batch(cifar / "cifar-10-batches-py" / "test_batch").images[3])


def test_small_images_are_enlarged_with_hard_pixels_and_large_ones_reduced(here):
    path = save_run("Synthetic", classes=3, size=12, train_size=4, test_size=5, val_size=0)
    found, images = predict(path)
    pixels = decode(load_thumbnails(path, found, [2]).pngs[0])
    assert pixels.shape == (3, 36, 36)
    assert torch.equal(pixels[:, ::3, ::3], images.images[2])
    assert torch.equal(pixels[:, 2::3, 1::3], images.images[2])
    path = save_run("Synthetic", classes=3, size=100, train_size=4, test_size=5, val_size=0)
    (png,) = load_thumbnails(path, predict(path)[0], [2]).pngs
    assert decode(png).shape == (3, 64, 64)


def test_torchvision_sets(here):
    path = save_run("TorchvisionData", train=fake_set(6, (20, 30)), test=fake_set(5, (20, 30)), num_classes=3, size=16)
    found, images = predict(path)
    (png,) = load_thumbnails(path, found, [4]).pngs
    assert torch.equal(decode(png)[:, ::2, ::2], images.images[4])


def test_an_image_folder_is_shown_in_its_own_shape(here):
    root = write_folder(here / "photos")
    path = save_run("ImageNet", root=str(root), size=32)
    found, _ = predict(path)
    assert list(found.files[:2]) == ["cat/val0.png", "cat/val1.png"]
    pixels = decode(load_thumbnails(path, found, [5]).pngs[0])
    assert pixels.shape == (3, 64, 85)
    assert pixels[:, 30, 40].tolist() == [60, 100, 100]


def test_an_unreadable_file_is_left_out(here):
    root = write_folder(here / "photos")
    path = save_run("ImageNet", root=str(root), size=32)
    (root / "val/cat/val1.png").write_bytes(b"no image")
    found, _ = predict(path)
    shown = load_thumbnails(path, found, [0, 1])
    assert shown.pngs[0] and shown.pngs[1] is None and not shown.note


def test_of_a_large_folder_only_the_shown_files_are_opened(here, monkeypatch):
    root = write_folder(here / "photos")
    path = save_run("ImageNet", root=str(root), size=32)
    found, _ = predict(path)
    monkeypatch.setattr(run_images, "FILES_READ", 3)
    opened = []
    monkeypatch.setattr(
        datamodules.image_files, "open_image", lambda name: opened.append(name) or datamodules.decode.open_image(name)
    )
    monkeypatch.setattr("datamodules.image_files.content_id", lambda name: pytest.fail("the content is not looked at"))
    assert all(load_thumbnails(path, found, [2, 6]).pngs)
    assert len(opened) == 2
    (root / "val/dog/val3.png").rename(root / "val/dog/other.png")
    assert "no longer those" in load_thumbnails(path, found, [2, 6]).note


def test_a_run_lies_where_its_directory_is(here):
    path = save_run("Digits")
    found, _ = predict(path)
    found.checkpoint = "/elsewhere/checkpoints/best.ckpt"
    run = Run(str(path.parents[1]), "digits/net", "version_0", "finished")
    assert all(thumbnails(run, found, [1, 2]).pngs)
    online = thumbnails(Run("me/project/abc", "digits/net", "abc", "finished"), found, [1, 2])
    assert online.pngs == [None, None] and "There is no file me/project/abc" in online.note


@pytest.mark.slow
def test_images_that_a_real_run_held_back_are_found_again(run, here):
    """There is no val/ and no test/: `test` reads what the run held back, which its list of files tells."""
    root = write_folder(here / "photos", count=6)
    (root / "train").rename(here / "all")
    data = ["--data", "datamodules.ImageNet", "--data.root", here / "all", "--data.size", "32", "--data.val_size", "4"]
    short = ["--data.num_workers", "0", "--data.batch_size", "4", "--trainer.max_epochs", "1"]
    run("fit", "--config", DIGITS, *data, *short)
    (here / "all/cat/new.png").write_bytes((here / "all/dog/train0.png").read_bytes())
    run("test", "--ckpt_path", "runs/digits/resnet20")
    path = Path("runs/digits/resnet20/version_0/checkpoints/best.ckpt")
    found = Predictions.read(predictions_path(path, "center"))
    assert len(found.labels) == 4
    for png, name in zip(load_thumbnails(path, found, range(4)).pngs, found.files, strict=True):
        assert torch.equal(decode(png)[:, 0, 0], torch.tensor(Image.open(here / "all" / name).getpixel((0, 0))))


# Or none


def refusal(path, found, **more):
    """The note of a page without pictures."""
    shown = load_thumbnails(path, found, [0, 1], **more)
    assert shown.pngs == [None, None]
    assert shown.note.startswith("The images are not shown: ") and "\n" not in shown.note
    return shown.note


def test_moved_images_are_found_by_a_flag(here, cifar):
    path = save_run("CIFAR10", root=str(cifar), val_size=20)
    found, _ = predict(path)
    moved = cifar.rename(here / "moved data")
    assert f"There is no folder {cifar}" in refusal(path, found)
    assert not cifar.exists()
    assert all(load_thumbnails(path, found, [0, 1], flags=["--trainer.devices=1", f"--data.root={moved}"]).pngs)


def test_other_images_are_not_shown(here):
    path = save_run("Synthetic", classes=3, size=12, test_size=5)
    found, _ = predict(path)
    assert "no longer those that it was tested on" in refusal(path, found, flags=["--data.test_size=6"])
    found.data_hash = "of somebody else"
    assert "no longer those that it was tested on" in refusal(path, found)


def test_predictions_that_name_other_indices_are_refused(here):
    path = save_run("Digits")
    found, _ = predict(path)
    found.indices = found.indices + 1
    assert "no longer those" in refusal(path, found)


def test_nothing_is_downloaded(here, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", lambda *_: pytest.fail("a download"))
    monkeypatch.setattr("torchvision.datasets.MNIST.download", lambda *_: pytest.fail("a download"))
    (here / "empty").mkdir()
    root = str(here / "empty")
    found, _ = predict(save_run("Digits"))
    assert "CIFAR-10 is not in" in refusal(save_run("CIFAR10", root=root), found)
    mnist = {"class_path": "torchvision.datasets.MNIST", "init_args": {"root": root, "download": True}}
    assert "Dataset not found" in refusal(save_run("TorchvisionData", train=mnist, test=mnist), found)
    assert list((here / "empty").iterdir()) == []
    stored = save_config({"class_path": "datamodules.ImageNet", "init_args": {"root": "s3://bucket/x"}})
    assert "a checkpoint may not decide where a command fetches from" in refusal(stored, found)


def test_nothing_fills_the_memory(here):
    found, _ = predict(save_run("Digits"))
    for path in (
        save_run("Synthetic", size=224, test_size=10**9),
        save_run("TorchvisionData", train=fake_set(10**12, (9, 9)), test=fake_set(9, (9, 9)), num_classes=3),
    ):
        assert "too many to be read" in refusal(path, found)


def test_a_missing_or_broken_checkpoint(here):
    path = save_run("Digits")
    found, _ = predict(path)
    assert "There is no file" in refusal(path.with_stem("other"), found)
    path.write_bytes(b"PK\3\4 and so on")
    assert "no checkpoint that can be read" in refusal(path, found)


def test_a_checkpoint_runs_no_code(here, tmp_path):
    outside = tmp_path / "outside"
    hostile.prepare(outside, here)
    found, _ = predict(save_run("Digits"))
    for name, payload in hostile.specs(outside).items():
        for config in (payload, {"class_path": "datamodules.TorchvisionData", "init_args": {"train": payload}}):
            refusal(save_config(config), found)
            assert not (outside / "trace").exists(), name
    assert (outside / "precious.txt").read_text() == "years of work"


def test_the_import_policy_ends_with_the_pictures(here):
    path = save_run("Digits")
    found, _ = predict(path)
    before = dict(vars(jsonargparse._common)["parsing_settings"])
    load_thumbnails(path, found, [0])
    assert vars(jsonargparse._common)["parsing_settings"] == before


def test_a_data_module_of_the_users_own_has_to_be_allowed(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "my_digits.py").write_text("from datamodules import Digits\nclass Mine(Digits):\n    pass\n")
    found, _ = predict(save_run("Digits"))
    path = save_config({"class_path": "my_digits.Mine", "init_args": {}})
    assert "--allow my_digits" in refusal(path, found)
    assert all(load_thumbnails(path, found, [0, 1], flags=["--allow=my_digits"]).pngs)
