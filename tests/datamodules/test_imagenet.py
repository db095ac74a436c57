"""Photos in class folders: what is found, how it is varied, that runs repeat to the bit, and what is refused."""

import csv
import json
import math
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.stats import kstest
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from batch import Batch
from datamodules import ImageNet
from datamodules.augment import Augmentation, random_colour_jitter, random_erasing, random_flip, random_lighting
from datamodules.class_folders import find_images
from datamodules.crops import CenterCrop, TrainCrop
from datamodules.decode import EncodedImage
from datamodules.imagenet import MEAN, STD
from datamodules.imagenet.__main__ import main as imagenet
from datamodules.samplers import ExactSampler
from errors import pluralize
from tests.checkpointing.test_resume import same
from tests.conftest import HOME, STEP_CHECKPOINTS
from tests.datamodules.test_decode import encoded, gap, photo, turned

NET = ["--model", "tests.dropout_net.LitDropoutNet", "--model.optimizer", "torch.optim.SGD"]
EVERYTHING = {
    "colour": 0.4,
    "lighting": 0.1,
    "trivial": True,
    "erasing": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "repeats": 2,
    "growing": (32, 0, 3),
}


def write(folder: Path, count: int, seed: int = 0, suffix: str = ".jpg") -> Path:
    """A folder of photos, 0.jpg and so on; no two are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        photo(40, 52, seed=1000 * seed + i).save(folder / f"{i}{suffix}")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ with 8, 8 and 6 photos of three classes and val/ with 3 of each."""
    for seed, (name, count) in enumerate({"ape": 8, "bear": 8, "cat": 6}.items()):
        write(tmp_path / "photos" / "train" / name, count, seed)
        write(tmp_path / "photos" / "val" / name, 3, seed + 10)
    return tmp_path / "photos"


def fit(root: Path, *flags: object) -> list[object]:
    """A command that trains a tiny net on photos for an epoch."""
    start = ["fit", "--run_name", "photos/net", "--data", "datamodules.ImageNet", "--data.root", root, *NET]
    start += ["--data.size", 16, "--data.batch_size", 8, "--data.num_workers", 0]
    return [*start, "--trainer.max_epochs", 1, "--trainer.accelerator", "cpu", *flags]


class Recorder(pl.LightningModule):
    """Trains nothing, and keeps images and labels of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.batches.append((batch.images, batch.labels))

    def configure_optimizers(self) -> None:
        return None


def batches(data: ImageNet, epochs: int = 1) -> list[tuple[Tensor, Tensor]]:
    """What a net is given in training."""
    quiet = ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "barebones"]
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", use_distributed_sampler=False, **dict.fromkeys(quiet, False)
    )
    recorder = Recorder()
    trainer.fit(recorder, data)
    return recorder.batches


def equal(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def loaded(data: ImageNet, epoch: int = 0) -> list:
    """What the loader hands over in an epoch, before anything is done on the device."""
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def names(images) -> list[str]:
    return [name.decode() for name in images.names]


# What is found


def test_train_and_val_folders(photos, capsys):
    data = ImageNet(photos)
    assert (data.num_classes, data.class_names, data.train_size) == (3, ["ape", "bear", "cat"], 224)
    assert data.preprocessing == {
        "resize": 256, "crop": 224, "mean": list(MEAN), "std": list(STD), "interpolation": "bilinear"
    }  # fmt: skip
    data.setup("fit")
    assert names(data.train_set)[7:9] == ["ape/7.jpg", "bear/0.jpg"]
    assert np.bincount(data.train_set.labels).tolist() == [8, 8, 6]
    assert np.bincount(data.val_set.labels).tolist() == [3, 3, 3]
    assert "22 training images of 3 classes" in (said := capsys.readouterr().out)
    assert f"9 validation images in {photos / 'val'}\n" in said
    assert "there is no test/ folder: `test` reads the validation images, so its error is optimistic" in said
    data.setup("test")
    assert names(data.test_set) == names(data.val_set)
    assert f"test: 9 images in {photos / 'val'}" in capsys.readouterr().out


def test_to_validate_on_val_the_training_images_are_not_listed(photos, capsys, run):
    data = ImageNet(photos)
    data.setup("validate")
    assert len(data.val_set) == 9 and not hasattr(data, "train_set")
    assert f"validation: 9 images in {photos / 'val'}" in capsys.readouterr().out
    held_back = ImageNet(photos, val_size=5)
    held_back.setup("validate")
    assert len(held_back.val_set) == 5
    run(*fit(photos))
    run("validate", "--allow", "tests", "--ckpt_path", "runs/photos/net")
    assert "val/top1_error" in capsys.readouterr().out


def test_names_start_below_the_folder_however_it_is_written(photos, monkeypatch):
    monkeypatch.chdir(photos / "val")
    for folder in (".", "../train", "../val/../train/", photos / "train"):
        names, _ = find_images(Path(folder), {"ape": 0, "bear": 1, "cat": 2})
        assert names[0] == b"ape/0.jpg" and names[-1].startswith(b"cat/")


def test_a_test_folder_with_classes_is_what_is_tested(photos, capsys):
    write(photos / "test" / "bear", 2, 20)
    data = ImageNet(photos)
    data.setup("fit")
    assert "there is no test/ folder" not in capsys.readouterr().out
    data.setup("test")
    assert data.test_set.labels.tolist() == [1, 1] and len(data.val_set) == 9


def test_a_test_folder_without_labels_is_left_alone(photos):
    write(photos / "test", 5, 20)
    data = ImageNet(photos)
    data.setup("test")
    assert len(data.test_set) == 9


def test_of_class_folders_alone_a_stratified_tenth_is_held_back(photos, capsys):
    root = photos / "train"
    write(root / "bear", 20, 1), write(root / "cat", 12, 2)
    sets = {}
    for seed in (0, 0, 1):
        data = ImageNet(root, split_seed=seed)
        data.setup("fit")
        assert np.bincount(data.val_set.labels).tolist() == [1, 2, 1]
        assert sorted([*names(data.train_set), *names(data.val_set)]) == sorted(
            str(path.relative_to(root)) for path in root.rglob("*.jpg")
        )
        sets.setdefault(seed, []).append(names(data.val_set))
    assert sets[0][0] == sets[0][1] != sets[1][0]
    capsys.readouterr()
    data.setup("test")
    assert names(data.test_set) == sets[1][0]
    assert capsys.readouterr().out == f"Data: test: 4 images of {root}, held back for validation\n"


@pytest.mark.parametrize(("val_size", "held"), [(5, 5), (0.25, 6), (0.5, 11), (1, 1)])
def test_val_size_is_a_number_or_a_share_and_val_stays_for_the_test(photos, val_size, held, capsys):
    data = ImageNet(photos, val_size=val_size)
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set)) == (22 - held, held)
    assert all((photos / "train" / name).is_file() for name in names(data.val_set))
    assert f"{pluralize(held, 'validation image')} held back from the same folder\n" in capsys.readouterr().out
    data.setup("test")
    assert len(data.test_set) == 9


def test_held_back_images_are_looked_at_as_in_evaluation(photos):
    data = ImageNet(photos / "train", size=16, eval_size=24, resize=30, val_size=4)
    data.setup("fit")
    assert loaded(data)[0].images.shape[2:] == (16, 16)
    images, labels, *_ = next(iter(data.val_dataloader()))
    place = (photos / "train" / names(data.val_set)[2]).read_bytes()
    assert torch.equal(images[2], CenterCrop(30, 24)(EncodedImage(place))) and labels.tolist() == [0, 0, 1, 2]


def test_val_size_0_leaves_validation_out(photos, fails, run, capsys):
    data = ImageNet(photos / "train", val_size=0)
    data.setup("fit")
    assert data.val_set is None and data.val_dataloader() == [] and len(data.train_set) == 22
    run(*fit(photos / "train", "--data.val_size", 0, "--trainer.callbacks", "[]"))
    printed = capsys.readouterr().out
    assert "no images to test it on" in printed and "main.py test" not in printed
    assert "python main.py predict --ckpt_path runs/photos/net/version_0 --data.paths" in printed
    said = fails("test", "--allow", "tests", "--ckpt_path", "runs/photos/net/version_0")
    assert "no images to test on" in said and "val_size is 0" in said


@pytest.mark.parametrize("val_size", [22, 100, 0.001, -1, -0.2])
def test_a_val_size_that_holds_nothing_or_everything_back_is_refused(photos, val_size):
    with pytest.raises(ValueError, match=rf"val_size {val_size} of 22 training images"):
        ImageNet(photos, val_size=val_size).setup("fit")


def test_files_of_all_kinds_deep_in_folders_and_behind_links_are_found_and_others_are_not(tmp_path):
    for kind in (".JPEG", ".png", ".webp"):
        write(tmp_path / "root" / "a" / "deep" / "er", 1, suffix=kind)
    write(tmp_path / "elsewhere", 2)
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "root" / "a" / "._0.jpg").write_bytes(b"what a Mac leaves behind")
    (tmp_path / "root" / ".cache").mkdir()
    (tmp_path / "root" / "labels.csv").write_text("")
    data = ImageNet(tmp_path / "root", val_size=0)
    data.setup("fit")
    assert names(data.train_set) == ["a/deep/er/0.JPEG", "a/deep/er/0.png", "a/deep/er/0.webp", "b/0.jpg", "b/1.jpg"]


def test_names_that_are_no_utf8_and_names_with_spaces_are_read(tmp_path):
    for name in (b"a", b"b"):
        write(tmp_path / name.decode(), 1)
    source = tmp_path / "a" / "0.jpg"
    for name in (b"\xff\xe9.jpg", "ä ö.jpg".encode()):
        shutil.copy(source, bytes(tmp_path / "a") + b"/" + name)
    data = ImageNet(tmp_path, size=16, val_size=0, batch_size=4)
    (batch,) = loaded(data)
    assert len(batch.labels) == 4 and not batch.unreadable


# Real ones: readable names are timm's. ImageNet's own numbers (1, 2, 3) do not follow the order of the ids
IDS = ["n01440764", "n01443537", "n02119789"]
NAMES = ["tench, Tinca tinca", "goldfish, Carassius auratus", "kit fox, Vulpes macrotis"]
NUMBERS = {"n02119789": 1, "n01440764": 2, "n01443537": 3}
SHOWN = [2, 0, 1, 1, 2, 0, 0]  # by the images of val/, in the order of their names


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """ImageNet as it is unpacked: WordNet ids below train/, and val/ flat, with nothing that says what it shows."""
    for seed, name in enumerate(IDS):
        write(tmp_path / "a" / "b" / "train" / name, 4, seed, ".JPEG")
    folder = tmp_path / "a" / "b" / "val"
    write(folder, len(SHOWN), 50)
    for i in range(len(SHOWN)):
        (folder / f"{i}.jpg").rename(folder / f"ILSVRC2012_val_{i + 1:08}.JPEG")
    return tmp_path / "a" / "b"


def write_kaggle(path: Path, shown: list[str]) -> None:
    rows = [(f"ILSVRC2012_val_{i + 1:08}", f"{name} 85 1 499 272 {name} 1 2 3 4 ") for i, name in enumerate(shown)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("ImageId", "PredictionString"), *reversed(rows)])  # in no order


def write_devkit(folder: Path, shown: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    synsets = [(number, name, "words") for name, number in NUMBERS.items()] + [(1001, "n00001740", "entity")]
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    savemat(folder / "meta.mat", {"synsets": np.array(synsets, dtype=kind)[:, None]})
    truth = "\n".join(str(NUMBERS[name]) for name in shown) + "\n"
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


@pytest.mark.parametrize("place", [".", "..", "../..", "val"])
def test_the_flat_val_is_mapped_by_kaggles_list(official, place):
    write_kaggle(official / place / "LOC_val_solution.csv", [IDS[k] for k in SHOWN])
    data = ImageNet(official)
    data.setup("fit")
    assert data.val_set.labels.tolist() == SHOWN and data.class_names == NAMES
    assert names(data.val_set)[0] == "ILSVRC2012_val_00000001.JPEG"


@pytest.mark.parametrize("place", ["ILSVRC2012_devkit_t12/data", "../ILSVRC2012_devkit_t12/data", "data", "."])
def test_the_flat_val_is_mapped_by_the_devkit(official, place):
    write_devkit(official / place, [IDS[k] for k in SHOWN])
    data = ImageNet(official)
    data.setup("test")
    assert data.test_set.labels.tolist() == SHOWN


def test_a_flat_val_without_labels_is_refused(official, fails):
    said = fails(*fit(official))
    assert "no file has their labels" in said and "LOC_val_solution.csv" in said and "devkit" in said
    assert not list(Path("runs").rglob("version_*"))


def test_an_image_that_the_list_does_not_name_and_a_class_that_is_not_trained_are_refused(official, fails):
    path = official / "LOC_val_solution.csv"
    write_kaggle(path, [IDS[k] for k in SHOWN[:-1]])
    assert f"ILSVRC2012_val_00000007.JPEG has no label: {path} does not name it" in fails(*fit(official))
    write_kaggle(path, [*(IDS[k] for k in SHOWN[:-1]), "n09999999"])
    assert "says n09999999, a class without training images" in fails(*fit(official))


def test_readable_names_are_kept_in_the_checkpoint(official, run):
    write_devkit(official / "ILSVRC2012_devkit_t12" / "data", [IDS[k] for k in SHOWN])
    run(*fit(official, "--data.mean", "[0.5,0.5,0.5]"))
    checkpoint = torch.load("runs/photos/net/version_0/checkpoints/last.ckpt", weights_only=True)
    record = checkpoint["lit_classics"]
    assert record["class_names"] == NAMES and record["preprocessing"]["mean"] == [0.5] * 3
    assert (record["preprocessing"]["crop"], record["preprocessing"]["resize"]) == (16, 18)
    run("test", "--allow", "tests", "--ckpt_path", "runs/photos/net")
    result = json.loads(Path("runs/photos/net/version_0/test-best-center.json").read_text())
    assert (result["images"], result["partial"]) == (len(SHOWN), False)


def test_names_of_classes_that_are_no_wordnet_ids_stay_as_they_are(tmp_path):
    for name in ("n01440764", "mine"):
        write(tmp_path / name, 1)
    assert ImageNet(tmp_path).class_names == ["mine", "n01440764"]


def test_names_are_kept_in_one_array_and_no_python_object_is_kept_for_an_image(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(500):
            (tmp_path / name / f"{i:04}.jpg").touch()
    data = ImageNet(tmp_path, val_size=0)
    data.setup("fit")
    images = data.train_set
    assert isinstance(images.names, np.ndarray) and images.names.dtype == "S10" and images.names.nbytes == 10_000
    assert isinstance(images.labels, np.ndarray) and images.labels.dtype == np.int64
    assert not [value for value in vars(images).values() if isinstance(value, list | tuple | dict | set)]
    images.fingerprint()
    assert len(pickle.dumps(images)) < 10_000 + 8_000 + 2_000  # this is what a spawned loader process is sent


# How images are varied


@pytest.mark.parametrize("area", [(0.08, 1.0), (0.35, 0.7)])
def test_area_crops_are_torchvisions(area):
    """Of the same seed the same box, so the same pixels as from a Pillow image."""
    for size in ((60, 90), (90, 60), (20, 200)):
        image = photo(*size)
        picture = EncodedImage(encoded(image, "PNG"))
        for seed in range(8):
            ours = TrainCrop(Augmentation(area=area), "bilinear")(picture, 32, seed)
            torch.manual_seed(seed)
            theirs = v2.RandomResizedCrop(32, scale=area, antialias=True)(image)
            assert gap(ours, F.pil_to_tensor(theirs)).max() <= 2


def test_area_crops_cover_areas_ratios_and_places_as_they_should():
    crop = TrainCrop(Augmentation(), "bilinear")
    torch.manual_seed(0)
    boxes = np.array([crop._draw_box(300, 400, 224) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (boxes >= 0).all() and (top + height <= 300).all() and (left + width <= 400).all()
    areas, ratios = height * width / 120_000, width / height
    assert 0.075 < areas.min() < 0.1 and areas.max() > 0.9
    assert 0.74 < ratios.min() < 0.78 and 1.29 < ratios.max() < 1.35
    small = boxes[areas < 0.3]  # larger ones fit only near the middle
    assert kstest(small[:, 0] / (301 - small[:, 2]), "uniform").pvalue > 0.001
    assert kstest(small[:, 1] / (401 - small[:, 3]), "uniform").pvalue > 0.001


def test_shorter_side_draws_every_scale_and_every_place():
    crop = TrainCrop(Augmentation(shorter_side=(256, 320)), "bilinear")
    torch.manual_seed(0)
    boxes = np.array([crop._draw_box(640, 800, 224) for _ in range(5000)])
    top, left, height, width = boxes.T
    assert (height == width).all() and (boxes >= 0).all()
    assert (top + height <= 640).all() and (left + width <= 800).all()
    sides = [round(640 * 224 / shorter) for shorter in range(256, 321)]
    assert set(height.tolist()) == set(sides)  # all 65 scales, and both ends among them
    counts = Counter(height.tolist())
    chi_square = sum((counts[side] - 5000 / 65) ** 2 / (5000 / 65) for side in sides)
    assert chi_square < 104.7  # 64 degrees of freedom, p = 0.001
    for start, room in ((top, 640 - height), (left, 800 - width)):
        assert start.min() == 0 and (start == room).any()
        assert kstest((start + 0.5) / (room + 1), "uniform").pvalue > 0.001


def test_shorter_side_gives_a_window_of_the_resized_image():
    image = photo(128, 192)
    picture = EncodedImage(encoded(image, "PNG"))
    crop = TrainCrop(Augmentation(shorter_side=(64, 64)), "bilinear")
    whole = F.pil_to_tensor(F.resize(image, [64], antialias=True))
    compared = 0
    for seed in range(12):
        torch.manual_seed(seed)
        top, left, side, _ = crop._draw_box(128, 192, 48)
        assert side == 96
        ours = crop(picture, 48, seed)
        if (
            top % 2 == left % 2 == 0
        ):  # a whole pixel of the resized image; at its edges a window lacks what lies outside
            theirs = whole[:, top // 2 : top // 2 + 48, left // 2 : left // 2 + 48]
            assert gap(ours[:, 1:-1, 1:-1], theirs[:, 1:-1, 1:-1]).max() <= 2
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize("how", [{}, {"shorter_side": (64, 96)}, {"trivial": True}, {"rand": 9}])
@pytest.mark.parametrize("size", [(1, 60), (60, 1), (1, 1), (3, 500)])
def test_the_thinnest_images_can_be_cropped(how, size):
    picture = EncodedImage(encoded(photo(*size)))
    for seed in range(5):
        image = TrainCrop(Augmentation(**how), "bilinear")(picture, 32, seed)
        assert image.shape == (3, 32, 32) and image.dtype == torch.uint8


@pytest.mark.parametrize(
    ("how", "operation"), [({"trivial": True}, v2.TrivialAugmentWide), ({"rand": 9}, v2.RandAugment)]
)
def test_operations_are_torchvisions_after_the_crop(how, operation):
    picture = EncodedImage(encoded(photo(60, 80)))
    changed = 0
    for seed in range(10):
        ours = TrainCrop(Augmentation(**how), "bilinear")(picture, 32, seed)
        plain = TrainCrop(Augmentation(), "bilinear")(picture, 32, seed)
        assert torch.equal(ours, operation(interpolation=v2.InterpolationMode.BILINEAR)(plain))
        changed += not torch.equal(ours, plain)
    assert changed >= 5


def stack(count: int, size: int = 24) -> Tensor:
    """Different photos, uint8 [count, 3, size, size]."""
    return torch.stack([F.pil_to_tensor(photo(size, size, seed)) for seed in range(count)])


def test_colours_are_changed_as_by_torchvision_with_the_drawn_factors_image_by_image():
    images = stack(6)
    adjust = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation]
    orders = set()
    for seed in range(12):
        torch.manual_seed(seed)
        ours = random_colour_jitter(images, 0.4)
        torch.manual_seed(seed)
        factors, order = 0.6 + 0.8 * torch.rand(3, 6), torch.randperm(3).tolist()
        orders.add(tuple(order))
        for k in range(6):
            image = images[k].float() / 255
            for kind in order:
                image = adjust[kind](image, float(factors[kind, k]))
            torch.testing.assert_close(ours[k] / 255, image, atol=1e-4, rtol=0)
    assert len(orders) > 3 and ours.dtype == torch.float32


def test_colour_factors_are_spread_evenly_and_are_those_of_one_image():
    grey = torch.full((4000, 3, 1, 1), 100.0)  # neither contrast nor saturation changes it
    torch.manual_seed(0)
    factors = random_colour_jitter(grey, 0.5)[:, 0, 0, 0] / 100
    assert kstest(factors - 0.5, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(factors[:-1], factors[1:])[0, 1]) < 0.06


def test_lighting_shifts_whole_images_along_the_components_of_imagenets_colours():
    images = stack(4)
    torch.manual_seed(0)
    shifts = random_lighting(images, 0.1) - images
    assert shifts.flatten(2).std(2).max() < 1e-3 and shifts[:, :, 0, 0].abs().min() > 0  # one shift an image
    torch.manual_seed(0)
    shifts = random_lighting(torch.zeros(20_000, 3, 1, 1), 0.1)[:, :, 0, 0] / 255
    variances, directions = torch.linalg.eigh(shifts.T.cov())
    expected = 0.1 * torch.tensor([0.0045, 0.0188, 0.2175])
    torch.testing.assert_close(variances.sqrt(), expected, rtol=0.03, atol=0)
    # Light and dark, blue against red, and green against both
    known = torch.tensor([[0.577, 0.577, 0.577], [0.72, 0.0, -0.69], [0.40, -0.81, 0.42]]).flip(0)
    assert ((directions.T * known).sum(1).abs() > 0.99).all()
    assert shifts.mean(0).abs().max() < 0.0006  # four standard errors


def test_erasing_paints_rectangles_of_the_papers_areas_and_ratios():
    n, size, fill = 3000, 32, (123.0, 116.0, 103.0)
    torch.manual_seed(0)
    images = torch.randint(200, 256, (n, 3, size, size)).float()
    out = random_erasing(images, 0.25, fill)
    painted = (out != images).any(1)
    assert (out.permute(0, 2, 3, 1)[painted] == torch.tensor(fill)).all()
    chosen = painted.flatten(1).any(1)
    assert abs(chosen.float().mean() - 0.25) < 0.03
    areas, ratios, tops = [], [], []
    for mask in painted[chosen]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        height, width = len(rows), len(columns)
        assert mask.sum() == height * width == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        areas.append(height * width / size**2), ratios.append(height / width)
        tops.append(float(rows[0] / (size - height)))
    # 2 to 33 % and 3:10 to 10:3, but for rounding to whole pixels
    assert 0.015 < min(areas) < 0.04 and 0.29 < max(areas) < 0.36
    assert 0.24 < min(ratios) < 0.4 and 2.5 < max(ratios) < 4.2
    assert np.median(ratios) == pytest.approx(1, abs=0.15)  # tall ones are as frequent as wide ones
    assert min(tops) == 0 and max(tops) == 1 and np.mean(tops) == pytest.approx(0.5, abs=0.05)
    theirs = v2.RandomErasing(p=1, value=0, scale=(0.02, 0.33), ratio=(0.3, 1 / 0.3))
    shares = [float((theirs(torch.ones(1, size, size)) == 0).float().mean()) for _ in range(700)]
    assert np.mean(areas) == pytest.approx(np.mean(shares), abs=0.015)
    assert torch.equal(random_erasing(images[:9], 0.0, fill), images[:9])


def test_flips_lighting_and_erasing_choose_for_each_image():
    """A batch of one image many times over: no choice is the batch's."""
    image = stack(1).expand(64, -1, -1, -1)
    torch.manual_seed(0)
    for change in (
        random_flip,
        lambda x: random_colour_jitter(x, 0.4),
        lambda x: random_lighting(x, 0.1),
        lambda x: random_erasing(x, 0.5, (0, 0, 0)),
    ):
        kinds = {out.numpy().tobytes() for out in change(image).contiguous()}
        assert len(kinds) >= (2 if change is random_flip else 25)


@pytest.mark.parametrize("how", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_mixed_targets_are_shares_of_two_classes(photos, how):
    data = ImageNet(photos, size=16, batch_size=8, num_workers=0, augmentation=Augmentation(**how, flip=False))
    plain = ImageNet(photos, size=16, batch_size=8, num_workers=0, augmentation=Augmentation(flip=False))
    mixed, alone = batches(data, epochs=4), batches(plain, epochs=4)
    kinds = set()
    for (images, targets), (before, labels) in zip(mixed, alone, strict=True):
        assert targets.shape == (len(labels), 3)
        torch.testing.assert_close(targets.sum(1), torch.ones(len(labels)))
        assert ((targets > 0).sum(1) <= 2).all() and targets.min() >= 0
        share = targets.gather(1, labels[:, None])[:, 0]
        partner = labels.roll(1)
        torch.testing.assert_close(share[partner == labels], torch.ones(int((partner == labels).sum())))
        other, part = before.roll(1, 0), float(share[partner != labels][0])
        if torch.allclose(images, part * before + (1 - part) * other, atol=1e-4):
            kinds.add("mixup")
        else:
            kept = (images == before).all(1).flatten(1).float().mean(1)
            assert ((images == before) | (images == other)).all()
            torch.testing.assert_close(kept, torch.full_like(kept, part), atol=0.02, rtol=0)
            kinds.add("cutmix")
    assert kinds == set(how)


def test_repeated_images_are_not_mixed_with_their_own_copies(tmp_path):
    """An image of each class: a partner that is another file is of another class."""
    for k in range(24):
        write(tmp_path / f"{k:02}", 1, k)
    how = Augmentation(mixup=1.0, repeats=4)
    mixed = batches(ImageNet(tmp_path, size=16, batch_size=24, num_workers=0, val_size=0, augmentation=how), epochs=4)
    alone = torch.cat([(targets == 1).any(1) for _, targets in mixed]).float().mean()
    assert len(mixed) == 4 and alone < 0.25  # 3 of 23 partners are copies; in the sampler's order 3 of 4 were


def test_validation_images_are_not_varied(photos):
    data = ImageNet(
        photos, size=16, batch_size=9, num_workers=0, augmentation=Augmentation(**EVERYTHING | {"growing": None})
    )
    data.setup("fit")
    seen = []

    class Validator(Recorder):
        def validation_step(self, batch, batch_idx):
            seen.append(batch)

    quiet = ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"]
    trainer = pl.Trainer(accelerator="cpu", use_distributed_sampler=False, **dict.fromkeys(quiet, False))
    trainer.validate(Validator(), data, verbose=False)
    paths = [photos / "val" / name for name in names(data.val_set)]
    expected = torch.stack([CenterCrop(18, 16)(EncodedImage(path.read_bytes())) for path in paths]).float() / 255
    (batch,) = seen
    images, labels = batch.images, batch.labels
    torch.testing.assert_close(images, F.normalize(expected, MEAN, STD))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_sizes_grow_by_the_epoch_in_steps_of_32():
    how = Augmentation(growing=(128, 10, 60))
    sizes = [how.crop_size(epoch, 224) for epoch in range(100)]
    assert sizes[:11] == [128] * 11 and sizes[60:] == [224] * 40
    assert sizes == sorted(sizes) and set(sizes) == {128, 160, 192, 224}
    assert all(sizes.count(size) > 8 for size in (160, 192))
    odd = [Augmentation(growing=(100, 0, 5)).crop_size(epoch, 176) for epoch in range(7)]
    assert odd[0] == 100 and odd[-2:] == [176, 176] and odd == sorted(odd)
    assert all(size % 32 == 0 for size in odd[1:5] if size not in (100, 176))
    assert {Augmentation().crop_size(epoch, 224) for epoch in (0, 50)} == {224}


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_grow_with_the_epochs(photos, workers):
    how = Augmentation(growing=(32, 0, 2))
    data = ImageNet(photos, size=96, batch_size=11, num_workers=workers, augmentation=how)
    data.load("fit")
    assert [images.shape[-1] for images, _ in batches(data, epochs=3)] == [32, 32, 64, 64, 96, 96]


def test_repeated_images_come_cropped_anew_in_an_epoch_of_the_same_length(photos):
    data = ImageNet(photos, size=16, batch_size=22, num_workers=0, augmentation=Augmentation(repeats=3))
    data.setup("fit")
    draws = list(data.make_sampler(data.train_set, shuffle=True))
    counts = Counter(draw.index for draw in draws)
    assert len(draws) == 22 and sorted(counts.values()) == [1, *[3] * 7]
    (batch,) = loaded(data)
    assert len(batch.labels) == 22 and len({image.numpy().tobytes() for image in batch.images.contiguous()}) == 22


@pytest.mark.parametrize(("repeats", "world"), [(2, 2), (3, 2), (1, 4)])
def test_ranks_share_repeated_images_out_without_doing_anything_twice(repeats, world):
    samplers = [
        ExactSampler(37, True, 5, rank, world, repeats, crop_size=lambda epoch: 16 + epoch) for rank in range(world)
    ]
    parts = [list(sampler) for sampler in samplers]
    total = 37 - 37 % world
    assert {len(part) for part in parts} == {total // world}
    everything = [draw for part in parts for draw in part]
    counts = Counter(draw.index for draw in everything)
    assert len(counts) == math.ceil(total / repeats) and set(counts.values()) <= {repeats, total % repeats}
    assert len({draw.seed for draw in everything}) == total  # no crop is made twice
    if repeats == world:
        assert all(len({draw.index for draw in part}) == len(part) for part in parts)  # copies go to different devices
    for sampler, part in zip(samplers, parts, strict=True):
        sampler.start = 4
        assert list(sampler) == part[4:]
        sampler.start = 0
        sampler.set_epoch(1)
        assert [draw.seed for draw in sampler] != [draw.seed for draw in part] and next(iter(sampler)).size == 17


# That it repeats


def test_batches_are_the_same_whatever_the_workers_and_differ_by_epoch_and_seed(photos, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    runs = [
        batches(ImageNet(photos, size=48, batch_size=8, num_workers=n, augmentation=Augmentation(**EVERYTHING)), 2)
        for n in (0, 1, 2)
    ]
    assert len(runs[0]) == 6 and equal(runs[0], runs[1]) and equal(runs[0], runs[2])
    first, second = runs[0][:3], runs[0][3:]
    assert not equal(first, second)
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    other = batches(ImageNet(photos, size=48, batch_size=8, num_workers=0, augmentation=Augmentation(**EVERYTHING)), 2)
    assert not equal(runs[0], other)


@pytest.mark.parametrize("how", [{}, {"trivial": True}, {"rand": 9}, {"shorter_side": (24, 48)}])
def test_batches_are_the_same_whatever_the_threads(photos, how):
    data = ImageNet(photos, size=24, batch_size=22, num_workers=0, augmentation=Augmentation(**how))
    before, read = torch.get_num_threads(), {}
    for count in (1, 3):
        torch.set_num_threads(count)
        read[count] = batches(data, epochs=2)
    torch.set_num_threads(before)
    assert equal(read[1], read[3])


def test_images_are_the_same_whatever_the_batch_size(photos):
    how = Augmentation(trivial=True)
    sizes = {}
    for size in (5, 8, 22):
        epoch = loaded(ImageNet(photos, size=24, batch_size=size, num_workers=0, augmentation=how), epoch=2)
        assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in epoch)
        sizes[size] = [(torch.cat([b.images for b in epoch]), torch.cat([b.labels for b in epoch]))]
    assert equal(sizes[5], sizes[8]) and equal(sizes[5], sizes[22])


def test_an_image_does_not_depend_on_those_before_it(photos):
    data = ImageNet(photos, size=24, augmentation=Augmentation(rand=9))
    data.setup("fit")
    draws = list(data.make_sampler(data.train_set, shuffle=True))
    together = data.train_set.__getitems__(draws)
    alone = [data.train_set.__getitems__([draw]) for draw in draws[::-1]][::-1]
    assert torch.equal(together.images, torch.cat([one.images for one in alone]))


def test_reading_leaves_the_generators_of_the_training_alone(photos):
    data = ImageNet(photos, size=24, augmentation=Augmentation(trivial=True))
    data.setup("fit")
    torch.manual_seed(7), np.random.seed(7)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].tolist()
    (photos / "train" / "ape" / "0.jpg").write_bytes(b"")
    batch = data.train_set.__getitems__(list(data.make_sampler(data.train_set, shuffle=True)))
    assert len(batch.labels) == 21
    assert torch.equal(before, torch.get_rng_state()) and numpys == np.random.get_state()[1].tolist()


EXPERIMENT = """
model:
  class_path: tests.dropout_net.LitDropoutNet
  init_args:
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
data:
  class_path: datamodules.ImageNet
  init_args:
    size: 64
    batch_size: 5
    num_workers: 2
    augmentation: {colour: 0.4, lighting: 0.1, trivial: true, erasing: 0.5, mixup: 0.2, cutmix: 1.0, repeats: 2,
                   growing: [32, 0, 2]}
trainer:
  max_epochs: 3
  accelerator: cpu
  log_every_n_steps: 1
  callbacks+:
"""
EXPERIMENT += STEP_CHECKPOINTS


def test_resumed_inside_an_epoch_the_weights_are_those_of_the_whole_run(run, here, photos):
    """5 batches an epoch, two loader processes, everything that is drawn at random switched on."""
    experiment = here / "photos" / "net.yaml"
    experiment.parent.mkdir()
    experiment.write_text(EXPERIMENT)
    run("fit", "--config", experiment, "--data.root", photos)
    whole = Path("runs/photos/net/version_0")
    for number, cut in enumerate((2, 8), start=1):
        copy = Path(f"runs/photos/net/version_{number}")
        shutil.copytree(whole, copy)
        (copy / "checkpoints" / "last.ckpt").unlink()
        # Nor does the number of processes matter
        run(
            "fit",
            "--allow",
            "tests",
            "--ckpt_path",
            copy / "checkpoints" / f"step-{cut}.ckpt",
            "--data.num_workers",
            2 - number,
        )
        assert same(whole / "checkpoints" / "last.ckpt", copy / "checkpoints" / "last.ckpt"), f"from step {cut}"


# What is refused, through the real command line


def test_folders_that_are_not_there_or_hold_no_classes_are_refused(fails, here, photos):
    assert f"There is no folder {here / 'nowhere'}" in fails(*fit("nowhere"))
    (here / "empty").mkdir()
    assert "empty has no class folders" in fails(*fit("empty"))
    write(here / "flat", 3)
    assert "flat has no class folders: images belong in" in fails(*fit("flat"))
    write(here / "one" / "train" / "lonely", 3)
    assert "has a single class folder, lonely" in fails(*fit("one"))
    write(here / "two" / "val" / "a", 1)
    assert "two has val/ and no training images: they belong in" in fails(*fit("two"))
    assert not list(Path("runs").rglob("version_*"))


def test_class_folders_without_images_are_refused(fails, photos):
    (photos / "train" / "dog").mkdir()
    (photos / "train" / "eel").mkdir()
    (photos / "train" / "eel" / "notes.txt").write_text("no image")
    said = fails(*fit(photos))
    assert f"{photos / 'train'} has class folders without an image in them: dog, eel." in said


def test_a_class_that_only_val_has_is_refused(fails, photos):
    write(photos / "val" / "dog", 1)
    assert f"{photos / 'val'} has a class dog and the training images do not" in fails(*fit(photos))


def test_an_empty_val_is_refused(fails, photos):
    shutil.rmtree(photos / "val")
    (photos / "val").mkdir()
    assert f"{photos / 'val'} holds neither class folders nor images" in fails(*fit(photos))


def spoil(root: Path) -> dict[str, str]:
    """Make three training images unreadable; their names and why."""
    train = root / "train"
    (train / "ape" / "3.jpg").write_bytes(b"")
    (train / "bear" / "1.jpg").write_bytes((train / "bear" / "1.jpg").read_bytes()[:-100])
    (train / "cat" / "2.jpg").write_text("This is no image.\n")
    return {"ape/3.jpg": "the file is empty", "bear/1.jpg": "truncated", "cat/2.jpg": "no format that is known"}


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_stop_the_run_and_are_all_named(fails, photos, workers):
    bad = spoil(photos)
    said = fails(*fit(photos, "--data.num_workers", workers))
    assert "3 files cannot be read" in said and "--data.on_bad_image skip" in said
    for name, why in bad.items():
        assert f"{photos / 'train' / name} (" in said and why in said
    assert "0.jpg" not in said


def test_of_many_unreadable_images_ten_are_named(fails, photos):
    for path in sorted((photos / "train").rglob("*.jpg"))[:13]:
        path.write_bytes(b"")
    said = fails(*fit(photos))
    assert "10 or more files cannot be read" in said and said.count("the file is empty") == 10


def test_unreadable_validation_images_stop_the_run(fails, photos):
    path = photos / "val" / "cat" / "1.jpg"
    path.write_bytes(b"")
    assert f"{path} (the file is empty)" in fails(*fit(photos))


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_on_demand_and_the_test_says_so(run, photos, workers, caplog, capsys):
    bad = spoil(photos)
    (photos / "val" / "cat" / "1.jpg").write_bytes(b"")
    flags = ["--data.on_bad_image", "skip", "--data.num_workers", workers]
    run(*fit(photos, *flags, "--trainer.max_epochs", 3))
    for name in bad:
        assert caplog.text.count(f"Skipped: {photos / 'train' / name}: ") == 1  # not in every epoch
    assert "Data: skipped 4 files that could not be read\n" in capsys.readouterr().out
    caplog.clear()
    run("test", "--allow", "tests", "--ckpt_path", "runs/photos/net")
    assert "Data: skipped 1 file that could not be read\n" in capsys.readouterr().out
    assert caplog.text.count("Skipped: ") == 1
    result = json.loads(Path("runs/photos/net/version_0/test-best-center.json").read_text())
    assert result["images"] == 8 and result["partial"] is True


def test_leaving_an_image_out_changes_nothing_about_the_others(photos):
    def data() -> ImageNet:
        return ImageNet(photos, size=16, batch_size=4, num_workers=0, on_bad_image="skip")

    whole, trained = loaded(data()), batches(data())
    bad = photos / "train" / "bear" / "1.jpg"
    bad.write_bytes(b"")
    parts, trained_without = loaded(data()), batches(data())
    assert len(parts) == len(whole) == 6
    hit = [k for k, batch in enumerate(parts) if batch.unreadable]
    assert len(hit) == 1
    assert [(file.path, file.reason) for file in parts[hit[0]].unreadable] == [(str(bad), "the file is empty")]
    for k in range(6):
        if k in hit:
            rows = [row.numpy().tobytes() for row in parts[k].images.contiguous()]
            all_rows = [row.numpy().tobytes() for row in whole[k].images.contiguous()]
            assert len(rows) == len(all_rows) - 1 and [row for row in all_rows if row in rows] == rows
        else:
            assert torch.equal(parts[k].images, whole[k].images)
            assert equal([trained[k]], [trained_without[k]])


def test_a_batch_of_nothing_but_unreadable_images_stops_the_run(fails, photos):
    for path in (photos / "val").rglob("*.jpg"):
        path.write_bytes(b"")
    said = fails(*fit(photos, "--data.on_bad_image", "skip"))
    assert "A batch of 8 images has none that can be read" in said and str(photos / "val") in said


class Thief(pl.Callback):
    """Takes the training images away once training has begun."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            shutil.rmtree(Path(trainer.datamodule.root) / "train" / "bear")


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_vanish_while_training_stop_the_run_with_their_names(fails, photos, workers):
    flags = ["--data.batch_size", 2, "--data.num_workers", workers]
    said = fails(*fit(photos, *flags, "--trainer.callbacks+", "tests.datamodules.test_imagenet.Thief"))
    assert "8 files cannot be read" in said
    assert f"{photos / 'train' / 'bear' / '0.jpg'} (it cannot be opened: No such file or directory)" in said


def test_files_that_vanish_while_training_can_be_left_out(run, photos, caplog):
    run(*fit(photos, "--data.on_bad_image", "skip", "--trainer.callbacks+", "tests.datamodules.test_imagenet.Thief"))
    assert "No such file or directory" in caplog.text
    assert Path("runs/photos/net/version_0/checkpoints/last.ckpt").is_file()


def test_sizes_that_the_net_cannot_take_are_refused_before_a_run_is_made(fails, photos):
    vgg = ["--model", "lit_models.LitVGG", "--model.variant", "A"]
    said = fails(*fit(photos, *vgg))
    assert "LitVGG cannot take images of 16 px" in said and "at least 32 px" in said
    assert not list(Path("runs").rglob("version_*"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size", 0, "size is 0: it must be at least 1"),
        ("eval_size", 0, "eval_size is 0: it must be at least 1"),
        ("resize", -3, "resize is -3: it must be at least 1"),
        ("num_workers", -1, "num_workers is -1: it must be at least 0"),
        ("batch_size", 0, "batch_size is 0: it must be at least 1"),
        ("on_bad_image", "ignore", "on_bad_image is ignore: it must be one of stop, skip"),
        ("interpolation", "nearest", "interpolation is nearest: it must be one of bilinear, bicubic"),
        ("augmentation.area", "[0.5,1.5]", "augmentation.area is 1.5: it must be between 0.5 and 1"),
        ("augmentation.area", "[0.5,0.2]", "augmentation.area is 0.5: it must be between 0 and 0.2"),
        ("augmentation.area", "[-0.1,1]", "augmentation.area is -0.1"),
        ("augmentation.colour", 1.5, "augmentation.colour is 1.5: it must be between 0 and 1"),
        ("augmentation.lighting", -0.1, "augmentation.lighting is -0.1: it must be at least 0"),
        ("augmentation.rand", 31, "augmentation.rand is 31: it must be between 0 and 30"),
        ("augmentation.erasing", 2, "augmentation.erasing is 2.0: it must be between 0 and 1"),
        ("augmentation.mixup", -1, "augmentation.mixup is -1.0: it must be at least 0"),
        ("augmentation.cutmix", ".nan", "augmentation.cutmix is nan: it must be at least 0"),
        ("augmentation.repeats", 0, "augmentation.repeats is 0: it must be at least 1"),
        ("augmentation.shorter_side", "[10,20]", "from which squares of 16 px can be cut"),
        ("augmentation.shorter_side", "[30,20]", "the smaller one first"),
        ("augmentation.growing", "[32,0,5]", "give a size of at most 16 px"),
        ("augmentation.growing", "[8,5,5]", "and a later epoch"),
        ("augmentation.growing", "[0,0,5]", "augmentation.growing is [0, 0, 5]"),
        ("augmentation.flip", "sometimes", "flip is sometimes: it must be true or false"),
        ("augmentation.colour", "much", "colour is much: it must be a number"),
        (
            "augmentation.mixupp",
            1,
            "There is no argument --data.augmentation.mixupp here. Did you mean --data.augmentation.mixup?",
        ),
    ],
)
def test_arguments_out_of_their_range_are_refused(fails, photos, name, value, said):
    assert said in fails(*fit(photos, f"--data.{name}", value))


def test_two_ways_to_one_end_are_refused(fails, photos):
    flags = ["--data.augmentation.trivial", "true", "--data.augmentation.rand", 9]
    assert "give one of them" in fails(*fit(photos, *flags))


# The smaller copy


def resize(*args: object) -> None:
    imagenet(["resize", *map(str, args), "--workers", "1"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree as ImageNet's with images that want all kinds of treatment."""
    root = tmp_path / "source"
    for seed, name in enumerate(("ape", "bear")):
        write(root / "train" / name, 2, seed)
    write(root / "train" / "ape", 1, suffix=".png")
    photo(100, 150).save(root / "train" / "bear" / "large.JPEG")
    (root / "train" / "bear" / "turned.jpg").write_bytes(turned(photo(100, 150), 6))
    photo(20, 30).save(root / "train" / "bear" / "small.jpg")
    (root / "val").mkdir()
    photo(90, 60).convert("CMYK").save(root / "val" / "x.jpg")
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nx,ape 1 2 3 4\n")
    return root


def test_the_copy_is_smaller_upright_and_whole_and_trains(source, tmp_path, capsys, run):
    target = tmp_path / "the copy"
    resize(source, target, "--shorter_side", 32)
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert files == [
        "LOC_val_solution.csv", "train/ape/0.jpg", "train/ape/0.png.jpg", "train/ape/1.jpg", "train/bear/0.jpg",
        "train/bear/1.jpg", "train/bear/large.JPEG", "train/bear/small.jpg", "train/bear/turned.jpg", "val/x.jpg",
    ]  # fmt: skip
    for name in ("LOC_val_solution.csv", "train/bear/small.jpg"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    sizes = {path.name: Image.open(path).size for path in target.rglob("*.*") if path.suffix != ".csv"}
    assert sizes["large.JPEG"] == (48, 32) and sizes["turned.jpg"] == (32, 48) and sizes["small.jpg"] == (30, 20)
    assert sizes["0.png.jpg"] == (42, 32) and sizes["x.jpg"] == (32, 48)
    assert Image.open(target / "val" / "x.jpg").mode == "RGB"
    assert Image.open(target / "train" / "bear" / "turned.jpg").getexif().get(0x0112, 1) == 1
    for name in ("train/bear/large.JPEG", "train/bear/turned.jpg"):
        ours, theirs = (CenterCrop(32, 32)(EncodedImage((root / name).read_bytes())) for root in (target, source))
        assert gap(ours, theirs).mean() < 4  # one JPEG more
    assert f"Train on it with --data.root '{target}'" in capsys.readouterr().out
    run(*fit(target, "--trainer.callbacks", "[]"))
    data = ImageNet(target)
    data.setup("fit")
    assert len(data.train_set) == 8 and data.val_set.labels.tolist() == [0]


def test_an_interrupted_copy_goes_on(source, tmp_path):
    target = tmp_path / "copy"
    (target / "train" / "ape").mkdir(parents=True)
    (target / "train" / "ape" / "0.jpg").write_bytes(b"done before")
    (target / "train" / "ape" / "1.jpg.part").write_bytes(b"half")
    resize(source, target, "--shorter_side", 32)
    assert (target / "train" / "ape" / "0.jpg").read_bytes() == b"done before"
    assert Image.open(target / "train" / "ape" / "1.jpg").size == (42, 32)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert len(before) == 14 and not [path for path in before if path.suffix == ".part"]
    resize(source, target, "--shorter_side", 32)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before


def test_what_cannot_be_read_is_listed_and_the_rest_is_copied(source, tmp_path):
    (source / "train" / "ape" / "0.jpg").write_bytes(b"")
    (source / "train" / "bear" / "0.jpg").write_text("no image")
    small = source / "train" / "bear" / "small.jpg"  # would be copied as it is
    small.write_bytes(small.read_bytes()[:-100])
    with pytest.raises(SystemExit) as stop:
        resize(source, tmp_path / "copy", "--shorter_side", 32)
    assert isinstance(stop.value.code, str)  # which Python prints on stderr, and exits with 1
    first, *lines = stop.value.code.splitlines()
    assert first == "error: 3 images could not be read and are not in the copy:"
    assert lines[0] == f"{source / 'train' / 'ape' / '0.jpg'}: the file is empty" and "no format" in lines[1]
    assert lines[2].startswith(f"{small}: ") and "truncated" in lines[2]
    files = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert len(files) == 7 and not [path for path in files if path.suffix == ".part"]


def test_the_command_that_copies_says_nothing_but_its_own(source, tmp_path):
    command = [sys.executable, "-m", "datamodules.imagenet", "resize", source, tmp_path / "copy", "--workers", "2"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True)
    assert "arning" not in done.stderr and "is complete" in done.stdout


def test_folders_behind_links_are_in_the_copy(source, tmp_path):
    write(tmp_path / "elsewhere", 2)
    (source / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    resize(source, tmp_path / "copy", "--shorter_side", 32)
    assert ImageNet(tmp_path / "copy").classes == ImageNet(source).classes == ["ape", "bear", "cat"]
    assert len(list((tmp_path / "copy" / "train" / "cat").iterdir())) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["nowhere", "copy"], "error: There is no folder nowhere to copy from."),
        (["source", "source/train/copy"], "error: source/train/copy lies in source: choose a folder outside it"),
        (["source", "source"], "error: source lies in source"),
        (["source", "copy", "--shorter_side", 0], "error: shorter_side is 0"),
        (["source", "copy", "--quality", 101], "error: quality is 101"),
        (["source", "copy", "--workers", 0], "error: workers is 0: it must be at least 1"),
    ],
)
def test_copies_that_cannot_be_made_are_refused(source, monkeypatch, flags, said):
    monkeypatch.chdir(source.parent)
    with pytest.raises(SystemExit) as stop:
        imagenet(["resize", *map(str, flags)])
    assert str(stop.value.code).startswith(said)
    assert not Path("copy").exists()
