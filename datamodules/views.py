"""Evaluation views: what of a picture a net is shown in a test, as the papers did it.

A protocol is a name, such as crops_144, or a name with the lengths to which the shorter side of a picture is brought,
such as dense_multi_scale@224-256-384. Its geometry is data: `Views.of` lists the boxes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.decode import Interpolation, Picture
from errors import UserError

Box = tuple[int, int, int, int]  # top, left, height, width in pixels
NATIVE = 224  # pixels per side of the crops in the papers; other inputs scale all lengths with them
USUAL = 256  # length of the shorter side in most of them
MARGIN = 14  # 256 leaves a 14th of a crop's side around it


class View(NamedTuple):
    """One look at a picture.

    Args:
        frame: height and width of the picture after it was rescaled, in pixels.
        margin: pixels of black that are put around it then.
        box: what is cut out of that.
        size: height and width of what the net gets: the box's, unless a whole square is resized.
        mirror: whether the rescaled picture is mirrored left to right before the box is cut.
    """

    frame: tuple[int, int]
    margin: int
    box: Box
    size: tuple[int, int]
    mirror: bool


def centre(height: int, width: int, size: int) -> list[Box]:
    """The square of `size` pixels in the middle."""
    return [(round((height - size) / 2), round((width - size) / 2), size, size)]


def five(height: int, width: int, size: int) -> list[Box]:
    """The squares in the four corners and in the middle, in the order of torchvision's FiveCrop."""
    bottom, right = height - size, width - size
    corners = [(top, left, size, size) for top in (0, bottom) for left in (0, right)]
    return corners + centre(height, width, size)


def grid(height: int, width: int, size: int) -> list[Box]:
    """5 x 5 squares, evenly over the whole picture (arXiv 1409.1556, section 3.2)."""
    tops, lefts = ([round((length - size) * k / 4) for k in range(5)] for length in (height, width))
    return [(top, left, size, size) for top in tops for left in lefts]


def six(square: Box, size: int) -> list[Box]:
    """Corners and middle of a square, and the whole square (arXiv 1409.4842, section 7)."""
    top, left, side, _ = square
    return [*((top + down, left + right, size, size) for down, right, _, _ in five(side, side, size)), square]


def six_of_three(height: int, width: int, size: int) -> list[Box]:
    """Of the squares at the left, in the middle and at the right, or at the top, in the middle and at the bottom."""
    side, slack = min(height, width), abs(height - width)
    places = (0, round(slack / 2), slack)
    squares = [(place, 0, side, side) if height > width else (0, place, side, side) for place in places]
    return [box for square in squares for box in six(square, size)]


def six_of_one(height: int, width: int, size: int) -> list[Box]:
    """Of the square in the middle."""
    return six(centre(height, width, min(height, width))[0], size)


def whole(height: int, width: int, size: int) -> list[Box]:
    """All of it."""
    return [(0, 0, height, width)]


@dataclass(frozen=True)
class Recipe:
    """A protocol for crops of 224 pixels.

    Args:
        scales: lengths of the shorter side.
        boxes: what is cut out of a picture of that height and width, for crops of a size.
        mirrored: whether the mirror image is looked at in the same way.
        torchvisions: whether a rescaled picture's longer side is rounded down, as torchvision does, or to the nearest.
    """

    scales: tuple[int, ...]
    boxes: Callable[[int, int, int], list[Box]]
    mirrored: bool = True
    torchvisions: bool = False

    @property
    def dense(self) -> bool:
        """Whether the net goes over the whole picture."""
        return self.boxes is whole


DENSE = Recipe((256, 384, 512), whole)
MULTI_CROP = Recipe((256, 384, 512), grid)
CROPS_144 = Recipe((256, 288, 320, 352), six_of_three)
# A protocol of several recipes is the mean of their posteriors
PROTOCOLS: dict[str, tuple[Recipe, ...]] = {
    "center": (Recipe((256,), centre, mirrored=False, torchvisions=True),),
    "ten_crop": (Recipe((256,), five, torchvisions=True),),
    "crops_144": (CROPS_144,),  # GoogLeNet
    "inception_12": (Recipe((256,), six_of_one),),  # which crops they were, the Inception papers do not say
    "inception_144": (CROPS_144,),
    "multi_crop": (MULTI_CROP,),  # VGG, Table 5, as the three that follow
    "dense": (Recipe((256,), whole),),
    "dense_multi_scale": (DENSE,),
    "dense+multi_crop": (DENSE, MULTI_CROP),
}


class Views:
    """The views of a protocol for a net with inputs of one size.

    Args:
        protocol: a name out of `PROTOCOLS`, or NAME@Q or NAME@Q-Q-... with lengths of the shorter side in pixels. The
            lengths of the papers are for 224 px and scale with `size`.
        size: pixels per side of a crop.
        resize: the length of the shorter side for `center`.
        native_size: whether images come at the net's own size, as CIFAR-10's. They are zero-padded then as if a 224-px
            crop had been cut from 256 px.
        hflip_preserves_label: whether a mirror image shows the same class; if not, as for digits, none is evaluated.
        interpolation: how pictures are rescaled, always antialiased.

    Raises:
        ValueError: for a name that does not exist, or lengths below `size`.
    """

    def __init__(
        self,
        protocol: str,
        size: int,
        resize: int | None = None,
        native_size: bool = False,
        hflip_preserves_label: bool = True,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        name, _, lengths = protocol.partition("@")
        if name not in PROTOCOLS:
            raise UserError(f"There is no protocol {name}: choose one of {', '.join(PROTOCOLS)}.")
        self.protocol, self.size, self.native_size = protocol, size, native_size
        self.hflip_preserves_label = hflip_preserves_label
        self.interpolation = interpolation
        self.parts = PROTOCOLS[name]
        given = parse_lengths(protocol, lengths) if "@" in protocol else None
        if given and len(self.parts[0].scales) == 1 < len(given):
            raise UserError(f"Protocol {name} looks at one scale and {protocol} names {len(given)}: give one of them.")
        usual = (size if native_size else resize) if name == "center" else None
        scaled = [tuple(self._at_size(scale) for scale in part.scales) for part in self.parts]
        self.scales = [given or ((usual,) if usual else own) for own in scaled]
        if (least := min(min(scales) for scales in self.scales)) < size:
            raise UserError(
                f"Protocol {protocol} would cut views of {size} px out of images whose shorter side is {least} px: "
                f"give lengths of at least {size}."
            )

    @property
    def dense(self) -> bool:
        """Whether a net must go over pictures of any size, densely."""
        return any(part.dense for part in self.parts)

    @property
    def weights(self) -> list[float]:
        """What each tensor that `__call__` returns counts: equally within a recipe, and the recipes alike."""
        groups = [len(scales) if part.dense else 1 for part, scales in zip(self.parts, self.scales, strict=True)]
        return [1 / (len(groups) * count) for count in groups for _ in range(count)]

    @property
    def count(self) -> int:
        """Views of an image, which is what it costs in forward passes."""
        return sum(map(len, self.grouped(self.size, self.size)))

    def of(self, height: int, width: int) -> list[View]:
        """The views of a picture of that size, which may be the same where it is square."""
        return [view for group in self.grouped(height, width) for view in group]

    def grouped(self, height: int, width: int) -> list[list[View]]:
        """The same, those together that have one size."""
        groups: list[list[View]] = []
        for part, scales in zip(self.parts, self.scales, strict=True):
            by_scale = [self._at_scale(part, scale, height, width) for scale in scales]
            groups += by_scale if part.dense else [[view for views in by_scale for view in views]]
        return groups

    def __call__(self, picture: Picture) -> list[Tensor]:
        """The views of a picture, uint8 [V, 3, H, W], a tensor for each size."""
        box = (0, 0, picture.height, picture.width)
        return self._cut(box[2], box[3], lambda size: picture.crop(box, size, self.interpolation))

    def of_batch(self, images: Tensor) -> list[Tensor]:
        """The views of images of one size, uint8 [B, 3, H, W], on their device: [B, V, 3, h, w], a tensor per size."""
        height, width = images.shape[-2:]
        return self._cut(height, width, lambda size: rescale(images, size, self.interpolation))

    def _cut(self, height: int, width: int, rescaled: Callable[[tuple[int, int]], Tensor]) -> list[Tensor]:
        """Cut the views out of what `rescaled` makes, [..., 3, H, W], a new dimension before its last three."""
        frames: dict[tuple[tuple[int, int], int], tuple[Tensor, Tensor]] = {}  # as they are, and mirrored
        cut = []
        for group in self.grouped(height, width):
            pieces = []
            for view in group:
                if (key := view[:2]) not in frames:
                    plain = F.pad(rescaled(view.frame), (view.margin,) * 4)
                    frames[key] = plain, plain.flip(-1)
                top, left, tall, wide = view.box
                piece = frames[key][view.mirror][..., top : top + tall, left : left + wide]
                pieces.append(rescale(piece, view.size, self.interpolation))
            cut.append(torch.stack(pieces, dim=-4))
        return cut

    def _at_size(self, scale: int) -> int:
        """A length of the papers at this size of crops."""
        return round(scale * self.size / (USUAL if self.native_size else NATIVE))

    def _at_scale(self, part: Recipe, scale: int, height: int, width: int) -> list[View]:
        short, long = sorted((height, width))
        longer = scale * long // short if part.torchvisions else round(scale * long / short)
        frame = (longer, scale) if height > width else (scale, longer)
        margin = round(scale / MARGIN) if self.native_size and part.mirrored and not part.dense else 0
        boxes = part.boxes(frame[0] + 2 * margin, frame[1] + 2 * margin, self.size)
        sides = (False, True) if part.mirrored and self.hflip_preserves_label else (False,)
        size = frame if part.dense else (self.size, self.size)
        return [View(frame, margin, box, size, mirror) for mirror in sides for box in boxes]


def parse_lengths(protocol: str, lengths: str) -> tuple[int, ...]:
    """The lengths of NAME@Q-Q-..., in pixels."""
    if not re.fullmatch(r"\d+(-\d+)*", lengths):
        raise UserError(
            f"Protocol {protocol} wants whole numbers of pixels behind the @, such as dense_multi_scale@224-256-384."
        )
    return tuple(int(length) for length in lengths.split("-"))


def rescale(images: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Bring uint8 images [..., 3, H, W] to another height and width, antialiased."""
    if tuple(images.shape[-2:]) == size:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    if images.device.type != "cpu":  # only there are bytes resized as such
        flat = flat.float()
    there = F.interpolate(flat, size=size, mode=interpolation, antialias=True, align_corners=False)
    return there.round().clamp(0, 255).to(torch.uint8).reshape(*images.shape[:-2], *size)
