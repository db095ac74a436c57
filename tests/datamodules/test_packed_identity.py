"""A run's images are the same ones in its folder and in a packed copy of it: tested, held back and left out alike."""

import shutil
from pathlib import Path

import pytest

from datamodules.imagenet import pack
from datamodules.imagenet.__main__ import main as imagenet
from datamodules.photos import expand_path
from errors import UserError
from tests.datamodules.test_imagenet import write
from tests.datamodules.test_run_data import again, paths, trained_on


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Splits whose images have the same names: 0.png and so on."""
    for seed, name in enumerate(("cat", "dog")):
        write(tmp_path / "photos/train" / name, 12, seed, ".png")
        write(tmp_path / "photos/test" / name, 4, seed + 10, ".png")
    return tmp_path / "photos"


def pack_copy(source: Path, **options: object) -> Path:
    """A copy in which no image has the content of its file."""
    target = source.with_name(f"packed {source.name}")
    pack.pack_tree(source, target, workers=1, **{"shorter_side": 20} | options)
    return target


def resize_copy(source: Path) -> Path:
    target = source.with_name(f"resized {source.name}")
    imagenet(["resize", str(source), str(target), "--shorter_side", "20", "--workers", "1"])
    return target


@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
def test_test_images_of_a_copy_are_no_training_images_of_the_same_names(photos, image_format, capsys):
    packed = pack_copy(photos, format=image_format)
    assert len(again(trained_on(photos), packed, "test").test_set) == 8
    assert len(again(trained_on(packed), photos, "test").test_set) == 8
    assert "left out" not in capsys.readouterr().out


def test_training_images_that_were_moved_are_left_out_in_a_copy_too(photos, capsys):
    run_data = trained_on(photos)
    held_back = {Path(path).name for path in run_data.split.held_back if path.startswith("cat/")}
    moved = next(f"{number}.png" for number in range(4, 12) if f"{number}.png" not in held_back)
    (photos / "train/cat" / moved).rename(photos / "test/cat" / moved)
    data = again(run_data, pack_copy(photos), "test")
    assert len(data.test_set) == 8 and f"cat/{moved}" not in paths(data.test_set)
    assert "which are no longer in" in capsys.readouterr().out


@pytest.mark.parametrize("make_copy", [pack_copy, resize_copy])
def test_images_of_val_in_a_copy_have_not_been_moved_into_train(photos, make_copy, capsys):
    (photos / "test").rename(photos / "val")
    data = again(trained_on(photos), make_copy(photos), "fit")
    assert len(data.train_set) == 24 and len(data.val_set) == 8
    assert "not trained on" not in capsys.readouterr().out


def test_an_image_in_train_and_in_val_is_trained_on_in_a_copy_too(photos, capsys):
    (photos / "test").rename(photos / "val")
    shutil.copy(photos / "val/cat/0.png", photos / "train/cat/twin.png")
    packed = pack_copy(photos)
    data = again(trained_on(packed), packed, "fit")
    assert len(data.train_set) == 25
    assert "not trained on" not in capsys.readouterr().out


def test_a_copy_says_its_test_images_when_it_is_complete(photos, capsys):
    pack_copy(photos)
    out = capsys.readouterr().out
    assert "is complete: images 24 in train/, 8 in test/, every chunk of its size" in out
    assert "is not packed" not in out


@pytest.mark.parametrize("make_copy", [pack_copy, resize_copy])
def test_resuming_on_other_contents_is_said_of_a_run_with_a_val_folder_too(photos, make_copy, capsys):
    (photos / "test").rename(photos / "val")
    run_data = trained_on(photos)
    again(run_data, photos, "fit")
    assert "no image has" not in capsys.readouterr().out
    again(run_data, make_copy(photos), "fit")
    assert "the content that the run knows: a converted or resized copy, found by its paths" in capsys.readouterr().out
    for path in photos.rglob("*.png"):
        path.rename(path.with_name(f"other {path.name}"))
    again(run_data, photos, "fit")
    assert "no image has the path and the content of one that the run has trained on" in capsys.readouterr().out


def test_predict_names_what_a_packed_copy_is(photos):
    with pytest.raises(UserError, match="is a packed data set: give --data.paths the folder that it was packed from"):
        expand_path(pack_copy(photos))
