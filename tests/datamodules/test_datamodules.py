import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import datamodules
from batch import Batch
from datamodules import CIFAR10, Digits, Photos, Synthetic
from datamodules.augment import (
    constant,
    normalise,
    random_colour_jitter,
    random_crop,
    random_erasing,
    random_flip,
    random_lighting,
)
from datamodules.samplers import ExactSampler, mix_seed
from datamodules.splits import stratified_split
from datamodules.tensor_images import TensorImages
from errors import UserError, pluralize


@pytest.mark.parametrize("data", [Digits(), CIFAR10(), Synthetic(classes=7)])
def test_classes_and_preprocessing_are_known_right_after_init(data):
    assert data.num_classes == len(data.class_names)
    assert set(data.preprocessing) == {"resize", "crop", "mean", "std"}


def test_digits_are_1257_180_and_360_stratified_and_fixed():
    first, second = Digits(), Digits()
    first.setup("fit"), second.setup("fit")
    assert [len(s) for s in (first.train_set, first.val_set, first.test_set)] == [1257, 180, 360]
    assert torch.equal(first.test_set.images, second.test_set.images)
    for part in (first.train_set, first.val_set, first.test_set):
        share = part.labels.bincount() / len(part)
        assert (share - 0.1).abs().max() < 0.006
    assert first.train_set.images.dtype == torch.uint8 and first.train_set.images.shape[1:] == (3, 32, 32)
    everything = torch.cat([s.images for s in (first.train_set, first.val_set, first.test_set)])
    assert len({bytes(image.numpy().tobytes()) for image in everything}) >= 1790  # no image in two parts


def test_digits_of_another_size_are_the_same_images():
    data = Digits(size=16)
    data.setup("fit")
    assert data.train_set.images.shape[1:] == (3, 16, 16)
    other = Digits()
    other.setup("fit")
    assert torch.equal(data.train_set.labels, other.train_set.labels)
    with pytest.raises(UserError, match="size is 4: it must be at least 8."):
        Digits(size=4)


def test_a_crop_of_digits_is_random_in_training_and_the_centre_in_evaluation():
    """As of photographs: ten crops of 28 px lie within the image of 32 px, as those of 224 px in 256."""
    data = Digits(crop=28, shift=0)
    data.setup("fit")
    images, labels = data.train_set.images[:50], data.train_set.labels[:50]
    centre = data.to_inputs(Batch(images, labels), training=False).images
    assert torch.equal(centre, normalise(images[..., 2:30, 2:30], [0.305] * 3, [0.324] * 3))
    windows = {
        tuple(window.flatten().tolist()) for window in images[0].unfold(1, 28, 1).unfold(2, 28, 1)[0].flatten(0, 1)
    }
    cut = data.augment(images[:1].expand(50, -1, -1, -1))
    assert cut.shape == (50, 3, 28, 28)
    assert {tuple(each[0].flatten().tolist()) for each in cut} <= windows
    (crops,) = Digits(crop=28, protocol="ten_crop").views.cut_batch(images)
    assert crops.shape == (50, 5, 3, 28, 28) and torch.equal(crops[:, 4], images[..., 2:30, 2:30])
    assert torch.equal(crops[:, 0], images[..., :28, :28])
    with pytest.raises(UserError, match="crop is 40, and the images have 32 px a side: give at most 32."):
        Digits(crop=40)


def test_normalised_digits_have_mean_0_and_deviation_1():
    data = Digits()
    data.setup("fit")
    images = data.on_after_batch_transfer(Batch(data.train_set.images, data.train_set.labels), 0).images
    assert abs(images.mean()) < 0.02 and abs(images.std() - 1) < 0.02


def test_split_is_stratified_exact_and_a_function_of_the_seed():
    labels = np.repeat([0, 1, 2], [50, 33, 17])
    rest, held = stratified_split(labels, 10, seed=3)
    assert len(held) == 10 and sorted([*rest, *held]) == list(range(100))
    assert np.bincount(labels[held]).tolist() == [5, 3, 2]
    assert np.array_equal(held, stratified_split(labels, 10, seed=3)[1])
    assert not np.array_equal(held, stratified_split(labels, 10, seed=4)[1])
    assert len(stratified_split(labels, 0, seed=0)[1]) == 0


@pytest.mark.parametrize(
    ("counts", "size", "held"),
    [
        ([10, 10, *[1] * 10], 6, [3, 3, *[0] * 10]),  # each class keeps its only image
        ([12, 4, 1], 12, [9, 3, 0]),
        ([5, 2, 2], 7, [4, 2, 1]),  # two images cannot be left of three classes
        ([1, 1, 1, 1], 2, [1, 1, 0, 0]),
    ],
)
def test_no_class_loses_its_only_image_to_the_second_part_if_another_can_give_one(counts, size, held):
    labels = np.repeat(np.arange(len(counts)), counts)
    rest, second = stratified_split(labels, size, seed=0)
    assert np.bincount(labels[second], minlength=len(counts)).tolist() == held
    assert sorted([*rest, *second]) == list(range(sum(counts)))


@pytest.mark.parametrize(("size", "world"), [(5, 2), (37, 4), (8, 8), (10, 3)])
def test_evaluation_ranks_see_every_image_once(size, world):
    parts = [list(ExactSampler(size, shuffle=False, rank=r, world_size=world)) for r in range(world)]
    assert sorted(i for part in parts for i in part) == list(range(size))
    assert all(parts) and [len(p) for p in parts] == [
        len(ExactSampler(size, shuffle=False, rank=r, world_size=world)) for r in range(world)
    ]


def test_training_ranks_take_equally_many_different_images_and_epochs_differ():
    samplers = [ExactSampler(37, shuffle=True, seed=1, rank=r, world_size=4) for r in range(4)]
    parts = [list(s) for s in samplers]
    assert {len(p) for p in parts} == {9} and len({i for p in parts for i in p}) == 36
    samplers[0].set_epoch(1)
    assert list(samplers[0]) != parts[0]
    samplers[0].set_epoch(0)
    assert list(samplers[0]) == parts[0]
    assert list(ExactSampler(37, shuffle=True, seed=2, world_size=4)) != parts[0]


def test_the_sampler_is_not_sharded_twice_by_lightning():
    assert isinstance(ExactSampler(3, shuffle=False), torch.utils.data.DistributedSampler)


def test_seeds_of_neighbouring_steps_have_nothing_in_common():
    seeds = {mix_seed(s, e, b, r) for s in range(3) for e in range(5) for b in range(50) for r in range(2)}
    assert len(seeds) == 1500 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_whole_batches_whatever_the_workers(workers):
    data = Synthetic(classes=4, size=8, train_size=20, val_size=6, test_size=7, batch_size=3, num_workers=workers)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert [len(batch.labels) for batch in batches] == [3, 3, 1] and batches[0].images.shape == (3, 3, 8, 8)
    assert torch.equal(torch.cat([batch.images for batch in batches]), data.test_set.images)


def test_random_crop_gives_each_window_of_the_padded_image_equally_often():
    """The same distribution as torchvision's RandomCrop(8, padding=2), image by image."""
    image = torch.arange(1, 1 + 3 * 64, dtype=torch.uint8).reshape(3, 8, 8)
    padded = torch.nn.functional.pad(image, (2,) * 4)
    windows = {padded[:, t : t + 8, left : left + 8].numpy().tobytes(): 0 for t in range(5) for left in range(5)}
    assert len(windows) == 25
    theirs, transform = dict(windows), v2.RandomCrop(8, padding=2)
    torch.manual_seed(0)
    n = 5000
    for out in random_crop(image.expand(n, -1, -1, -1), padding=2):
        windows[out.numpy().tobytes()] += 1  # a KeyError is a window that cannot be
    for _ in range(200):
        theirs[transform(image).numpy().tobytes()] += 1
    expected = n / 25
    chi_square = sum((count - expected) ** 2 / expected for count in windows.values())
    assert chi_square < 51.2  # 24 degrees of freedom, p = 0.001


def test_images_of_a_batch_are_cropped_and_mirrored_independently():
    torch.manual_seed(0)
    image = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    mirrored = torch.stack([(out != image).any() for out in random_flip(image.expand(2000, -1, -1, -1))])
    assert 0.45 < mirrored.float().mean() < 0.55
    pairs = (mirrored[:-1] == mirrored[1:]).float().mean()
    assert 0.45 < pairs < 0.55
    for out in random_flip(image.expand(50, -1, -1, -1)):
        assert torch.equal(out, image) or torch.equal(out, image.flip(-1))


def test_normalise_is_torchvisions():
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    expected = v2.functional.normalize(images.float() / 255, mean, std)
    torch.testing.assert_close(normalise(images, mean, std), expected)
    assert normalise(images, mean, std).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(normalise(images.float(), mean, std), expected)
    torch.testing.assert_close(normalise(images[..., :1, :1], mean, std), expected[..., :1, :1])


def vary(images: torch.Tensor) -> torch.Tensor:
    images = random_erasing(random_flip(random_crop(images, 2)), 0.5, [124, 116, 104])
    return normalise(random_lighting(random_colour_jitter(images, 0.4), 0.1), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])


def test_what_is_kept_from_a_validation_can_be_differentiated_through():
    constant.cache_clear()
    with torch.inference_mode():
        vary(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    images = torch.full((2, 3, 8, 8), 100.0, requires_grad=True)
    vary(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_no_step_makes_a_tensor_out_of_python_numbers_again(monkeypatch):
    """On a GPU each would be a copy that the step waits for."""
    vary(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    monkeypatch.setattr(torch, "tensor", None)
    vary(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
def test_a_gpu_is_never_waited_for():
    resident = TensorImages(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), torch.arange(9)).to(torch.device("cuda"))
    vary(resident.images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, labels, _ = resident.__getitems__([3, 1, 2])
        vary(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert labels.tolist() == [3, 1, 2]


def test_cifar10_reads_the_official_layout(cifar):
    data = CIFAR10(root=cifar, val_size=20)
    data.setup("fit")
    assert not hasattr(data, "test_set")
    data.setup("test")
    assert [len(s) for s in (data.train_set, data.val_set, data.test_set)] == [180, 20, 20]
    assert data.val_set.labels.bincount().tolist() == [2] * 10
    content = pickle.loads((cifar / "cifar-10-batches-py" / "test_batch").read_bytes(), encoding="latin1")
    assert np.array_equal(data.test_set.images.numpy(), content["data"].reshape(-1, 3, 32, 32))
    inside = CIFAR10(root=cifar / "cifar-10-batches-py", val_size=0)
    inside.setup("fit")
    assert len(inside.train_set) == 200 and inside.val_set is None and inside.val_dataloader() == []


def test_cifar10_writes_nothing_to_its_folder(cifar):
    before = {path: path.stat().st_mtime_ns for path in [cifar, *cifar.rglob("*")]}
    for stage in ("fit", "test"):
        CIFAR10(root=cifar, val_size=20).setup(stage)
    assert {path: path.stat().st_mtime_ns for path in [cifar, *cifar.rglob("*")]} == before


def test_half_a_cifar10_names_what_is_missing(cifar):
    (cifar / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"incomplete, data_batch_3 missing"):
        CIFAR10(root=cifar).setup("fit")


def test_a_truncated_batch_file_is_named(cifar):
    path = cifar / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(ValueError, match=r"data_batch_2 is truncated or no CIFAR-10 batch file"):
        CIFAR10(root=cifar).setup("fit")


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_batch_file_that_runs_code_runs_none(cifar, tmp_path):
    (cifar / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(ValueError, match="data_batch_1 is truncated or no CIFAR-10"):
        CIFAR10(root=cifar).setup("fit")
    assert not (tmp_path / "ran").exists()


def test_a_missing_cifar10_that_cannot_be_downloaded_says_what_to_do(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", no_network)
    with pytest.raises(UserError, match=r"could not be downloaded .*no network.*--data.root"):
        CIFAR10(root=tmp_path).setup("fit")


@pytest.mark.parametrize(("size", "images"), [(200, "200"), (-1, "200")])
def test_a_validation_set_that_leaves_nothing_is_refused(cifar, size, images):
    with pytest.raises(ValueError, match=f"val_size {size} of 200 training images is"):
        CIFAR10(root=cifar, val_size=size).setup("fit")


def test_photos_of_every_kind_become_upright_rgb_squares(tmp_path):
    base = Image.new("RGB", (60, 40), (200, 10, 10))
    base.save(tmp_path / "a.jpg")
    base.convert("L").save(tmp_path / "b.png")
    base.convert("CMYK").save(tmp_path / "c.jpg")
    base.convert("RGBA").save(tmp_path / "d.webp")
    half = Image.new("RGB", (60, 40))
    half.paste((255, 255, 255), (0, 0, 30, 40))  # left half white: with orientation 6 (turn right) it ends on top
    exif = Image.Exif()
    exif[0x0112] = 6
    half.save(tmp_path / "e.png", exif=exif)
    photos = Photos([tmp_path], {"resize": 32, "crop": 32, "mean": [0.5] * 3, "std": [0.5] * 3}, ["a", "b"])
    photos.setup("predict")
    (batch,) = photos.predict_dataloader()
    images = batch.images
    assert images.shape == (5, 3, 32, 32) and images.dtype == torch.uint8 and batch.labels.tolist() == [0, 1, 2, 3, 4]
    assert abs(int(images[0][0, 16, 16]) - 200) < 6 and int(images[2][0, 16, 16]) > 150
    turned = images[4].float().mean(0)
    assert turned[:8].mean() > 200 and turned[-8:].mean() < 50


def test_photos_are_found_in_folders_and_missing_ones_named(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/er/x.JPG", "deep/y.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "deep" / "notes.txt").write_text("no image")
    settings = {
        "preprocessing": {"resize": 8, "crop": 8, "mean": [0.5] * 3, "std": [0.5] * 3},
        "class_names": ["a", "b"],
    }
    photos = Photos([tmp_path], **settings)
    assert [file.name for file in photos.files] == ["x.JPG", "y.png"] and photos.num_classes == 2
    with pytest.raises(UserError, match="no file or folder"):
        Photos([tmp_path / "nothing.jpg"], **settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        Photos([tmp_path / "empty"], **settings)


@pytest.mark.parametrize(("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2000, "2,000 images")])
def test_one_thing_is_no_things(number, said):
    assert pluralize(number, "image") == said


def test_an_unreadable_photo_is_skipped_with_a_warning(tmp_path, caplog):
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    settings = {"preprocessing": {"resize": 8, "crop": 8, "mean": [0.5] * 3, "std": [0.5] * 3}, "class_names": ["a"]}
    photos = Photos([tmp_path], **settings)
    photos.setup("predict")
    batch = photos.on_before_batch_transfer(next(iter(photos.predict_dataloader())), 0)
    assert batch.images.shape == (1, 3, 8, 8) and batch.labels.tolist() == [1]
    assert f"Skipped: {tmp_path / 'bad.png'}: " in caplog.text


def test_fewer_photos_than_devices_are_refused(tmp_path):
    path = tmp_path / "one.png"
    Image.new("RGB", (8, 8)).save(path)
    photos = Photos([path], {"resize": 8, "crop": 8, "mean": [0.5] * 3, "std": [0.5] * 3}, ["a", "b"])
    photos.trainer = SimpleNamespace(global_rank=1, world_size=2)
    with pytest.raises(ValueError, match=r"1 photo cannot be shared out among 2 devices: use fewer"):
        photos.predict_dataloader()


def test_subset_keeps_images_and_labels_together():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2)
    part = TensorImages(images, torch.arange(5)).subset([3, 1])
    assert part.images[:, 0, 0, 0].tolist() == part.labels.tolist() == [3, 1]


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"classes": 0}, {"size": 0}, {"val_size": -1}])
def test_sizes_that_are_too_small_are_refused(arguments):
    with pytest.raises(ValueError, match="at least [01]"):
        Synthetic(**arguments)


def test_public_names():
    assert all(hasattr(datamodules, name) for name in datamodules.__all__)
