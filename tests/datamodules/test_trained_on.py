"""Images that a run has trained on are known by their contents wherever they lie: left out, refused or said."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules import identity
from datamodules.identity import identify_evaluated
from errors import UserError
from tests.datamodules.test_imagenet import write
from tests.datamodules.test_run_data import again, trained_on
from tests.datamodules.test_run_files import contents, write_bmps


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_bmps(tmp_path / "images")


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    for seed, folder in enumerate(("train", "val", "test")):
        write_bmps(tmp_path / "splits" / folder, 12 if folder == "train" else 4, 10 * seed)
    return tmp_path / "splits"


def copy_some(source: Path, target: Path, count: int, name: Callable[[Path], str]) -> None:
    """Copy the first images of each class that are not held back, under other names."""
    for folder in ("cat", "dog"):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / folder).iterdir())[:count]:
            shutil.copy(path, target / folder / name(path))


def new_name(path: Path) -> str:
    return f"new {path.name}"


def deeper(path: Path) -> str:
    (path.parents[2] / "other" / path.parent.name / "a").mkdir(parents=True, exist_ok=True)
    return f"a/{path.name}"


@pytest.mark.parametrize("name", [new_name, deeper, lambda path: f"{path.stem}.jpg"])
@pytest.mark.parametrize("sample", [100, 5])
def test_another_folder_of_training_images_is_refused_under_any_names(root, tmp_path, monkeypatch, name, sample):
    monkeypatch.setattr(identity, "SAMPLE", sample)
    run_data = trained_on(root)
    for path in run_data.split.held_back:
        (root / path).unlink()
    copy_some(root, tmp_path / "other", 8, name)
    with pytest.raises(UserError, match="other cannot be evaluated: the run trained on .* of the 16 images, such as"):
        again(run_data, tmp_path / "other", "test")


@pytest.mark.parametrize("verb", ["test", "validate", "fit"])
def test_copies_of_training_images_among_others_are_left_out_of_what_is_evaluated(splits, verb, capsys):
    run_data = trained_on(splits)
    folder = splits / ("test" if verb == "test" else "val")
    before = sorted(contents(again(run_data, splits, verb).evaluated_set("test" if verb == "test" else "validate")))
    copy_some(splits / "train", folder, 3, new_name)
    shutil.copy(splits / "train" / "cat" / "0.bmp", folder / "dog" / "twice.bmp")
    capsys.readouterr()
    data = again(run_data, splits, verb)
    said = capsys.readouterr().out
    assert f"7 images of {folder} left out: the run trained on 7 of the 15 images, such as cat/new 0.bmp\n" in said
    images = data.test_set if verb == "test" else data.val_set
    assert sorted(contents(images)) == before
    if verb != "fit":
        assert identify_evaluated(data, verb).is_run_data


def test_empty_files_are_no_training_images(splits, capsys):
    (splits / "train" / "cat" / "empty.bmp").touch()
    run_data = trained_on(splits)
    (splits / "test" / "dog" / "empty too.bmp").touch()
    assert len(again(run_data, splits, "test").test_set) == 9
    assert "trained on" not in capsys.readouterr().out


def test_another_folder_is_tested_without_the_images_that_were_trained_on(root, tmp_path, capsys):
    run_data = trained_on(root)
    copy_some(root, tmp_path / "other", 12, new_name)
    for path in run_data.split.held_back:
        (tmp_path / "other" / path).with_name(f"new {Path(path).name}").unlink()
    write_bmps(tmp_path / "other", 5, 70)
    data = again(run_data, tmp_path / "other", "test")
    assert len(data.test_set) == 10 and not set(contents(data.test_set)) & set(run_data.split.sample.values())
    said = capsys.readouterr().out
    assert "22 images of" in said and "so all of them are tested" in said


def test_a_sample_that_finds_some_says_how_large_it_is(splits, monkeypatch):
    monkeypatch.setattr(identity, "SAMPLE", 6)
    run_data = trained_on(splits)
    copy_some(splits / "train", splits / "test", 12, new_name)
    said = "trained on 6 of the 32 images, such as .*, as far as a sample of 6 of its 24 training images tells. Remove"
    with pytest.raises(UserError, match=said):
        again(run_data, splits, "test")


@pytest.mark.parametrize("name", [new_name, lambda path: path.name])
@pytest.mark.parametrize("folders", [("test",), ("val",), ("val", "test")])
def test_the_runs_own_images_are_evaluated_and_said_to_be_trained_on(tmp_path, name, folders, capsys):
    root = tmp_path / "own"
    write_bmps(root / "train", 10)
    for folder in folders:
        copy_some(root / "train", root / folder, 10, name)
    run_data = trained_on(root)
    count = len(run_data.split.trained_on)
    capsys.readouterr()
    for verb in ("test", "validate") if "val" in folders else ("test",):
        data = again(run_data, root, verb)
        assert len(data.test_set if verb == "test" else data.val_set) == 20
        assert identify_evaluated(data, verb).is_run_data
        folder = root / (folders[-1] if verb == "test" else "val")
        said = f"the run trained on {count} of the 20 images, such as cat/"
        line = next(line for line in capsys.readouterr().out.splitlines() if said in line)
        assert line.endswith(f": the error on {folder} is optimistic")


def test_a_training_image_in_the_place_of_a_held_back_one_is_not_evaluated(root, capsys):
    run_data = trained_on(root, val_size=6)
    held = next(path for path in run_data.split.held_back if path.startswith("cat/"))
    trained = next(path for path in run_data.split.trained_on if path.startswith("cat/"))
    shutil.copy(root / trained, root / held)
    for verb in ("test", "validate"):
        assert held not in again(run_data, root, verb, val_size=6).val_set.file_names
    assert "1 cannot be found" in capsys.readouterr().out


def test_other_images_of_the_sizes_of_training_images_are_no_copies(splits, capsys):
    run_data = trained_on(splits)
    write_bmps(splits / "test", 9, 77)
    write(splits / "test" / "cat", 3, 78)
    capsys.readouterr()
    assert len(again(run_data, splits, "test").test_set) == 21 and "trained on" not in capsys.readouterr().out
