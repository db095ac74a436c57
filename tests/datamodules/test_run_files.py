"""Files of a run are known by their contents: other images with their names, or with equally many bytes, are others."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from datamodules import ImageNet, image_files
from datamodules.identity import identify_evaluated, make_split
from datamodules.image_files import content_id
from datamodules.run_data import RunData
from errors import UserError
from tests.datamodules.test_imagenet import write
from tests.datamodules.test_run_data import again, trained_on

Change = Callable[[Path], None]


def write_bmps(root: Path, count: int = 12, seed: int = 0) -> Path:
    """Class folders with images in files of equal size, 0.bmp and so on."""
    for number, name in enumerate(("cat", "dog")):
        write(root / name, count, seed + number, ".bmp")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_bmps(tmp_path / "images")


def contents(images) -> list[str]:
    return [content_id(images.path(index)) for index in range(len(images))]


def held_back_contents(run_data: RunData) -> set[str]:
    assert run_data.split is not None
    return set(run_data.split.held_back.values())


def rename_all(root: Path, name: Callable[[Path], Path]) -> None:
    """Give each file another path."""
    moves = [(path.rename(path.with_name(f"{path.name}.moving")), name(path)) for path in sorted(root.glob("*/*"))]
    for old, new in moves:
        new.parent.mkdir(exist_ok=True)
        old.rename(new)


def prefix(root: Path) -> None:
    rename_all(root, lambda path: path.with_name(f"img_{path.name}"))


def rotate(root: Path) -> None:
    """Each file gets the name of the next one."""
    rename_all(root, lambda path: path.with_stem(str((int(path.stem) + 1) % 12)))


def swap_classes(root: Path) -> None:
    rename_all(root, lambda path: root / {"cat": "dog", "dog": "cat"}[path.parent.name] / path.name)


def deeper(root: Path) -> None:
    rename_all(root, lambda path: path.parent / "new" / path.name)


def renumber(root: Path) -> None:
    """The first file of a class is removed, and the others are numbered from 0 again."""
    (root / "cat" / "0.bmp").unlink()
    rename_all(root, lambda path: path.with_stem(str(int(path.stem) - (path.parent.name == "cat"))))


@pytest.mark.parametrize("change", [prefix, rotate, swap_classes, deeper, renumber])
@pytest.mark.parametrize("val_size", [0.1, 8])
def test_what_was_trained_on_is_never_evaluated_whatever_the_files_are_called(root, change, val_size):
    run_data = trained_on(root, val_size=val_size)
    held = held_back_contents(run_data)
    change(root)
    expected = held & {content_id(bytes(path)) for path in root.rglob("*.bmp")}
    for verb in ("test", "validate", "fit"):
        data = again(run_data, root, verb, val_size=val_size)
        assert set(contents(data.val_set)) == expected and len(data.val_set) == len(expected)
        assert not set(contents(data.train_set)) & held


def edit(path: Path) -> None:
    Image.open(path).resize((20, 20)).save(path)


def convert(path: Path) -> None:
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()


def resized_copy(path: Path) -> None:
    Image.open(path).resize((20, 20)).save(path.with_name(f"{path.name}.jpg"))
    path.unlink()


@pytest.mark.parametrize("change", [edit, convert, resized_copy])
@pytest.mark.parametrize("some", [False, True])
def test_images_that_were_edited_or_converted_are_found_by_their_paths(root, change, some, capsys):
    run_data = trained_on(root, val_size=6)
    held = {path.partition(".")[0] for path in run_data.split.held_back}
    for path in sorted(root.rglob("*.bmp"))[:: 2 if some else 1]:
        change(path)
    capsys.readouterr()
    for verb in ("test", "validate", "fit"):
        data = again(run_data, root, verb, val_size=6)
        assert {name.partition(".")[0] for name in data.val_set.file_names} == held and len(data.val_set) == 6
        assert ("found by its paths" in capsys.readouterr().out) == (not some)


def test_a_copy_of_a_held_back_file_is_matched_once(root, capsys):
    run_data = trained_on(root)
    held = root / next(path for path in run_data.split.held_back if path.startswith("cat/"))
    shutil.copy(held, held.with_name("a.bmp"))
    held.rename(held.with_name("b.bmp"))
    convert(root / next(path for path in run_data.split.held_back if path.startswith("dog/")))
    data = again(run_data, root, "test")
    assert len(data.test_set) == 2 and "cannot be found" not in capsys.readouterr().out


def test_of_two_files_that_differ_in_the_suffix_each_copy_is_its_own(root):
    for name in ("cat", "dog"):
        for path in sorted((root / name).glob("*.bmp")):
            Image.open(path).rotate(90).save(path.with_suffix(".png"))
    run_data = trained_on(root, val_size=12)
    for path in [*root.rglob("*.bmp"), *root.rglob("*.png")]:
        Image.open(path).resize((20, 20)).save(path.with_name(f"{path.name}.webp"))
        path.unlink()
    names = again(run_data, root, "test", val_size=12).test_set.file_names
    assert {name.removesuffix(".webp") for name in names} == set(run_data.split.held_back)


# Another folder


@pytest.mark.parametrize("count", [3, 9])
@pytest.mark.parametrize("shift", [0, 100])
def test_another_data_set_is_tested_whole_though_its_files_have_the_same_names(root, tmp_path, count, shift, capsys):
    run_data = trained_on(root)
    other = write_bmps(tmp_path / "other", count, seed=50)
    rename_all(other, lambda path: path.with_stem(str(int(path.stem) + shift)))
    capsys.readouterr()
    data = again(run_data, other, "test")
    said = capsys.readouterr().out
    assert len(data.test_set) == 2 * count and "so all of them are tested" in said
    assert (f"though {2 * count} have the path of one" in said) == (shift == 0)
    assert not any(word in said for word in ("new image", "cannot be found", "held back for"))
    identity = identify_evaluated(data, "test")
    assert not identity.is_run_data and not identity.selected_on_test
    for verb in ("fit", "validate"):
        with pytest.raises(UserError, match="None of the 2 images that this run held back is in"):
            again(run_data, other, verb)


@pytest.mark.parametrize("kept", [1.0, 0.5, 0.1])
def test_the_runs_own_folder_without_what_was_held_back_is_not_tested(root, kept):
    run_data = trained_on(root, val_size=8)
    for path in run_data.split.held_back:
        (root / path).unlink()
    for name in ("cat", "dog"):
        rest = sorted((root / name).iterdir())
        for path in rest[max(1, round(kept * len(rest))) :]:
            path.unlink()
    for verb in ("test", "validate", "fit"):
        with pytest.raises(UserError, match="None of the 8 images that this run held back is in"):
            again(run_data, root, verb, val_size=8)


# Folders of their own for val/ and test/


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """train/, val/ and test/ with the same names in them."""
    for seed, folder in enumerate(("train", "val", "test")):
        write_bmps(tmp_path / "splits" / folder, 6 if folder == "train" else 4, 10 * seed)
    return tmp_path / "splits"


def test_images_moved_from_val_to_train_are_known_by_their_contents(splits, capsys):
    run_data = trained_on(splits)
    (splits / "val" / "cat" / "2.bmp").rename(splits / "train" / "dog" / "moved.bmp")
    first, second = splits / "train" / "cat" / "0.bmp", splits / "val" / "cat" / "0.bmp"
    first.rename(splits / "aside"), second.rename(first), (splits / "aside").rename(second)
    write(splits / "new", 3, 70, ".bmp")
    for path in (splits / "new").iterdir():
        path.rename(splits / "train" / "cat" / f"new {path.name}")
    (splits / "new").rmdir()
    data = again(run_data, splits, "fit")
    assert not held_back_contents(run_data) & set(contents(data.train_set)) and len(data.train_set) == 12 - 1 + 3
    assert "2 images not trained on: the run validated on them" in capsys.readouterr().out


def rename_train(root: Path) -> None:
    prefix(root / "train")


def delete_some(root: Path) -> None:
    (root / "train" / "cat" / "1.bmp").unlink()


def replace_folder(root: Path) -> None:
    """Another data set at the same place."""
    shutil.rmtree(root)
    write_bmps(root / "train", 5, 60), write_bmps(root / "val", 5, 70), write_bmps(root / "test", 5, 80)
    rename_all(root / "train", lambda path: path.with_stem(str(int(path.stem) + 4)))


@pytest.mark.parametrize("change", [rename_train, delete_some, replace_folder])
def test_images_of_the_test_that_share_names_with_training_images_are_tested(splits, change, capsys):
    run_data = trained_on(splits)
    change(splits)
    expected = len(list((splits / "test").rglob("*.bmp")))
    data = again(run_data, splits, "test")
    assert len(data.test_set) == expected and "left out" not in capsys.readouterr().out
    assert identify_evaluated(data, "test").is_run_data == (change is not replace_folder)


def test_a_test_of_nothing_but_moved_training_images_is_refused(splits):
    run_data = trained_on(splits)
    shutil.rmtree(splits / "test")
    for name in ("cat", "dog"):
        (splits / "test" / name).mkdir(parents=True)
        for index in (4, 5):
            (splits / "train" / name / f"{index}.bmp").rename(splits / "test" / name / f"{index}.bmp")
    with pytest.raises(UserError, match="None of the 4 images of .*test can be evaluated: the run trained on"):
        again(run_data, splits, "test")


def swap_test_classes(root: Path) -> None:
    swap_classes(root / "test")


def replace_test(root: Path) -> None:
    write_bmps(root / "test", 4, 50)


def replace_one(root: Path) -> None:
    shutil.copy(root / "test" / "cat" / "0.bmp", root / "test" / "cat" / "1.bmp")


def rotate_test(root: Path) -> None:
    """Each file has the content of the next one."""
    files = sorted((root / "test" / "cat").iterdir())
    images = [path.read_bytes() for path in files]
    for path, image in zip(files, images[1:] + images[:1], strict=True):
        path.write_bytes(image)


@pytest.mark.parametrize("change", [swap_test_classes, replace_test, replace_one, rotate_test])
def test_other_images_in_files_of_equal_names_and_sizes_are_others(splits, change):
    run_data = trained_on(splits)
    files = sorted((splits / "test").rglob("*.bmp"))
    before = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    change(splits)
    for path, _, time in before:
        os.utime(path, ns=(time, time))
    assert before == [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    assert not identify_evaluated(again(run_data, splits, "test"), "test").is_run_data
    assert identify_evaluated(again(run_data, splits, "validate"), "validate").is_run_data


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_other_images_in_the_place_of_those_that_were_held_back_are_others(root, verb):
    run_data = trained_on(root, val_size=6)
    held = next(iter(run_data.split.held_back))
    Image.new("RGB", Image.open(root / held).size).save(root / held)
    data = again(run_data, root, verb, val_size=6)
    assert len(data.val_set) == 6 and not identify_evaluated(data, verb).is_run_data


@pytest.mark.parametrize("recorded", [True, False])
def test_the_images_of_a_run_of_older_code_are_known_by_its_fingerprints(splits, recorded):
    run_data = trained_on(splits)
    for verb, name in (("test", "test_hash"), ("validate", "val_hash")):
        data = again(run_data, splits, verb)
        older = data.fingerprint(data.evaluated_set(verb), older=True)
        assert older != getattr(run_data.record, name)
        run_data = replace(run_data, record=replace(run_data.record, **{name: older if recorded else None}))
        if not recorded:
            run_data = replace(run_data, tested_hashes={older}, same_source=False)
        identity = identify_evaluated(again(run_data, splits, verb), verb)
        assert identity.is_run_data and not identity.selected_on_test
        shutil.copytree(splits, splits.with_name(f"other {verb}"))
        for path in splits.with_name(f"other {verb}").rglob("*.bmp"):
            edit(path)
        assert not identify_evaluated(again(run_data, splits.with_name(f"other {verb}"), verb), verb).is_run_data


def test_the_start_of_a_run_reads_no_file_twice(splits, root, monkeypatch):
    read = Counter()
    monkeypatch.setattr(image_files, "content_id", lambda path: read.update([path]) or content_id(path))
    for folder, count in ((splits, 12 + 8 + 8), (root, 24)):
        run_data = trained_on(folder)  # which asks for all hashes twice
        assert len(read) == count and max(read.values()) <= 2
        read.clear()
        for verb in ("test", "validate"):
            data = again(run_data, folder, verb)
            identify_evaluated(data, verb), identify_evaluated(data, verb)
            assert max(read.values()) == 1
            read.clear()


# selected_on_test


def shrink(root: Path) -> None:
    (root / "val" / "cat" / "1.bmp").unlink()


def grow(root: Path) -> None:
    write(root / "val" / "cat", 5, 10, ".bmp").joinpath("4.bmp").rename(root / "val" / "cat" / "new.bmp")


def shrink_images(root: Path) -> None:
    for path in root.rglob("*.bmp"):
        edit(path)


def move_to_test(root: Path) -> None:
    write_bmps(root / "test", 3, 90)
    shutil.copy(root / "val" / "cat" / "1.bmp", root / "test" / "cat" / "moved.bmp")


def add_test(root: Path) -> None:
    write_bmps(root / "test", 3, 90)


def replace_val(root: Path) -> None:
    shutil.rmtree(root / "val")
    write_bmps(root / "val", 3, 95)


@pytest.mark.parametrize(
    ("change", "selected"),
    [
        (lambda root: None, True),
        (shrink, True),
        (grow, True),
        (shrink_images, True),
        (move_to_test, True),
        (add_test, False),
        (replace_val, False),
    ],
)
def test_a_checkpoint_is_selected_on_test_where_an_image_of_the_test_was_validated_on(splits, change, selected):
    shutil.rmtree(splits / "test")
    run_data = trained_on(splits)
    change(splits)
    assert identify_evaluated(again(run_data, splits, "test"), "test").selected_on_test == selected


# Resuming again and again


def resume(run_data: RunData, root: Path, **kwargs) -> tuple[ImageNet, RunData]:
    data = again(run_data, root, "fit", **kwargs)
    return data, replace(run_data, split=make_split(data))


@pytest.mark.parametrize("change", [prefix, rotate, deeper])
def test_the_list_of_a_run_that_is_resumed_does_not_grow_when_files_are_renamed(root, change, capsys):
    run_data = before = trained_on(root, val_size=6)
    for _ in range(2):
        change(root)
        _, run_data = resume(run_data, root, val_size=6)
        assert set(run_data.split.held_back) == {
            path.relative_to(root).as_posix()
            for path in root.rglob("*.bmp")
            if content_id(bytes(path)) in held_back_contents(before)
        }
        assert not set(run_data.split.held_back) & set(run_data.split.trained_on)
    capsys.readouterr()
    data, again_the_same = resume(run_data, root, val_size=6)
    assert len(data.val_set) == 6 and again_the_same.split.hash == run_data.split.hash
    assert not any(word in capsys.readouterr().out for word in ("cannot be found", "new image"))


def test_a_held_back_file_that_is_gone_stays_in_the_list_and_is_known_when_it_comes_back(root, tmp_path, capsys):
    run_data = trained_on(root, val_size=6)
    held = root / next(iter(run_data.split.held_back))
    held.rename(tmp_path / "away")
    _, run_data = resume(run_data, root, val_size=6)
    capsys.readouterr()
    _, run_data = resume(run_data, root, val_size=6)
    assert "of the 6 images that the run held back, 1 cannot be found" in capsys.readouterr().out
    (tmp_path / "away").rename(held.with_name("back.bmp"))
    data, run_data = resume(run_data, root, val_size=6)
    assert len(data.val_set) == 6 == len(run_data.split.held_back)
