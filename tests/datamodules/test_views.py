"""The geometry of the papers' protocols, by numbers and by pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules.crops import CenterCrop
from datamodules.decode import EncodedImage
from datamodules.views import PROTOCOLS, CropRule, View, Views, center_crop, five_crop, grid_crop

COUNTS = {
    "center": 1, "ten_crop": 10, "crops_144": 144, "inception_12": 12, "inception_144": 144, "multi_crop": 150,
    "dense": 2, "dense_multi_scale": 6, "dense+multi_crop": 156,
}  # fmt: skip
LANDSCAPE, PORTRAIT, SQUARE, ODD, NEARLY_SQUARE = (375, 500), (500, 375), (400, 400), (333, 517), (500, 501)


def photo(height: int, width: int) -> EncodedImage:
    """Smooth noise, as PNG so that nothing is lost."""
    small = np.random.default_rng(0).integers(256, size=(height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(file, "png")
    return EncodedImage(file.getvalue())


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("shape", [LANDSCAPE, PORTRAIT, SQUARE, ODD, NEARLY_SQUARE, (224, 224), (60, 900)])
def test_every_protocol_has_its_number_of_views_inside_the_picture(name, shape):
    views = Views(name, 224, 256)
    looks = views.list_views(*shape)
    assert len(looks) == views.count == COUNTS[name]
    for view in looks:
        top, left, height, width = view.box
        assert view.padding == 0 and min(view.resized) >= 224
        assert top >= 0 and left >= 0 and height > 0 and width > 0
        assert top + height <= view.resized[0] and left + width <= view.resized[1]
        assert view.size == (
            view.resized
            if height == view.resized[0] and name.startswith("dense") and (height, width) != (224, 224)
            else (224, 224)
        )


@pytest.mark.parametrize(
    ("shape", "distinct"),
    [(LANDSCAPE, 144), (PORTRAIT, 144), (ODD, 144), (SQUARE, 48), (NEARLY_SQUARE, 96), ((501, 500), 96)],
)
def test_crops_144_differ_in_scale_box_or_mirror(shape, distinct):
    assert len(set(Views("crops_144", 224).list_views(*shape))) == distinct


def test_the_boxes_of_crops_144():
    looks = Views("crops_144", 224).list_views(*LANDSCAPE)
    assert [view.resized for view in looks[::36]] == [(256, 341), (288, 384), (320, 427), (352, 469)]
    left_square, middle, right = looks[:6], looks[6:12], looks[12:18]
    corners = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    for square, start in ((left_square, 0), (middle, 42), (right, 85)):  # 341 - 256 = 85
        assert [view.box for view in square] == [
            *((top, start + left, 224, 224) for top, left in corners),
            (0, start, 256, 256),
        ]
    assert not any(view.hflip for view in looks[:18]) and all(view.hflip for view in looks[18:36])
    upright = Views("crops_144", 224).list_views(*PORTRAIT)
    assert [view.box[:2] for view in upright[5:18:6]] == [(0, 0), (42, 0), (85, 0)]


def test_the_boxes_of_small_protocols():
    assert center_crop(256, 341, 224) == [(16, 58, 224, 224)]  # 58.5 to the even one, as torchvision
    assert [box[:2] for box in five_crop(256, 341, 224)] == [(0, 0), (0, 117), (32, 0), (32, 117), (16, 58)]
    assert [box[:2] for box in grid_crop(256, 384, 224)][:6] == [(0, 0), (0, 40), (0, 80), (0, 120), (0, 160), (8, 0)]
    assert len(set(grid_crop(256, 256, 224))) == 25
    twelve = Views("inception_12", 299).list_views(*LANDSCAPE)
    assert twelve[0].resized == (342, 456) and twelve[5].box == (0, 57, 342, 342)
    assert [view.resized[0] for view in Views("inception_144", 299).list_views(*LANDSCAPE)[::36]] == [
        342,
        384,
        427,
        470,
    ]
    assert [view.resized for view in Views("dense_multi_scale", 224).list_views(*ODD)[::2]] == [
        (256, 397),
        (384, 596),
        (512, 795),
    ]


@pytest.mark.parametrize("shape", [LANDSCAPE, PORTRAIT, SQUARE, ODD])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_ten_crop_is_torchvisions_pixel_for_pixel(shape, interpolation):
    picture = photo(*shape)
    (views,) = Views("ten_crop", 224, interpolation=interpolation)(picture)
    whole = picture.crop((0, 0, *shape), (256, 256 * shape[1] // shape[0]), interpolation)
    if shape[1] < shape[0]:
        whole = picture.crop((0, 0, *shape), (256 * shape[0] // shape[1], 256), interpolation)
    assert whole.shape[1:] == v2.Resize(256)(torch.zeros(3, *shape)).shape[1:]
    expected = torch.stack(v2.TenCrop(224)(whole))
    assert views.dtype == torch.uint8 and torch.equal(views, expected)


def test_center_is_what_validation_sees():
    picture = photo(*ODD)
    (view,) = Views("center", 224, 256)(picture)
    assert torch.equal(view[0], CenterCrop(256, 224)(picture))


def test_a_whole_square_is_resized():
    picture = photo(*LANDSCAPE)
    (views,) = Views("crops_144", 224)(picture)
    assert views.shape == (144, 3, 224, 224)
    frame = picture.crop((0, 0, *LANDSCAPE), (256, 341))
    square = v2.functional.resize(frame[:, :, :256], [224, 224], antialias=True)
    assert (views[5].int() - square.int()).abs().max() <= 1
    assert torch.equal(views[18 + 5], torch.stack(list(Views("crops_144", 224)(picture)[0]))[23])
    assert (views[18 + 17].flip(-1).int() - views[5].int()).abs().float().mean() < 0.5  # of the mirror image the right


def test_dense_views_are_the_whole_picture_and_its_mirror_image():
    views = Views("dense_multi_scale", 224)(photo(*ODD))
    assert [tuple(look.shape) for look in views] == [(2, 3, 256, 397), (2, 3, 384, 596), (2, 3, 512, 795)]
    assert all(torch.equal(look[0], look[1].flip(-1)) for look in views)


def test_recipes_count_alike_and_views_within_them():
    assert Views("dense_multi_scale", 224).weights == pytest.approx([1 / 3] * 3)
    both = Views("dense+multi_crop", 224)
    assert both.weights == pytest.approx([1 / 6] * 3 + [1 / 2]) and both.dense
    assert not Views("multi_crop", 224).dense


def test_small_images_are_shifted_and_mirrored():
    images = torch.randint(1, 256, (4, 3, 32, 32), dtype=torch.uint8)
    (views,) = Views("ten_crop", 32, 32, native_size=True).cut_batch(images)
    assert views.shape == (4, 10, 3, 32, 32)
    assert torch.equal(views[:, 4], images) and torch.equal(views[:, 9], images.flip(-1))
    assert (
        torch.equal(views[:, 0, :, 2:, 2:], images[..., :30, :30]) and not views[:, 0, :, :2].any()
    )  # two pixels down
    (views,) = Views("ten_crop", 32, 32, native_size=True, hflip_preserves_label=False).cut_batch(images)
    assert views.shape[1] == 5
    enlarged = Views("dense_multi_scale", 32, 32, native_size=True).cut_batch(images)
    assert [look.shape[-1] for look in enlarged] == [32, 48, 64]
    both = Views("dense+multi_crop", 32, 32, native_size=True)
    assert [tuple(look.shape[1:3]) for look in both.cut_batch(images)] == [(2, 3)] * 3 + [(150, 3)]
    assert both.list_views(32, 32)[-1] == View((64, 64), 5, (42, 42, 32, 32), (32, 32), True)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("ten_corp", "There is no protocol ten_corp: choose one of center, "),
        ("ten_crop@200", "would cut views of 224 px out of images whose shorter side is 200 px"),
        ("ten_crop@256-288", "has one scale and ten_crop@256-288 names 2"),
        ("dense@large", "needs whole numbers of pixels behind the @"),
        ("dense@", "needs whole numbers of pixels behind the @"),
    ],
)
def test_what_is_no_protocol(protocol, message):
    with pytest.raises(ValueError, match=message):
        Views(protocol, 224, 256)


def test_lengths_may_be_given():
    assert Views("dense_multi_scale@224-256-384-480-640", 224).scales == [(224, 256, 384, 480, 640)]
    assert Views("ten_crop@288", 224).list_views(*SQUARE)[0].resized == (288, 288)
    assert Views("center@300", 224, 256).scales == [(300,)]


@pytest.mark.parametrize("name", sorted(PROTOCOLS.keys() - {"center"}))
def test_crops_of_images_of_the_nets_own_size_shift(name):
    """Whether or not mirror images are evaluated: an unpadded image would give the same view many times."""
    views = Views(name, 32, 32, native_size=True, hflip_preserves_label=False).list_views(32, 32)
    assert len(set(views)) > 1 or name == "dense"


def test_a_protocol_without_mirror_images_is_padded_too(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "five", (CropRule((256,), five_crop, hflip=False, round_down=True),))
    five, ten = (Views(name, 32, 32, native_size=True).list_views(32, 32) for name in ("five", "ten_crop"))
    assert five == ten[:5] and len(set(five)) == 5
