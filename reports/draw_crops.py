"""The views of protocols, drawn on an image: a row for each protocol, a panel for each scale."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from datamodules.decode import EncodedImage, open_image
from datamodules.views import PAPER_CROP, View, Views
from errors import UserError, check_at_least, pluralize

FORMATS = (".png", ".pdf")
SCALE = 2  # pixels of the drawing for one that a 224-px net gets; the lengths below are in pixels of the drawing
GAP, HEAD, FOOT = 56, 60, 84  # between panels, above them for a protocol's name, below for a caption
MAX_ASPECT_RATIO = 30
DIM = 0.4  # brightness of pixels outside of all views
FEW_VIEWS = 6  # each gets a colour of its own
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
    if output.suffix not in FORMATS or not output.absolute().parent.is_dir():
        raise UserError(f"{output} cannot be drawn: name a {' or '.join(FORMATS)} file in a folder that exists.")
    check_at_least(1, size=size)
    try:
        picture = open_image(image.expanduser())
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
    tall, wide = panel[0].resized
    pixels = picture.crop((0, 0, picture.height, picture.width), (tall, wide)).permute(1, 2, 0).numpy()
    seen = np.zeros((tall, wide, 1), bool)
    for y, x, side_y, side_x in (view.box for view in panel):
        seen[y : y + side_y, x : x + side_x] = True
    shown = np.where(seen, pixels, pixels * DIM).round().astype(np.uint8)
    image = Image.fromarray(shown).resize((round(wide * zoom), round(tall * zoom)))
    pen = ImageDraw.Draw(image, "RGBA")
    for number, (view, colour) in enumerate(zip(panel, colours(panel), strict=True)):
        inset = 4 + 5 * (number % 3)  # sides that coincide are drawn next to each other
        draw_outline(pen, view, colour, zoom, inset, arm=0.12 if len(panel) <= FEW_VIEWS else 0.08)
    return image


def colours(panel: Panel) -> list[str]:
    """A colour for each of a few views, for each square and the views cut from it, or from blue to red for many."""
    squares = np.cumsum([is_resized(view) for view in panel])
    if squares[-1]:
        own = [square - is_resized(view) for square, view in zip(squares, panel, strict=True)]
        return [COLOURS[square % len(COLOURS)] for square in own]
    if len(panel) <= FEW_VIEWS:
        return list(COLOURS[: len(panel)])
    return [f"hsl({240 - 240 * number // len(panel)}, 100%, 60%)" for number in range(len(panel))]


def is_resized(view: View) -> bool:
    """Whether the view is a whole square, resized for the net."""
    return view.box[2:] != view.size


def draw_outline(pen: ImageDraw.ImageDraw, view: View, colour: str, zoom: float, inset: int, arm: float) -> None:
    """All sides of a whole square or picture; of another view thin sides and its corners, `arm` of a side long."""
    top, left, height, width = (zoom * side for side in view.box)
    xs, ys = (left + inset, left + width - inset), (top + inset, top + height - inset)
    if is_resized(view) or view.size == view.resized:
        pen.rectangle((xs[0], ys[0], xs[1], ys[1]), outline=colour, width=4)
        return
    pen.rectangle((xs[0], ys[0], xs[1], ys[1]), outline=(*ImageColor.getrgb(colour)[:3], 128))
    for x, across in zip(xs, (arm * width, -arm * width), strict=True):
        for y, down in zip(ys, (arm * width, -arm * width), strict=True):
            for fill, thickness in (("#00000066", 7), (colour, 4)):  # a shadow, so that it is seen on any picture
                pen.line((x + across, y, x, y, x, y + down), fill, thickness, joint="curve")
