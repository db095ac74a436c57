"""Packed data sets: written, read as the folder that they come from, and what is refused."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import ImageNet
from datamodules.image_files import ImageFiles, content_id, content_id_of
from datamodules.imagenet import pack
from datamodules.imagenet.__main__ import main as imagenet
from datamodules.packed import writer
from datamodules.packed.chunks import decode_image, encode_pixels, make_chunk
from datamodules.packed.index import PackedIndex, parse_index
from datamodules.packed.writer import IMAGES_PER_CHUNK
from datamodules.samplers import SampleSpec
from errors import UserError
from tests.datamodules.test_imagenet import write


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """train/ with 5 and 4 photos of two classes, one of them large, and val/ with 2 of each."""
    root = tmp_path_factory.mktemp("photos")
    for seed, (name, count) in enumerate({"ape": 5, "bear": 4}.items()):
        write(root / "train" / name, count, seed)
        write(root / "val" / name, 2, seed + 10)
    shutil.copy(root / "train/ape/0.jpg", root / "train/ape/kept as it is.jpg")
    return root


@pytest.fixture(scope="module")
def packed(photos, tmp_path_factory) -> Path:
    """The photos as JPEG with a shorter side of 32 pixels, three in a chunk."""
    target = tmp_path_factory.mktemp("packed") / "jpeg"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(IMAGES_PER_CHUNK, "jpeg", 3)
        pack.pack_tree(photos, target, shorter_side=32, workers=1)
    return target


@pytest.fixture
def copy(packed, tmp_path) -> Path:
    """A copy of the packed photos to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def load(root: Path, stage: str = "fit") -> ImageNet:
    data = ImageNet(root, size=16, batch_size=4, num_workers=0)
    data.setup(stage)
    return data


def test_a_packed_copy_is_the_resized_folder(photos, packed, tmp_path):
    imagenet(["resize", str(photos), str(tmp_path / "resized"), "--shorter_side", "32", "--workers", "1"])
    folder, copy = load(tmp_path / "resized"), load(packed)
    assert sorted(path.name for path in (packed / "train").iterdir()) == [
        *(f"chunk-0-{number}.bin" for number in range(4)),
        "images.json",
        "index.json",
    ]
    assert copy.class_names == folder.class_names == ["ape", "bear"]
    for ours, theirs in ((copy.train_set, folder.train_set), (copy.val_set, folder.val_set)):
        assert ours.file_names == theirs.file_names
        assert copy.fingerprint(ours) == folder.fingerprint(theirs)
        assert ours.older_fingerprint() == theirs.older_fingerprint()
    specs = [SampleSpec(index, seed, 16) for seed, index in enumerate([7, 0, 3, 9])]
    ours, theirs = copy.train_set.__getitems__(specs), folder.train_set.__getitems__(specs)
    assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)
    part = copy.train_set.subset(np.array([4, 8]))
    assert part.file_names == [copy.train_set.file_names[k] for k in (4, 8)] and part.content(
        1
    ) == copy.train_set.content(8)
    assert torch.equal(
        part.__getitems__([SampleSpec(1, 5, 16)]).images, copy.train_set.__getitems__([SampleSpec(8, 5, 16)]).images
    )


def test_pixels_are_those_of_the_shrunken_images(photos, tmp_path):
    pack.pack_tree(photos, tmp_path / "raw", format="uint8", shorter_side=24, workers=1)
    raw, files = load(tmp_path / "raw"), load(photos)
    image, original = raw.train_set.open(2), files.train_set.open(2)
    assert (image.height, image.width) == (24, 31)
    assert torch.equal(image.resize((24, 31)), original.resize((24, 31)))
    assert image.crop((2, 3, 8, 9), (4, 4)).shape == (3, 4, 4)
    assert len(load(tmp_path / "raw", "test").test_set.__getitems__([0, 3]).labels) == 2


def test_a_second_packing_finds_it_complete_and_another_one_is_refused(photos, packed, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "pack_chunks", lambda *_: pytest.fail("it is packed already"))
        pack.pack_tree(photos, packed, shorter_side=32, workers=1)
    assert "is complete: images 10 in train/, 4 in val/" in capsys.readouterr().out
    with pytest.raises(UserError, match="the packed copy of other images than .* or with other settings: choose"):
        pack.pack_tree(photos, packed, shorter_side=33)
    with pytest.raises(UserError, match="is packed already: name the folder that it was packed from"):
        pack.pack_tree(packed, packed.parent / "again")


def test_a_packing_that_stopped_goes_on(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(IMAGES_PER_CHUNK, "jpeg", 3)
    target = tmp_path / "new"
    monkeypatch.setattr(pack, "write_split", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack.pack_tree(photos, target, workers=1)
    with pytest.raises(UserError, match=r"holds half a packed data set: type `python -m datamodules.imagenet pack SRC"):
        ImageNet(target)
    monkeypatch.undo()
    monkeypatch.setitem(IMAGES_PER_CHUNK, "jpeg", 3)
    whole, cut = target / "train/chunk-0-1.bin", target / "train/chunk-0-2.bin"
    (target / "train/chunk-0-3.bin.99.part").write_bytes(b"half a chunk")
    cut.write_bytes(cut.read_bytes()[:-1])
    time = whole.stat().st_mtime_ns
    with pytest.raises(UserError, match="holds half a packed copy of other images than"):
        pack.pack_tree(photos, target, quality=80)
    pack.pack_tree(photos, target, workers=1)
    assert whole.stat().st_mtime_ns == time
    assert not [path for path in target.rglob("*") if path.suffix in (".part", ".lock") or path.name == "packing.json"]
    assert not list(target.rglob("chunk*.json"))
    assert len(load(target).train_set) == 10


def test_a_packing_that_was_killed_at_its_very_end_leaves_nothing_behind(photos, copy):
    leftovers = [copy / "packing.json", copy / "train/chunk-0-1.json", copy / "val/chunk-0-0.json"]
    for path in leftovers:
        path.write_text("{}")
    pack.pack_tree(photos, copy, shorter_side=32, workers=1)
    assert not any(path.exists() for path in leftovers) and len(load(copy).train_set) == 10


def test_the_names_of_a_split_are_decoded_once(photos, tmp_path, monkeypatch):
    read, file_names = [], ImageFiles.file_names
    monkeypatch.setattr(ImageFiles, "file_names", property(lambda images: read.append(1) or file_names.fget(images)))
    pack.pack_tree(photos, tmp_path / "new", workers=1)
    assert len(read) < 10  # of 14 images in two splits: a million names would be decoded a million times


def test_no_more_processes_are_started_than_there_are_chunks(photos, tmp_path, monkeypatch):
    started, pool = [], writer.ProcessPoolExecutor
    monkeypatch.setattr(writer, "ProcessPoolExecutor", lambda n, *args, **kw: started.append(n) or pool(n, *args, **kw))
    pack.pack_tree(photos, tmp_path / "packed", workers=100_000)
    assert started == [2]  # chunks: one of train/, one of val/


def test_unreadable_images_stop_a_packing_or_are_left_out(photos, tmp_path, capsys):
    source, target = Path(shutil.copytree(photos, tmp_path / "photos")), tmp_path / "packed"
    (source / "train/ape/2.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 image could not be read:\n.*2.jpg: .*\n.*--on_bad_image skip"):
        pack.pack_tree(source, target, workers=1)
    pack.pack_tree(source, target, on_bad_image="skip", workers=1)
    assert "left out" in capsys.readouterr().out
    data = load(target)
    assert "ape/2.jpg" not in data.train_set.file_names and len(data.train_set) == 9
    for index in range(9):
        assert data.train_set.labels[index] == (data.train_set.file_names[index] >= "bear")
        assert data.train_set.content(index) == content_id_of(bytes(data.train_set.open(index).data))


def test_the_content_of_bytes_is_that_of_a_file(tmp_path):
    for size in (0, 5, 2**16, 2**16 + 3, 2**17 + 9):
        data = os.urandom(size)
        (tmp_path / "file").write_bytes(data)
        assert content_id_of(data) == content_id(os.fsencode(tmp_path / "file"))


DAMAGES = {
    "a missing chunk": (
        lambda root: (root / "train/chunk-0-1.bin").unlink(),
        "chunk-0-1.bin of a packed data set is miss",
    ),
    "a shorter chunk": (
        lambda root: cut(root / "val/chunk-0-0.bin"),
        "chunk-0-0.bin has .* bytes and was written with",
    ),
    "no list": (lambda root: (root / "train/images.json").unlink(), "images.json of a packed data set cannot be read"),
    "another list": (
        lambda root: cut(root / "train/images.json"),
        "images.json is not as .* its content is not the one",
    ),
    "no JSON": (lambda root: cut(root / "packed.json"), "packed.json is not as .* it is no JSON object"),
    "a format": (lambda root: change(root, format="pickle"), "its format is 'pickle' and should be jpeg or uint8"),
    "a version": (lambda root: change(root, version=2), "its version is 2 and should be 1"),
    "a split": (lambda root: change(root, splits={"../x": ""}), "its splits are ../x and should be train"),
    "one class": (lambda root: change(root, classes=["ape"]), "it has fewer than two classes"),
    "a number": (lambda root: change(root, classes=[1, 2]), "classes.0 is a int"),
    "a negative number": (lambda root: change(root, quality=-1), r"quality is a int \(-1\) and should be 0 or more"),
    "a class twice": (lambda root: change(root, classes=["ape", "ape"]), "it names a class twice"),
    "a pipe as list": (lambda root: make_pipe(root / "packed.json"), "packed.json of a packed .*it is a folder, pipe"),
    "a pipe as chunk": (
        lambda root: make_pipe(root / "train/chunk-0-0.bin"),
        "chunk-0-0.bin of .* data set is no file",
    ),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def change(root: Path, **values: object) -> None:
    path = root / "packed.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_copies_are_refused_in_one_sentence(copy, damage):
    harm, message = DAMAGES[damage]
    harm(copy)
    with pytest.raises(UserError, match=message):
        load(copy)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b", "\ud800", "a" * 256])
def test_classes_that_no_folder_can_have_are_refused(copy, name):
    change(copy, classes=[name, "bear"])
    with pytest.raises(UserError, match="which no folder can be called"):
        load(copy)


def test_a_list_that_names_other_files_is_refused(copy):
    path = copy / "train/images.json"
    fields = json.loads(path.read_text())
    for change_it, message in (
        (lambda f: f["chunks"][0].__setitem__(0, "../../secret"), "a chunk.0 is a str .* of another form"),
        (lambda f: f["chunks"][0][2].__setitem__(0, 1), "do not hold each image once"),
        (lambda f: f["names"].__setitem__(0, "a\0b"), "which no file can be called"),
        (lambda f: f["names"].__setitem__(0, "../../x.jpg"), "which no file can be called"),
        (lambda f: f["names"].__setitem__(0, "/etc/passwd"), "which no file can be called"),
        (lambda f: f["names"].__setitem__(0, ""), "which no file can be called"),
        (lambda f: f["names"].__setitem__(0, f["names"][1]), "lists an image or a chunk twice"),
        (lambda f: f["chunks"][0].__setitem__(0, f["chunks"][1][0]), "lists an image or a chunk twice"),
        (lambda f: f["contents"].__setitem__(0, "\ud800"), "which is no size and SHA-256"),
        (lambda f: f["contents"].__setitem__(0, "9" * 5000 + "-" + "0" * 64), "which is no size and SHA-256"),
        (lambda f: f["labels"].__setitem__(0, 2), "labels without a class"),
        (lambda f: f["labels"].__setitem__(0, "x"), "one of another kind"),
        (lambda f: f.pop("contents"), "lacks a list"),
    ):
        changed = json.loads(json.dumps(fields))
        change_it(changed)
        path.write_text(json.dumps(changed))
        change(copy, splits={"train": hashlib.sha256(path.read_bytes()).hexdigest()})
        with pytest.raises(UserError, match=message):
            load(copy)


def test_a_damaged_chunk_is_an_unreadable_image(copy):
    data = load(copy)
    path = copy / "train" / "chunk-0-0.bin"
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(content[:-3]) + bytes(3))
    first = int(np.flatnonzero(data.train_set.chunk_of == 0)[0])
    assert data.train_set.check_file(first) is None
    path.write_bytes(content[:200])
    last = int(np.flatnonzero((data.train_set.chunk_of == 0) & (data.train_set.item_of == 2))[0])
    assert "chunk-0-0.bin is cut off" in data.train_set.check_file(last).reason
    path.write_bytes(b"\xff" * len(content))
    assert "does not begin as a chunk" in load(copy).train_set.check_file(first).reason
    path.unlink()
    assert "cannot be read" in data.train_set.check_file(first).reason


@pytest.mark.parametrize("pixels", [b"", encode_pixels(np.zeros((2, 3, 3), np.uint8))[:-1], b"\xff" * 60])
def test_pixels_of_another_size_are_refused(pixels):
    with pytest.raises(UserError, match="cut off|of the size that is written beside them"):
        decode_image(memoryview(bytearray(pixels)), "uint8")


def test_a_chunk_too_large_for_its_offsets_is_refused(monkeypatch):
    monkeypatch.setattr("datamodules.packed.chunks.MAX_CHUNK_BYTES", 40)
    with pytest.raises(UserError, match="a chunk of 2 images would have 72 bytes, and 40 is the most"):
        make_chunk([b"x" * 12, b"y" * 12], [0, 1])


def test_targets_that_are_refused(photos, tmp_path):
    with pytest.raises(UserError, match="choose a folder outside it"):
        pack.pack_tree(photos, photos / "packed")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis.tex and no packed images: choose a new folder"):
        pack.pack_tree(photos, tmp_path / "full")
    with pytest.raises(UserError, match="There is no folder"):
        pack.pack_tree(tmp_path / "nowhere", tmp_path / "new")
    with (
        pack.lock_folder(tmp_path),
        pytest.raises(UserError, match="Another process packs into"),
        pack.lock_folder(tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("pack A B --quality 1.5", "quality is 1.5: it must be a whole number."),
        ("resize A B --workers many", "workers is many: it must be a whole number."),
        ("pack A B --format png", "format is png: it must be one of 'jpeg', 'uint8'."),
        ("pack A B --on_bad_image maybe", "on_bad_image is maybe: it must be one of 'stop', 'skip'."),
        ("pack . ../B --quality 0", "quality is 0: it must be between 1 and 100."),
        ("pack . ../B --workers -1", "workers is -1: it must be at least 1."),
        ("pack A B --shorter_side", "--shorter_side needs a value."),
        ("pack A B --size 3", "There is no argument --size here. See --help."),
        ("pack A B C", "There is no argument C here. See --help."),
        ("pack A B --config /none.yaml", "There is no config file /"),
        ("pack A", "Give a command and two folders: pack SRC DST, or resize SRC DST."),
        ("", "Give a command and two folders: pack SRC DST, or resize SRC DST."),
        ("packs A B", "There is no command packs: choose from resize, pack."),
        (
            "pack . s3://bucket/x",
            "s3://bucket/x is in an object store: name folders on a disk, and copy the packed one ",
        ),
        ("resize s3://bucket/x ../B", "s3://bucket/x is in an object store: name folders on a disk, and copy the "),
    ],
)
def test_mistakes_in_the_command_are_one_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        imagenet(words.split())
    assert stop.value.code.startswith(f"error: {sentence}") and "\n" not in stop.value.code
    assert capsys.readouterr().err == "" and not list(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence(photos, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", str(tmp_path / "packed/train/chunk-0-0.bin"))

    monkeypatch.setattr(pack, "pack_chunks", full)
    with pytest.raises(UserError, match=r"chunk-0-0.bin cannot be written \(No space left on device\): make room, and"):
        pack.pack_tree(photos, tmp_path / "packed")


@pytest.mark.slow
@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
def test_litdata_reads_each_split(photos, tmp_path, image_format):
    litdata = pytest.importorskip("litdata")
    pack.pack_tree(photos, tmp_path / "packed", format=image_format, shorter_side=24, workers=1)
    data = load(tmp_path / "packed")
    rows = list(litdata.StreamingDataset(str(tmp_path / "packed/train"), cache_dir=str(tmp_path / "cache")))
    assert len(rows) == 10
    order = np.lexsort((data.train_set.item_of, data.train_set.chunk_of))
    for index, row in zip(order, rows, strict=True):
        assert row["label"] == data.train_set.labels[index]
        pixels = row["image"] if image_format == "jpeg" else row["image"].permute(2, 0, 1)
        image = data.train_set.open(index)
        ours = image.resize((image.height, image.width))
        assert (pixels.float() - ours.float()).abs().mean() < (1 if image_format == "jpeg" else 1e-9)


def test_an_index_is_read_as_it_was_written(tmp_path):
    index = PackedIndex("jpeg", 256, 90, ["a", "b"], {"train": "x"}, "y")
    assert parse_index(index.text.encode(), tmp_path) == index
