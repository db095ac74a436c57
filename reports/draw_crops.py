"""What the protocols look at, drawn on a picture: a row for each protocol, a panel for each scale."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from datamodules.decode import Picture, open_picture
from datamodules.views import NATIVE, View, Views
from errors import UserError

FORMATS = (".png", ".svg", ".pdf")
GAP, HEAD, FOOT = 28, 34, 52  # pixels between panels, above them for a protocol's name, below for what they are
LONGEST = 40_000  # pixels of a drawing
DIM = 0.4  # how bright is what no view shows
FEW = 6  # views that get a colour each
COLOURS = ("#ff5a5f", "#3fb8ff", "#ffd23f", "#5fe08a", "#ff9df5", "#ff9f40")
Panel = list[View]


def draw(image: Path, protocols: Sequence[str], size: int, output: Path) -> None:
    """Write the drawing.

    Args:
        image: a file.
        protocols: see `datamodules.views`.
        size: pixels per side of the net's input.
        output: .png, .svg or .pdf.

    Raises:
        ValueError: if the image cannot be read, there is no such protocol, or the output cannot be written.
    """
    if output.suffix not in FORMATS or not output.absolute().parent.is_dir():
        raise UserError(f"{output} cannot be drawn: name a {', '.join(FORMATS)} file in a folder that exists.")
    if size < 1:
        raise UserError(f"--size is {size}: it must be at least 1 pixel.")
    try:
        picture = open_picture(image.expanduser())
        picture.crop((0, 0, 1, 1), (1, 1))  # decodes it: what is cut off is found here
    except ValueError as error:
        raise UserError(f"{image} cannot be drawn on ({error}): give a photo.") from error
    views = [Views(name, size, round(size * 8 / 7)) for name in protocols]
    rows = [(title(each, picture), panels(each, picture)) for each in views]
    zoom = max(1, NATIVE / size)  # so that small ones can be seen
    width = max(sum(zoom * panel[0].frame[1] + GAP for panel in row) for _, row in rows) + GAP
    heights = [HEAD + zoom * max(panel[0].frame[0] for panel in row) + FOOT for _, row in rows]
    if max(width, sum(heights)) > LONGEST:
        raise UserError(f"{image} has {picture.height} x {picture.width} pixels, too long to be drawn on: crop it.")
    figure = Figure(figsize=(max(width, 400) / 100, (sum(heights) + GAP) / 100), facecolor="white")
    for number, (name, row) in enumerate(rows):
        draw_row(figure, picture, name, row, GAP + sum(heights[:number]), zoom)
    try:
        figure.savefig(output, dpi=150)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}): name another file.") from error
    print(f"Wrote {output}")


def panels(views: Views, picture: Picture) -> list[Panel]:
    """The views of a picture that are no mirror images, those together that are cut from it at one scale."""
    frames: dict[tuple[int, int], Panel] = {}
    for view in views.of(picture.height, picture.width):
        if not view.mirror:
            frames.setdefault(view.frame, []).append(view)
    return list(frames.values())


def title(views: Views, picture: Picture) -> str:
    """Name and number of views, and of distinct ones where some are the same (of a square picture)."""
    every = views.of(picture.height, picture.width)
    half = ", half of them mirrored" if any(view.mirror for view in every) else ""
    same = "" if len(set(every)) == len(every) else f", {len(set(every))} distinct on this picture"
    return f"{views.protocol}: {len(every)} view{'s' * (len(every) > 1)}{half}{same}"


def draw_row(figure: Figure, picture: Picture, name: str, row: list[Panel], top: float, zoom: float) -> None:
    """A protocol, `top` pixels down the figure: its name, and below it its panels, all enlarged alike."""
    width, height = (100 * side for side in figure.get_size_inches())
    figure.text(GAP / width, 1 - top / height, name, va="top", fontsize=12, weight="bold")
    left: float = GAP
    for panel in row:
        tall, wide = (zoom * side for side in panel[0].frame)
        axes = figure.add_axes((left / width, 1 - (top + HEAD + tall) / height, wide / width, tall / height))
        draw_panel(axes, picture, panel, zoom)
        left += wide + GAP


def draw_panel(axes: Axes, picture: Picture, panel: Panel, zoom: float) -> None:
    """One scale: the picture, bright where views show it, and the views."""
    tall, wide = panel[0].frame
    pixels = picture.crop((0, 0, picture.height, picture.width), (tall, wide)).permute(1, 2, 0).numpy() / 255
    seen = np.zeros((tall, wide, 1), bool)
    for top, left, height, width in (view.box for view in panel):
        seen[top : top + height, left : left + width] = True
    axes.imshow(np.where(seen, pixels, pixels * DIM), extent=(0, wide, tall, 0))
    for number, (view, colour) in enumerate(zip(panel, colours(panel), strict=True)):
        # Views whose sides lie on each other are drawn beside each other
        outline(axes, view, colour, inset=(2 + 2.5 * (number % 3)) / zoom, arm=0.12 if len(panel) <= FEW else 0.08)
    views = f"{len(panel)} view{'s' * (len(panel) > 1)}"
    axes.text(0, tall + 7 / zoom, f"{wide} x {tall} px, {views}", va="top", fontsize=9, color="#444444")
    axes.set(xlim=(0, wide), ylim=(tall, 0))
    axes.axis("off")


def colours(panel: Panel) -> list[str]:
    """One for each view where they are few; for the views of each whole square; else from the first to the last."""
    squares = np.cumsum([is_resized(view) for view in panel])
    if squares[-1]:
        return [
            COLOURS[int(number - is_resized(view)) % len(COLOURS)] for number, view in zip(squares, panel, strict=True)
        ]
    if len(panel) <= FEW:
        return list(COLOURS[: len(panel)])
    return [to_hex(colormaps["turbo"](0.15 + 0.75 * number / len(panel))) for number in range(len(panel))]


def is_resized(view: View) -> bool:
    """Whether it is a whole square, brought to the net's size."""
    return view.box[2:] != view.size


def outline(axes: Axes, view: View, colour: str, inset: float, arm: float) -> None:
    """A view's corners, `arm` of its side long, and faintly its sides; of a whole square, or picture, all of them."""
    top, left, height, width = view.box
    x, y, wide, tall = left + inset, top + inset, width - 2 * inset, height - 2 * inset
    whole = is_resized(view) or view.size == view.frame
    style = {"linewidth": 2, "linestyle": (0, (4, 3))} if whole else {"linewidth": 0.7, "alpha": 0.5}
    axes.add_patch(Rectangle((x, y), wide, tall, fill=False, edgecolor=colour, **style))
    if whole:
        return
    arm *= wide
    halo = [Stroke(linewidth=3.4, foreground="#0006"), Normal()]
    for across, down in ((0, 0), (0, 1), (1, 0), (1, 1)):
        corner_x, corner_y = x + across * wide, y + down * tall
        inwards_x, inwards_y = arm * (1 - 2 * across), arm * (1 - 2 * down)
        xs, ys = (corner_x + inwards_x, corner_x, corner_x), (corner_y, corner_y, corner_y + inwards_y)
        axes.plot(xs, ys, color=colour, linewidth=2, solid_capstyle="round", path_effects=halo)
