"""A command that starts from a checkpoint finds the data of its run again: classes by name, files by their lists."""

import json
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpointing.record import CheckpointRecord
from datamodules import CIFAR10, Digits, ImageNet, Synthetic, TorchvisionData
from datamodules.identity import compare_with_run, identify, identify_evaluated, make_split
from datamodules.image_files import content_id
from datamodules.run_data import RunData, match_classes
from datamodules.splits import stratified_split
from errors import UserError
from tests.datamodules.test_imagenet import fit, write

RUN = Path("runs/photos/net/version_0")
OF_RUN = ["--ckpt_path", RUN, "--allow", "tests.dropout_net"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders with 12 photos of each of two classes, of which 2 are held back."""
    for seed, name in enumerate(("cat", "dog")):
        write(tmp_path / "images" / name, 12, seed)
    return tmp_path / "images"


@pytest.fixture
def trained(run, root) -> Path:
    """The folder of a run that has been trained on; the run is `RUN`."""
    run(*fit(root))
    return root


def split() -> dict:
    (path,) = RUN.glob("split-*.json")
    return json.loads(path.read_text())


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*.jpg")}


def result(name: str = "test-best-center.json") -> dict:
    return json.loads((RUN / name).read_text())


def other_results() -> list[Path]:
    """Results on other data than the run's."""
    return [path for path in RUN.glob("test-*.json") if path.name != "test-best-center.json"]


def test_the_run_keeps_lists_of_what_it_trained_on_and_held_back(trained):
    content = split()
    assert set(content["trained_on"]) | set(content["held_back"]) == files(trained)
    assert len(content["trained_on"]) == 22 and len(content["held_back"]) == 2 and not content["own_folder"]
    assert all(content_id(bytes(trained / path)) == known for path, known in content["held_back"].items())
    assert content["sample"].keys() == set(content["trained_on"])


def move(root: Path) -> Path:
    return root.rename(root.with_name("elsewhere"))


def copy(root: Path) -> Path:
    return Path(shutil.copytree(root, root.with_name("copy")))


def into_train(root: Path) -> Path:
    (root.parent / "all").mkdir()
    return root.rename(root.parent / "all" / "train").parent


def link(root: Path) -> Path:
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


@pytest.mark.parametrize("change", [move, copy, into_train, link])
def test_the_same_folder_at_another_path_is_the_runs_own(run, trained, capsys, change):
    root = change(trained)
    capsys.readouterr()
    for verb in ("test", "validate"):
        run(verb, *OF_RUN, "--data.root", root)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Data: ")]
    where = root / "train" if change is into_train else root
    assert said[0] == f"Data: test: 2 images of {where}, held back for validation" and len(said) <= 4
    assert not any("new" in line or "gone" in line or "effect" in line for line in said)
    assert result()["is_run_data"] and result()["images"] == 2 and not other_results()


# A folder that has changed


def test_new_images_are_left_out_of_a_test_and_trained_on_when_resumed(run, trained, capsys):
    before = split()
    run("test", *OF_RUN)
    own = result()
    for name in ("w", "x", "y", "z"):
        shutil.copy(trained / "cat" / "0.jpg", trained / "cat" / f"{name}.jpg")
    capsys.readouterr()
    run("test", *OF_RUN)
    assert "Data: 4 new images, in neither list of the run: left out" in capsys.readouterr().out
    assert result() == own and not other_results()
    run("fit", *OF_RUN, "--trainer.max_epochs", 2)
    said = capsys.readouterr().out
    assert "Data: 4 new images, in neither list of the run: trained on from now on" in said
    assert "26 training images of 2 classes" in said
    after = [json.loads(path.read_text()) for path in RUN.glob("split-*.json")]
    assert len(after) == 2 and all(each["held_back"] == before["held_back"] for each in after)
    assert before in after and max(len(each["trained_on"]) for each in after) == 26


def record(data: ImageNet) -> CheckpointRecord:
    """What the checkpoint of a training on these data would say of them."""
    config = {"data": {"class_path": "datamodules.ImageNet", "init_args": {"val_size": data.val_size, "split_seed": 0}}}
    hashes = identify(data, make_split(data))
    return CheckpointRecord(config, data.class_names, preprocessing={}, **hashes)


def trained_on(root: Path, **kwargs) -> RunData:
    """The data of a run that has trained on a folder, as its checkpoint and its run directory say it."""
    data = ImageNet(root, size=16, **kwargs)
    data.setup("fit")
    return RunData(record(data), make_split(data), same_source=True, selected_on_validation=True)


def again(run_data: RunData, root: Path, verb: str, **kwargs) -> ImageNet:
    """The data of a command that starts from the run's checkpoint."""
    data = ImageNet(root, size=16, **kwargs)
    data.follow(run_data)
    data.setup(verb)
    return data


def paths(images) -> set[str]:
    return set(images.file_names)


# Classes by name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "dog").rename(root / "zebra"), "no class dog, and the checkpoint knows no class zebra"),
        (lambda root: write(root / "zebra", 3, 5), "the checkpoint knows no class zebra"),
        (lambda root: shutil.rmtree(root / "ant"), "the data have no class ant"),
        (lambda root: (root / "cat").rename(root / "Cat"), "no class cat, and the checkpoint knows no class Cat"),
        (lambda root: (root / "cat").rename(root / "cat "), "no class cat, and the checkpoint knows no class cat "),
    ],
)
def test_other_classes_are_refused_by_name(root, change, said):
    write(root / "ant", 12, 3)
    run_data = trained_on(root)
    change(root)
    with pytest.raises(UserError, match=f"^The classes of the data are not .*{said}"):
        again(run_data, root, "test")


@pytest.mark.parametrize(
    ("ours", "theirs", "order"),
    [
        (["a", "b", "c"], ["a", "b", "c"], None),
        (["a", "b", "c"], ["c", "a", "b"], [1, 2, 0]),
        (["é", "b"], ["b", unicodedata.normalize("NFD", "é")], [1, 0]),
        (["crane", "crane", "b"], ["crane", "crane", "b"], None),
    ],
)
def test_the_same_classes_are_found_by_name(ours, theirs, order):
    found = match_classes(ours, theirs)
    assert found is None if order is None else found.tolist() == order


def test_classes_of_one_name_in_another_order_are_refused():
    with pytest.raises(UserError, match="two of them have one name"):
        match_classes(["crane", "crane", "b"], ["b", "crane", "crane"])


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_labels_follow_the_order_of_the_checkpoints_classes(root, verb):
    run_data = trained_on(root)
    swapped = RunData(replace(run_data.record, class_names=["dog", "cat"]), run_data.split, True, True)
    data = again(swapped, root, verb)
    assert data.class_names == ["dog", "cat"]
    for images in (data.train_set, data.val_set):
        assert [data.class_names[label] for label in images.labels] == [
            Path(name).parts[0] for name in images.file_names
        ]


# A folder that has changed


def edited(change):
    """The run of a folder, and its held-back file and a file that it has trained on, in the class cat."""

    def prepare(root: Path) -> tuple[RunData, str, str]:
        run_data = trained_on(root)
        assert run_data.split is not None
        held = next(path for path in run_data.split.held_back if path.startswith("cat/"))
        trained = next(path for path in run_data.split.trained_on if path.startswith("cat/"))
        change(root, held, trained)
        return run_data, held, trained

    return prepare


def to_dog(root: Path, held: str, trained: str) -> None:
    (root / held).rename(root / "dog" / "held.jpg")
    (root / trained).rename(root / "dog" / "trained.jpg")


def renamed(root: Path, held: str, trained: str) -> None:
    (root / held).rename(root / "cat" / "held.jpg")
    (root / trained).rename(root / "cat" / "trained.jpg")


def converted(root: Path, held: str, trained: str) -> None:
    for path in (held, trained):
        Image.open(root / path).save((root / path).with_suffix(".png"))
        (root / path).unlink()


def deeper(root: Path, held: str, trained: str) -> None:
    (root / "cat" / "new").mkdir()
    for path in (held, trained):
        (root / path).rename(root / "cat" / "new" / Path(path).name)


@pytest.mark.parametrize("change", [to_dog, renamed, converted, deeper])
def test_a_held_back_file_stays_held_back_when_it_is_moved_and_what_was_trained_on_is_not_tested(root, change):
    run_data, held, trained = edited(change)(root)
    before = len(run_data.split.held_back)
    tested = again(run_data, root, "test").test_set
    assert len(tested) == before
    resumed = again(run_data, root, "fit")
    assert len(resumed.val_set) == before and len(resumed.train_set) == 22
    assert paths(resumed.val_set) == paths(tested)
    split = make_split(resumed)
    assert split.held_back.keys() == {Path(path).as_posix() for path in paths(tested)} and held not in split.held_back
    assert trained in split.trained_on and not set(split.held_back) & set(split.trained_on)


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_held_back_files_that_are_gone_are_said(root, verb, capsys):
    run_data, _, _ = edited(lambda root, held, trained: (root / held).unlink())(root)
    data = again(run_data, root, verb)
    assert "of the 2 images that the run held back, 1 cannot be found" in capsys.readouterr().out
    assert len(data.val_set) == 1 and not paths(data.val_set) & set(run_data.split.trained_on)


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_a_folder_without_a_held_back_file_is_refused_and_another_one_is_tested_whole(root, tmp_path, verb, capsys):
    run_data = trained_on(root)
    for seed, name in enumerate(("cat", "dog")):
        write(tmp_path / "other" / name, 30, 40 + seed)
        for path in list((tmp_path / "other" / name).iterdir()):
            path.rename(path.with_stem(f"other {path.stem}"))
    with pytest.raises(UserError, match="None of the 2 images that this run held back is in .*other"):
        again(run_data, tmp_path / "other", verb)
    data = again(run_data, tmp_path / "other", "test")
    assert len(data.test_set) == 60 and "all of them are tested" in capsys.readouterr().out
    identity = identify_evaluated(data, "test")
    assert not identity.is_run_data and identity.tag == f"-{identity.data_hash[:6]}" and not identity.selected_on_test


@pytest.mark.parametrize("change", [{"val_size": 5}, {"val_size": 0}, {"split_seed": 1}])
def test_another_split_is_refused_on_resuming_and_has_no_effect_on_a_test(root, change, capsys):
    run_data = trained_on(root)
    with pytest.raises(UserError, match="what it holds back is settled"):
        again(run_data, root, "fit", **change)
    for verb in ("validate", "test"):
        assert paths(again(run_data, root, verb, **change).val_set) == set(run_data.split.held_back)
        assert "has no effect" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_photos_edited_in_place_are_other_data(root, verb):
    run_data, _, _ = edited(lambda root, held, trained: write(root / "cat", 12, 99))(root)
    identity = identify_evaluated(again(run_data, root, verb), verb)
    assert not identity.is_run_data


def test_without_the_lists_the_hash_of_the_paths_decides_and_a_difference_is_said(root):
    run_data = trained_on(root)
    alone = replace(run_data, split=None)
    data = again(alone, root, "test")
    assert paths(data.test_set) == set(run_data.split.held_back) and compare_with_run(data, "test") == []
    (root / next(iter(run_data.split.held_back))).unlink()
    (note,) = compare_with_run(again(alone, root, "test"), "test")
    assert f"split-{run_data.split.hash[:8]}.json" in note and "may have been trained on" in note


def test_a_run_of_older_code_keeps_its_split(root):
    new = trained_on(root)
    old = RunData(replace(new.record, data_hash=None, split_hash=None), None, True, False)
    _, held = stratified_split(np.repeat([0, 1], 12), 2, seed=0)
    names = sorted(files(root), key=lambda name: (name.split("/")[0], name))
    assert paths(again(old, root, "test").test_set) == {names[index] for index in held}


# val/ and test/ folders


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and val/ with the same names in them."""
    for seed, name in enumerate(("cat", "dog")):
        write(tmp_path / "photos" / "train" / name, 8, seed)
        write(tmp_path / "photos" / "val" / name, 3, seed + 10)
    return tmp_path / "photos"


@pytest.mark.parametrize("target", ["val", "test"])
def test_images_moved_out_of_train_are_not_tested(photos, target, capsys):
    write(photos / "test" / "cat", 2, 30), write(photos / "test" / "dog", 2, 31)
    if target == "val":
        shutil.rmtree(photos / "test")
    run_data = trained_on(photos)
    before = len(files(photos / target))
    (photos / "train" / "cat" / "7.jpg").rename(photos / target / "cat" / "7.jpg")
    assert len(again(run_data, photos, "test").test_set) == before
    said = capsys.readouterr().out
    assert f"1 image of {photos / target} left out: the run trained on images of these names, which are no" in said


def test_images_moved_from_val_to_train_are_not_trained_on(photos, capsys):
    run_data = trained_on(photos)
    (photos / "val" / "cat" / "2.jpg").rename(photos / "train" / "cat" / "2 of val.jpg")
    (photos / "train" / "dog" / "1.jpg").unlink()
    (photos / "val" / "dog" / "1.jpg").rename(photos / "train" / "dog" / "1.jpg")
    write(photos / "train" / "cat", 9, 60).joinpath("8.jpg").rename(photos / "train" / "cat" / "new.jpg")
    write(photos / "train" / "cat", 8, 0)
    data = again(run_data, photos, "fit")
    assert len(data.val_set) == 4 and len(data.train_set) == 16  # one went, one came
    assert not paths(data.train_set) & {"cat/2 of val.jpg", "dog/1.jpg"} and "cat/new.jpg" in paths(data.train_set)
    assert "2 images not trained on: the run validated on them" in capsys.readouterr().out


def test_a_val_folder_that_is_gone_is_not_replaced_by_images_that_were_trained_on(photos):
    run_data = trained_on(photos)
    (photos / "val").rename(photos.parent / "val")
    for verb in ("fit", "validate", "test"):
        with pytest.raises(UserError, match="has validated on are gone"):
            again(run_data, photos, verb)


def test_a_val_folder_that_comes_later_is_tested_and_the_run_keeps_its_own_held_back_images(root, tmp_path):
    run_data = trained_on(root)
    (tmp_path / "all").mkdir()
    root.rename(tmp_path / "all" / "train")
    for name in ("cat", "dog"):
        write(tmp_path / "all" / "val" / name, 3, 50)
    held = set(run_data.split.held_back)
    for verb in ("fit", "validate"):
        assert paths(again(run_data, tmp_path / "all", verb).val_set) == held
    assert len(again(run_data, tmp_path / "all", "test").test_set) == 6


@pytest.mark.parametrize("folders", [("train",), ("train", "val"), ("train", "val", "test"), ("train", "flat", "val")])
@pytest.mark.parametrize("val_size", [None, 4])
def test_a_training_notes_the_images_that_a_test_will_read(tmp_path, folders, val_size):
    for seed, (folder, name) in enumerate((folder, name) for folder in folders for name in ("cat", "dog")):
        write(tmp_path / "test" if folder == "flat" else tmp_path / folder / name, 8, seed)
    run_data = trained_on(tmp_path, val_size=val_size)
    tested = again(run_data, tmp_path, "test", val_size=val_size)
    assert run_data.record.test_hash == tested.fingerprint(tested.test_set)
    assert identify_evaluated(tested, "test").is_run_data
    resumed = again(run_data, tmp_path, "fit", val_size=val_size)
    assert identify(resumed, make_split(resumed))["test_hash"] == run_data.record.test_hash
    swapped = replace(run_data, record=replace(run_data.record, class_names=["dog", "cat"]))
    resumed, tested = (again(swapped, tmp_path, verb, val_size=val_size) for verb in ("fit", "test"))
    assert identify(resumed, None)["test_hash"] == tested.fingerprint(tested.test_set)


@pytest.mark.parametrize("change", ["add", "remove", "rename"])
def test_inside_an_epoch_a_run_is_not_resumed_on_other_images(run, fails, root, change):
    run(*fit(root, "--trainer.max_epochs", -1, "--trainer.max_steps", 2))
    path = root / "cat" / Path(max(path for path in split()["trained_on"] if path.startswith("cat/"))).name
    if change == "add":
        shutil.copy(path, path.with_stem("new"))
    elif change == "remove":
        path.unlink()
    else:
        path.rename(path.with_stem("new"))
    resume = ["fit", *OF_RUN, "--trainer.max_steps", 4]
    assert "from inside an epoch, and images have come or gone" in fails(*resume)


# Images in memory


@pytest.mark.parametrize("change", [{"val_size": 0}, {"val_size": 60}, {"split_seed": 1}])
def test_cifar10_is_not_split_otherwise_when_resumed(cifar, change):
    before, now = CIFAR10(cifar, val_size=50), CIFAR10(cifar, **{"val_size": 50} | change)
    for data in (before, now):
        data.setup("fit")
    content = {"config": {"data": {"class_path": "datamodules.CIFAR10"}}, "preprocessing": {}}
    record = CheckpointRecord(class_names=before.class_names, **content, **identify(before, None))
    now.follow(RunData(record, None, same_source=False, selected_on_validation=True))
    with pytest.raises(UserError, match="not those that this run held back"):
        compare_with_run(now, "fit")
    moved = CIFAR10(cifar.rename(cifar.with_name("elsewhere")), val_size=50)
    moved.follow(RunData(record, None, same_source=False, selected_on_validation=True))
    moved.setup("fit"), moved.setup("test")
    assert compare_with_run(moved, "fit") == [] and identify_evaluated(moved, "test").is_run_data
    assert not identify_evaluated(moved, "test").selected_on_test


@pytest.mark.parametrize("other", [Digits, lambda: Synthetic(classes=10, size=32)])
def test_ten_other_classes_are_not_cifar10s(cifar, other):
    data = CIFAR10(cifar, val_size=50)
    with pytest.raises(UserError, match="the data have no class airplane, automobile, bird, cat, deer and 5 more"):
        match_classes(other().class_names, data.class_names)


@pytest.mark.parametrize("order", ["by class", "in turn"])
@pytest.mark.parametrize("change", [{}, {"split_seed": 1}, {"val_size": 5}, {"size": 16}])
def test_images_in_memory_that_are_split_otherwise_are_refused_in_whatever_order_they_are_stored(order, change):
    labels = torch.arange(20) % 2 if order == "in turn" else torch.arange(20) // 10
    generator = torch.Generator().manual_seed(0)
    images = [Image.fromarray(torch.randint(256, (9, 9), generator=generator).numpy().astype(np.uint8)) for _ in labels]

    def load(**kwargs) -> TorchvisionData:
        pairs = list(zip(images, labels.tolist(), strict=True))
        data = TorchvisionData(pairs, pairs, num_classes=2, **{"size": 8, "val_size": 4} | kwargs)
        data.setup("fit")
        return data

    before, now = load(), load(**change)
    content = {"config": {"data": {"class_path": "datamodules.TorchvisionData"}}, "preprocessing": {}}
    now.follow(RunData(CheckpointRecord(class_names=["0", "1"], **content, **identify(before, None)), None, True, True))
    if change.keys() & {"split_seed", "val_size"}:
        with pytest.raises(UserError, match="not those that this run held back"):
            compare_with_run(now, "fit")
    else:
        assert compare_with_run(now, "fit") == []
