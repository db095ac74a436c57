"""Folders as people have them: splits, classes, links, hidden files, suffixes; fit, predict and copies see the same."""

import os
import shutil
import socket
import unicodedata
from pathlib import Path

import pytest

from datamodules import ImageNet, Photos
from datamodules.class_folders import find_splits, split_of
from datamodules.folder_walk import FolderWalk, is_image_file
from datamodules.resize import resize_tree
from errors import UserError
from tests.conftest import PREPROCESSING
from tests.datamodules.test_decode import encoded, photo

JPEG = encoded(photo(20, 30))


def make(root: Path, *names: str) -> Path:
    """Empty files, and the folders in which they lie."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def classes(*folders: str) -> list[str]:
    """Two images of each of two classes in each folder."""
    return [f"{folder}/{name}/{k}.jpg" for folder in folders for name in ("cat", "dog") for k in range(2)]


def fit_names(root: Path) -> list[str]:
    """The images that a training reads, those held back included."""
    data = ImageNet(root, val_size=1)
    data.setup("fit")
    return sorted(os.fsdecode(name) for images in (data.train_set, data.val_set) for name in images.names)


def predict_names(root: Path) -> list[str]:
    return sorted(os.path.relpath(path, root) for path in Photos(root, PREPROCESSING, ["cat", "dog"]).files)


# Splits and classes


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Training", "train"), ("training_set", "train"), ("TRAIN-images", "train"),
        ("trainset", "train"),
        ("val", "val"), ("Valid", "val"), ("VALIDATION", "val"), ("validation set", "val"), ("val_data", "val"),
        ("test", "test"), ("Testing", "test"), ("test_set", "test"), ("TestData", "test"),
        ("trains", None), ("trainer", None), ("value", None), ("invalid", None), ("contest", None), ("testament", None),
        ("cat", None), ("set", None), ("data", None), ("", None),
    ],
)  # fmt: skip
def test_names_of_splits_are_known_in_any_case(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"), ("Training", "Validation", "Testing"), ("training_set", "valid", "test_set"),
        ("TRAIN", "Val", None), ("Training", None, "Testing"), ("train", None, None),
        ("training", "validation_set", None),
    ],
)  # fmt: skip
def test_splits_are_read_as_splits_and_never_as_classes(tmp_path, train, val, test):
    root = make(tmp_path, *classes(*filter(None, (train, val, test))))
    data = ImageNet(root)
    assert data.classes == ["cat", "dog"] and data.train_folder == root / train
    assert find_splits(root).val == (val and root / val) and find_splits(root).test == (test and root / test)


def test_validation_is_validation_and_test_is_read_by_test_alone(tmp_path):
    root = make(tmp_path, *classes("Train", "Valid", "Testing"), "Testing/dog/more.jpg", "Valid/cat/other.jpg")
    data = ImageNet(root)
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set)) == (4, 5) and b"cat/other.jpg" in data.val_set.names
    data.setup("validate")
    assert b"cat/other.jpg" in data.val_set.names and not hasattr(data, "test_set")
    data.setup("test")
    assert len(data.test_set) == 5 and b"dog/more.jpg" in data.test_set.names


def test_a_test_without_val_leaves_the_validation_images_to_the_training_folder(tmp_path):
    data = ImageNet(make(tmp_path, *classes("Training", "Testing")), val_size=1)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 4 and data.val_set.folder.endswith(b"Training")


@pytest.mark.parametrize("name", ["train", "Training", "training_set"])
def test_train_is_a_class_where_images_lie_right_in_it_beside_other_classes(tmp_path, name):
    root = make(tmp_path, f"{name}/steam.jpg", f"{name}/diesel.jpg", "car/0.jpg", "plane/0.jpg")
    assert sorted(ImageNet(root).classes) == sorted([name, "car", "plane"])
    assert len(fit_names(root)) == 4


def test_within_a_split_every_name_is_a_class(tmp_path):
    root = make(tmp_path, "train/test/0.jpg", "train/train/0.jpg", "train/cat/0.jpg", "train/val/deep/0.jpg")
    assert ImageNet(root).classes == ["cat", "test", "train", "val"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (classes("val", "test"), "has val/, test/ and no training images: they belong in"),
        (classes("Testing"), "has Testing/ and no training images"),
        (["cat/0.jpg", "dog/0.jpg", "test/0.jpg"], "has test/, named after a split, beside cat/, dog/"),
        ([*classes("."), *classes("Validation")], "has Validation/, named after a split, beside cat/, dog/"),
        (classes("train", "Training"), "has Training and train, which mean the same split"),
        (classes("train", "val", "valid"), "has val and valid, which mean the same split"),
        ([*classes("train"), "car/0.jpg"], "has train/ with folders in it beside car/ with images"),
        (["train/0.jpg", "val/0.jpg", "cat/0.jpg"], "train has no class folders"),
        (["train/0.jpg", "train/1.jpg"], "train has no class folders"),
        (classes("photos"), "has a single class folder, photos: a classifier needs two or more (or name"),
        ([f"{name}/{split}/0.jpg" for name in ("cat", "dog") for split in ("train", "test")],
         "cat has test/, train/ in it, so its test images would be trained on"),
    ],
)  # fmt: skip
def test_what_may_be_a_split_or_a_class_is_refused_in_a_sentence(tmp_path, files, said):
    with pytest.raises(UserError) as error:
        ImageNet(make(tmp_path, *files)).setup("fit")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_folders_beside_the_splits_are_said_not_to_be_read(tmp_path, capsys):
    root = make(tmp_path, *classes("train", "val"), "devkit/data/meta.mat", "unlabelled/0.jpg")
    assert ImageNet(root).classes == ["cat", "dog"]
    assert capsys.readouterr().out == f"Data: unlabelled/ beside {root / 'train'} are not read\n"


@pytest.mark.parametrize("name", ["tests", "dev", "eval", "holdout", "test1", "my-test"])
@pytest.mark.parametrize("splits", [("train",), ("train", "val")])
def test_folders_that_other_projects_call_splits_are_said_not_to_be_read(tmp_path, splits, name, capsys):
    root = make(tmp_path, *classes(*splits), *classes(name), "notes/old/0.jpg")
    assert ImageNet(root).classes == ["cat", "dog"]
    said = f"Data: {name}/ beside {root / 'train'} are not read (splits are called train/, val/ and test/)\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    "names",
    [
        ("train1", "val1", "test1"), ("train_2012", "val_2013", "test_2014"), ("Train-v2", "Valid-v2", "Testing-v2"),
        ("digits_train", "digits_dev", "digits_test"), ("train.1", "eval.1", "holdout.1"), ("train", "dev", "tests"),
        ("trainset1", "valset1", "testset1"), ("2012 train", "2012 val", "2012 test"),
    ],
)  # fmt: skip
def test_folders_named_alike_after_splits_are_not_taken_for_classes(tmp_path, names):
    flat = make(tmp_path / "flat", *(f"{name}/0.jpg" for name in names))
    with pytest.raises(UserError, match="look like splits and would be classes: rename them to train/, val/ and test/"):
        ImageNet(flat)
    if "train" not in names:
        for count in (2, 3):
            with pytest.raises(UserError, match="look like splits and would be classes"):
                ImageNet(make(tmp_path / str(count), *classes(*names[:count])))


@pytest.mark.parametrize(
    "names",
    [
        ("train dummy", "test tube", "value"), ("training dummy", "test tube", "validation stamp"),
        ("train", "car", "dev"),
        ("train1", "train2", "train3"), ("test1", "test2", "cat"), ("trainer", "evaluator", "tester"),
        ("train 1", "test tube", "val gardena"), ("train 1", "test 1"), ("training day", "dev day", "cat"),
    ],
)  # fmt: skip
def test_classes_whose_names_begin_as_those_of_splits_are_possible(tmp_path, names, capsys):
    assert sorted(ImageNet(make(tmp_path, *(f"{name}/0.jpg" for name in names))).classes) == sorted(names)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("split", ["val", "Testing"])
def test_a_split_that_is_a_link_to_the_training_images_is_refused(tmp_path, split):
    make(tmp_path, *classes("train"))
    (tmp_path / split).symlink_to("train")
    with pytest.raises(UserError, match="by a link: its images would be the ones trained on"):
        ImageNet(tmp_path)


# Links, hidden files and what is no file


def all_see(root: Path, tmp_path: Path, expected: list[str]) -> None:
    """Training, prediction and the smaller copy find the same images."""
    assert fit_names(root) == predict_names(root) == sorted(expected)
    for path in expected:
        (root / path).write_bytes(JPEG)
    resize_tree(root, tmp_path / "copy", 10, workers=1)
    copied = [str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert sorted(name for name in copied if is_image_file(str(tmp_path / "copy" / name))) == sorted(expected)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("cat/cat", "cat"), ("cat/up", "."), ("cat/deep/up", "cat"), ("cat/other", "dog"), ("dog/self", "dog/self"),
        ("cat/further/up", ".."),
    ],
)  # fmt: skip
def test_a_link_that_leads_back_multiplies_nothing(tmp_path, link, target, capsys):
    root = make(tmp_path / "d", *classes("."), "cat/deep/2.jpg")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(root / target)
    all_see(root, tmp_path, [*(name[2:] for name in classes(".")), "cat/deep/2.jpg"])
    said = capsys.readouterr().out
    assert f"passed over in {root}: " in said and f": 1 ({link})" in said


def test_links_that_lead_to_each_other_end(tmp_path):
    root = make(tmp_path / "d", *classes("."))
    (root / "cat" / "x").symlink_to(root / "dog"), (root / "dog" / "y").symlink_to(root / "cat")
    all_see(root, tmp_path, [name[2:] for name in classes(".")])


def test_links_to_folders_elsewhere_are_followed_everywhere_alike(tmp_path):
    make(tmp_path / "elsewhere", *classes("."), "cat/album.jpg/inside.jpg")
    (tmp_path / "chosen").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "chosen" / name).symlink_to(tmp_path / "elsewhere" / name)
    all_see(tmp_path / "chosen", tmp_path, [*(name[2:] for name in classes(".")), "cat/album.jpg/inside.jpg"])


def test_a_real_folder_comes_before_a_link_to_it(tmp_path):
    root = make(tmp_path, *classes("."), "cat/z/0.jpg")
    (root / "cat" / "a").symlink_to("z")
    assert [name for name in fit_names(root) if name.startswith("cat/")] == ["cat/0.jpg", "cat/1.jpg", "cat/z/0.jpg"]


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("kitten", "cat", "by a link, the same folder as another one"),
        ("all", ".", "all is a link to a folder that it lies in"),
        ("bird", "gone", "bird is a link to what is not there"),
    ],
)
def test_classes_that_are_links_to_the_wrong_place_are_refused(tmp_path, name, target, said):
    root = make(tmp_path, *classes("."))
    (root / name).symlink_to(target)
    with pytest.raises(UserError, match=said):
        fit_names(root)


def test_pipes_sockets_and_devices_are_never_opened(tmp_path, monkeypatch, capsys):
    root = make(tmp_path / "d", *classes("."))
    os.mkfifo(root / "cat" / "pipe.jpg"), os.mkfifo(root / "cat" / "pipe")
    (root / "dog" / "null.png").symlink_to("/dev/null")
    monkeypatch.chdir(root / "dog")  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        all_see(root, tmp_path, [name[2:] for name in classes(".")])
    assert "pipes, sockets or devices: 4 (cat/pipe, cat/pipe.jpg, dog/null.png, ...)" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"pipe\.jpg is neither a file nor a folder"):
        Photos(root / "cat" / "pipe.jpg", PREPROCESSING, ["cat", "dog"])


def test_what_is_passed_over_is_counted_and_said_once(tmp_path, capsys):
    hidden = [".DS_Store", "cat/.cache/0.jpg", "cat/._0.jpg", "cat/__MACOSX/0.jpg", "dog/@eaDir/0.jpg", "dog/.git/a"]
    root = make(tmp_path / "d", *classes("."), *hidden, "cat/notes.txt", "dog/README", "stray.jpg", "labels.csv")
    assert len(fit_names(root)) == 4
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "passed over" in line]
    assert (
        "images outside of class folders: 1 (stray.jpg)" in line
        and "files that are no images: 2 (cat/notes.txt, " in line
    )
    assert "hidden: 5 (cat/._0.jpg, cat/.cache, cat/__MACOSX, ...)" in line
    shutil.rmtree(root / "cat")
    assert predict_names(root) == ["dog/0.jpg", "dog/1.jpg", "stray.jpg"]


def test_broken_links_with_an_images_name_are_unreadable_images(tmp_path):
    root = make(tmp_path, *classes("."))
    for name, target in (("gone.jpg", "nowhere"), ("circle.jpg", "circle.jpg")):
        (root / "cat" / name).symlink_to(target)
    data = ImageNet(root, val_size=0)
    data.setup("fit")
    reasons = [data.train_set.check_file(index).reason for index in (2, 3)]
    assert "Too many levels of symbolic links" in reasons[0] and "No such file" in reasons[1]


@pytest.mark.parametrize(
    "suffix", [".jfif", ".JPE", ".avif", ".tif", ".TIFF", ".webp", ".bmp", ".gif", ".heic", ".pnm"]
)
def test_suffixes_of_images(tmp_path, suffix):
    assert is_image_file(f"somewhere/photo{suffix}") and not is_image_file(f"photo{suffix}.txt")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_files_without_suffix_are_images_by_their_content(tmp_path, kind):
    root = make(tmp_path / "d", *classes("."))
    (root / "cat" / "12345").write_bytes(encoded(photo(20, 30), kind))
    for name, content in (("README", b"BM is a text"), ("empty", b""), ("II", b"II")):
        (root / "cat" / name).write_bytes(content)
    assert fit_names(root) == predict_names(root) == sorted([*(name[2:] for name in classes(".")), "cat/12345"])


# Names


def test_names_in_another_normal_form_are_the_same_class_and_two_of_them_are_refused(tmp_path):
    composed, parts = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    root = make(tmp_path, f"train/{composed}/0.jpg", "train/Tee/0.jpg", f"val/{parts}/0.jpg", "val/Tee/0.jpg")
    data = ImageNet(root)
    data.setup("fit")
    assert data.val_set.labels.tolist() == [0, 1] and data.val_set.names.tolist()[0] == f"{parts}/0.jpg".encode()
    make(root, f"train/{parts}/0.jpg")
    with pytest.raises(UserError, match=r"'Caf\\xe9' .*'Cafe\\u0301'|'Cafe\\u0301' .*'Caf\\xe9'"):
        ImageNet(root)


def test_classes_that_differ_in_case_are_said(tmp_path, capsys):
    root = make(tmp_path, "train/a/0.jpg", "train/A/0.jpg", "train/b/0.jpg", "val/B/0.jpg")
    data = ImageNet(root)
    assert data.classes == ["A", "a", "b"] and "A and a are two classes" in capsys.readouterr().out
    with pytest.raises(UserError, match="has a class B and the training images do not: rename it to b"):
        data.setup("fit")


def test_a_walk_enters_a_folder_once_and_counts_what_it_passes(tmp_path):
    root = make(tmp_path, "a/0.jpg", "a/b/1.jpg", "a/b/c/2.txt", "a/.hidden")
    walk = FolderWalk()
    assert walk.list_images(str(root / "a")) == [[str(root / "a" / "0.jpg"), str(root / "a" / "b" / "1.jpg")]]
    assert walk.counts == {"hidden": 1, "files that are no images": 1} and len(walk.entered) == 3
