"""The views of protocols, drawn on an image: a row for each protocol, a panel for each scale."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes

from datamodules.decode import EncodedImage, open_image
from datamodules.views import PAPER_CROP, View, Views, resize
from errors import UserError, check_at_least, expand_home, pluralize

FORMATS = (".png", ".pdf")
SCALE = 2  # pixels of the drawing for one that a 224-px net gets; the lengths below are in pixels of the drawing
GAP, HEAD, FOOT = 56, 60, 84  # between panels, above them for a protocol's name, below for a caption
MAX_ASPECT_RATIO = 30
DIM = 0.4  # brightness of pixels outside of all views
COLOURS = ("#ff5a5f", "#3fb8ff", "#ffd23f", "#5fe08a", "#ff9df5", "#ff9f40")
Panel = list[View]


def draw(image: Path, protocols: Sequence[str], size: int, output: Path) -> None:
    """Write the drawing.

    Args:
        image: a file.
        protocols: see `datamodules.views`.
        size: pixels per side of the net's input.
        output: .png or .pdf.

    Raises:
        UserError: if the image cannot be read, there is no such protocol, or the output cannot be written.
    """
    if output.suffix not in FORMATS or not os.path.isdir(output.absolute().parent):
        raise UserError(f"{output} cannot be drawn: name a {' or '.join(FORMATS)} file in a folder that exists.")
    check_at_least(1, size=size)
    try:
        picture = open_image(expand_home(image))
        picture.crop((0, 0, 1, 1), (1, 1))  # decodes it, so that a truncated file is found here
    except UserError as error:
        raise UserError(f"{image} cannot be drawn on ({error}): give a photo.") from error
    if max(picture.height, picture.width) > MAX_ASPECT_RATIO * min(picture.height, picture.width):
        raise UserError(f"{image} has {picture.height} x {picture.width} pixels, too long to be drawn on: crop it.")
    zoom = SCALE * max(1, PAPER_CROP / size)  # small views are enlarged
    rows = [draw_row(picture, Views(name, size, round(size * 8 / 7)), zoom) for name in protocols]
    drawing = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    for number, row in enumerate(rows):
        drawing.paste(row, (0, sum(above.height for above in rows[:number])))
    try:
        drawing.save(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}): name another file.") from error
    print(f"Wrote {output}")


def draw_row(picture: EncodedImage, views: Views, zoom: float) -> Image.Image:
    """A protocol: its title above its panels, captions below them."""
    shown = panels(views, picture)
    images = [draw_panel(picture, panel, zoom) for panel in shown]
    width = GAP + sum(image.width + GAP for image in images)
    row = Image.new("RGB", (max(800, width), HEAD + max(image.height for image in images) + FOOT), "white")
    pen = ImageDraw.Draw(row)
    pen.text((GAP, 16), title(views, picture), "black", ImageFont.load_default(30))
    left = GAP
    for panel, image in zip(shown, images, strict=True):
        row.paste(image, (left, HEAD))
        caption = f"{panel[0].resized[1]} x {panel[0].resized[0]} px, {pluralize(len(panel), 'view')}"
        pen.text((left, HEAD + image.height + 12), caption, "#444444", ImageFont.load_default(22))
        left += image.width + GAP
    return row


def panels(views: Views, picture: EncodedImage) -> list[Panel]:
    """The views of a picture that are not mirrored, grouped by the scale at which they are cut from it."""
    frames: dict[tuple[int, int], Panel] = {}
    for view in views.list_views(picture.height, picture.width):
        if not view.hflip:
            frames.setdefault(view.resized, []).append(view)
    return list(frames.values())


def title(views: Views, picture: EncodedImage) -> str:
    """Name and number of views, and of distinct ones if some are the same (on a square picture)."""
    every = views.list_views(picture.height, picture.width)
    half = ", half of them mirrored" if any(view.hflip for view in every) else ""
    same = "" if len(set(every)) == len(every) else f", {len(set(every))} distinct on this picture"
    return f"{views.protocol}: {pluralize(len(every), 'view')}{half}{same}"


def draw_panel(picture: EncodedImage, panel: Panel, zoom: float) -> Image.Image:
    """One scale: the picture, bright inside the views, and their outlines."""
    height, width = panel[0].resized
    pixels = picture.resize((height, width))
    seen, boxes = torch.zeros(height, width, dtype=torch.bool), []
    for number, (top, left, box_height, box_width) in enumerate(view.box for view in panel):
        seen[top : top + box_height, left : left + box_width] = True
        inset = 4 + 5 * (number % 3)  # sides that coincide are drawn next to each other
        corners = torch.tensor([left, top, left + box_width, top + box_height]) * zoom
        boxes.append(corners + torch.tensor([inset, inset, -inset, -inset]))
    dimmed = torch.where(seen, pixels, (pixels * DIM).round().byte())
    enlarged = resize(dimmed, (round(height * zoom), round(width * zoom)), "bilinear")
    return to_pil_image(draw_bounding_boxes(enlarged, torch.stack(boxes), colors=colours(panel), width=3))


def colours(panel: Panel) -> list[str]:
    """A colour for each view; a square that is resized and the five crops of it share one, see `views.crop_square`."""
    sharing = 6 if any(view.box[2:] != view.size for view in panel) else 1
    return [COLOURS[number // sharing % len(COLOURS)] for number in range(len(panel))]
