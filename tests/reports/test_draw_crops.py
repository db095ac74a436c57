"""The drawing of views."""

import numpy as np
import pytest
from PIL import Image

from datamodules.views import Views
from reports import draw_crops, protocols


@pytest.mark.parametrize(
    ("name", "size", "expected", "scales"),
    [
        ("center", (500, 375), "center: 1 view", 1),
        ("ten_crop", (500, 375), "ten_crop: 10 views, half of them mirrored", 1),
        ("crops_144", (500, 375), "crops_144: 144 views, half of them mirrored", 4),
        ("crops_144", (300, 300), "crops_144: 144 views, half of them mirrored, 48 distinct on this picture", 4),
        ("dense+multi_crop", (375, 500), "dense+multi_crop: 156 views, half of them mirrored", 3),
    ],
)
def test_a_row_for_each_protocol_and_a_panel_for_each_scale(here, name, size, expected, scales):
    Image.new("RGB", size, "teal").save("photo.png")
    views, picture = Views(name, 224, 256), draw_crops.open_image("photo.png")
    assert draw_crops.title(views, picture) == expected
    panels = draw_crops.panels(views, picture)
    assert len(panels) == scales and not any(view.hflip for panel in panels for view in panel)
    drawn = sum(map(len, panels)) * (2 if "mirrored" in expected else 1)
    assert drawn == views.count  # every view, or its mirror image, is drawn
    assert all(len(draw_crops.colours(panel)) == len(panel) for panel in panels)


def test_each_whole_square_has_a_colour_for_itself_and_its_crops(here):
    Image.new("RGB", (500, 375), "teal").save("photo.png")
    panel = draw_crops.panels(Views("crops_144", 224), draw_crops.open_image("photo.png"))[0]
    colours = draw_crops.colours(panel)
    assert [len(set(colours[k : k + 6])) for k in (0, 6, 12)] == [1, 1, 1] and len(set(colours)) == 3


@pytest.mark.parametrize("size", [32, 224])
def test_the_drawing_is_a_picture(here, size, capsys):
    grey = np.full((375, 500, 3), 200, np.uint8)
    Image.fromarray(grey).save("photo.png")
    protocols.main(["--draw", "photo.png", "--size", str(size), "--protocols", "center", "crops_144"])
    assert capsys.readouterr().out == "Wrote views.png\n"
    pixels = np.asarray(Image.open("views.png").convert("L"))
    assert pixels.shape[1] > 1500 and pixels.shape[0] > 600
    values, counts = np.unique(pixels, return_counts=True)
    seen = dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert seen[200] > seen[round(200 * draw_crops.DIM)] > 10_000  # what center shows is bright, the rest is dim
    red = np.asarray(Image.open("views.png").convert("RGB")) == [0xFF, 0x5A, 0x5F]
    assert red.all(2).sum() > 500
