"""Test protocols: the views of an image that a net evaluates, as in the papers.

A protocol is a name, such as crops_144, or a name with lengths in pixels, to which the shorter side of an image is
resized, such as dense_multi_scale@224-256-384. Its geometry is data: `Views.list_views` lists the boxes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from datamodules.crops import MAX_ASPECT_RATIO
from datamodules.decode import AnyImage, Box, Interpolation, resize
from errors import UserError

PAPER_CROP = 224  # pixels per side of the crops in the papers; for other inputs all lengths are scaled
PAPER_RESIZE = 256  # length of the shorter side in most papers


class View(NamedTuple):
    """One view of an image: resized, padded, perhaps flipped, cut out, perhaps resized again.

    Args:
        resized: height and width to which the whole image is resized, in pixels.
        padding: black pixels that are then put around it.
        box: rectangle that is cut out of the padded image.
        size: height and width of the net's input: those of the box, unless a whole square is resized.
        hflip: whether the padded image is flipped horizontally before the box is cut out.
    """

    resized: tuple[int, int]
    padding: int
    box: Box
    size: tuple[int, int]
    hflip: bool


def center_crop(height: int, width: int, size: int) -> list[Box]:
    """The square of `size` pixels in the centre."""
    return [(round((height - size) / 2), round((width - size) / 2), size, size)]


def five_crop(height: int, width: int, size: int) -> list[Box]:
    """The squares in the four corners and in the centre, in the order of torchvision's FiveCrop."""
    bottom, right = height - size, width - size
    corners = [(top, left, size, size) for top in (0, bottom) for left in (0, right)]
    return corners + center_crop(height, width, size)


def grid_crop(height: int, width: int, size: int) -> list[Box]:
    """5 x 5 squares, evenly spaced over the whole image (arXiv 1409.1556, section 3.2)."""
    tops, lefts = ([round((length - size) * k / 4) for k in range(5)] for length in (height, width))
    return [(top, left, size, size) for top in tops for left in lefts]


def crop_square(square: Box, size: int) -> list[Box]:
    """Corners and centre of a square, and the whole square (arXiv 1409.4842, section 7)."""
    top, left, side, _ = square
    return [*((top + down, left + right, size, size) for down, right, _, _ in five_crop(side, side, size)), square]


def crop_three_squares(height: int, width: int, size: int) -> list[Box]:
    """`crop_square` of the left, centre and right squares of an image, or of the top, centre and bottom ones."""
    side, slack = min(height, width), abs(height - width)
    offsets = (0, round(slack / 2), slack)
    squares = [(offset, 0, side, side) if height > width else (0, offset, side, side) for offset in offsets]
    return [box for square in squares for box in crop_square(square, size)]


def crop_center_square(height: int, width: int, size: int) -> list[Box]:
    """`crop_square` of the square in the centre of an image."""
    return crop_square(center_crop(height, width, min(height, width))[0], size)


def whole_image(height: int, width: int, size: int) -> list[Box]:
    """The whole image."""
    return [(0, 0, height, width)]


@dataclass(frozen=True)
class CropRule:
    """A protocol, or a part of one, for crops of 224 pixels.

    Args:
        scales: lengths of the shorter side, in pixels.
        boxes: from height and width of the resized image and the size of crops to the boxes that are cut out.
        hflip: whether the flipped image is evaluated too.
        round_down: whether the longer side of a resized image is rounded down, as by torchvision, or to the nearest.
    """

    scales: tuple[int, ...]
    boxes: Callable[[int, int, int], list[Box]]
    hflip: bool = True
    round_down: bool = False

    @property
    def dense(self) -> bool:
        """Whether the net is applied to the whole image, densely."""
        return self.boxes is whole_image


# GoogLeNet, arXiv 1409.4842, section 7: four scales, three squares of each, six crops of each square, and all flipped
CROPS_144 = CropRule((256, 288, 320, 352), crop_three_squares)
# VGG, arXiv 1409.1556, section 3.2 and Table 4: the net is applied to the whole image and its flipped image, and the
# logits of all places are averaged. The ResNet paper's lengths (section 3.4): dense_multi_scale@224-256-384-480-640
DENSE_MULTI_SCALE = CropRule((256, 384, 512), whole_image)
# VGG, section 3.2: a grid of 5 x 5 crops at three scales, and all flipped: 150 in all
MULTI_CROP = CropRule((256, 384, 512), grid_crop)
# The probabilities of a protocol with several rules are the mean of theirs
PROTOCOLS: dict[str, tuple[CropRule, ...]] = {
    "center": (CropRule((256,), center_crop, hflip=False, round_down=True),),
    # arXiv 1512.03385, Table 3, and many others
    "ten_crop": (CropRule((256,), five_crop, round_down=True),),
    "crops_144": (CROPS_144,),
    # Inception-v3 and -v4: arXiv 1512.00567 and 1602.07261 do not say which crops theirs are; these are our choice, at
    # 299 px with shorter sides of 342, and of 342, 384, 427 and 470 px
    "inception_12": (CropRule((256,), crop_center_square),),
    "inception_144": (CROPS_144,),
    "multi_crop": (MULTI_CROP,),
    "dense": (CropRule((256,), whole_image),),
    "dense_multi_scale": (DENSE_MULTI_SCALE,),
    # VGG, Table 5
    "dense+multi_crop": (DENSE_MULTI_SCALE, MULTI_CROP),
}


@dataclass
class Views:
    """The views of a protocol for a net with inputs of one size.

    Args:
        protocol: a name out of `PROTOCOLS`, or NAME@Q or NAME@Q-Q-... with lengths of the shorter side in pixels. The
            papers' lengths are for 224 px and are scaled to `size`.
        size: pixels per side of a crop.
        resize: length of the shorter side for `center`.
        native_size: whether images have the net's own size, as CIFAR-10's. Zero-pad them as if a 224-px crop had been
            cut from 256 px.
        hflip_preserves_label: whether a flipped image shows the same class; if not, as for digits, none is evaluated.
        interpolation: how images are resized, always antialiased.

    Attributes:
        rules: of the protocol.
        scales: lengths of the shorter side for each rule, in pixels.

    Raises:
        UserError: for a name that does not exist, or lengths below `size`.
    """

    protocol: str
    size: int
    resize: int | None = None
    native_size: bool = False
    hflip_preserves_label: bool = True
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        name, at, lengths = self.protocol.partition("@")
        if name not in PROTOCOLS:
            raise UserError(f"There is no protocol {name}: choose one of {', '.join(PROTOCOLS)}.")
        self.rules = PROTOCOLS[name]
        given = parse_lengths(self.protocol, lengths) if at else ()
        if len(self.rules[0].scales) == 1 < len(given):
            raise UserError(f"Protocol {name} has one scale and {self.protocol} names {len(given)}: give one of them.")
        if name == "center" and not given and (side := self.size if self.native_size else self.resize):
            given = (side,)
        self.scales = [given or tuple(self._scale_length(scale) for scale in rule.scales) for rule in self.rules]
        if (least := min(min(scales) for scales in self.scales)) < self.size:
            raise UserError(
                f"Protocol {self.protocol} would cut views of {self.size} px out of images whose shorter side is "
                f"{least} px: give lengths of at least {self.size}."
            )

    @property
    def dense(self) -> bool:
        """Whether a net must take images of any size, densely."""
        return any(rule.dense for rule in self.rules)

    @property
    def weights(self) -> list[float]:
        """The weight of each tensor that `__call__` returns: equal within a rule, and equal sums for the rules."""
        counts = [len(scales) if rule.dense else 1 for rule, scales in zip(self.rules, self.scales, strict=True)]
        return [1 / (len(counts) * count) for count in counts for _ in range(count)]

    @property
    def count(self) -> int:
        """Views of an image: its forward passes."""
        return len(self.list_views(self.size, self.size))

    def list_views(self, height: int, width: int) -> list[View]:
        """The views of an image of this size; some may be equal where it is square."""
        return [view for group in self.group_views(height, width) for view in group]

    def group_views(self, height: int, width: int) -> list[list[View]]:
        """The views of an image of this size, in groups of equal output size."""
        groups: list[list[View]] = []
        for rule, scales in zip(self.rules, self.scales, strict=True):
            by_scale = [self._apply_rule(rule, scale, height, width) for scale in scales]
            groups += by_scale if rule.dense else [[view for views in by_scale for view in views]]
        return groups

    def __call__(self, image: AnyImage) -> list[Tensor]:
        """Cut the views out of an image file: uint8 [V, 3, H, W], a tensor for each group.

        Raises:
            UserError: for a strip, which would take gigabytes.
        """
        if max(image.height, image.width) > MAX_ASPECT_RATIO * min(image.height, image.width):
            raise UserError(
                f"it has {image.height:,} x {image.width:,} pixels, too long a strip for the views of {self.protocol}"
            )
        return self._cut(image.height, image.width, lambda size: image.resize(size, self.interpolation))

    def cut_batch(self, images: Tensor) -> list[Tensor]:
        """Cut the views out of images uint8 [B, 3, H, W], on their device: [B, V, 3, h, w], a tensor for each group."""
        height, width = images.shape[-2:]
        return self._cut(height, width, lambda size: resize(images, size, self.interpolation))

    def _cut(self, height: int, width: int, resize_to: Callable[[tuple[int, int]], Tensor]) -> list[Tensor]:
        """Cut the views out of the images [..., 3, H, W] that `resize_to` returns: [..., V, 3, h, w] for each group."""
        padded: dict[tuple[tuple[int, int], int], tuple[Tensor, Tensor]] = {}  # unchanged, and flipped
        groups = []
        for group in self.group_views(height, width):
            crops = []
            for view in group:
                if (key := view[:2]) not in padded:
                    image = F.pad(resize_to(view.resized), [view.padding])
                    padded[key] = image, image.flip(-1)
                top, left, box_height, box_width = view.box
                crop = padded[key][view.hflip][..., top : top + box_height, left : left + box_width]
                crops.append(resize(crop, view.size, self.interpolation))
            groups.append(torch.stack(crops, dim=-4))
        return groups

    def _scale_length(self, length: int) -> int:
        """A length of the papers for crops of this size."""
        return round(length * self.size / (PAPER_RESIZE if self.native_size else PAPER_CROP))

    def _apply_rule(self, rule: CropRule, scale: int, height: int, width: int) -> list[View]:
        short, long = sorted((height, width))
        longer = scale * long // short if rule.round_down else round(scale * long / short)
        resized = (longer, scale) if height > width else (scale, longer)
        pad = self.native_size and not rule.dense and rule.boxes is not center_crop
        padding = round(scale * (PAPER_RESIZE - PAPER_CROP) / (2 * PAPER_CROP)) if pad else 0
        boxes = rule.boxes(resized[0] + 2 * padding, resized[1] + 2 * padding, self.size)
        flips = (False, True) if rule.hflip and self.hflip_preserves_label else (False,)
        size = resized if rule.dense else (self.size, self.size)
        return [View(resized, padding, box, size, hflip) for hflip in flips for box in boxes]


def parse_lengths(protocol: str, lengths: str) -> tuple[int, ...]:
    """The lengths of NAME@Q-Q-..., in pixels."""
    if not re.fullmatch(r"\d+(-\d+)*", lengths):
        raise UserError(
            f"Protocol {protocol} needs whole numbers of pixels behind the @, such as dense_multi_scale@224-256-384."
        )
    return tuple(int(length) for length in lengths.split("-"))
