"""Labels of points that do not cover each other."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels
Label = tuple[Literal["left", "center", "right"], int, int, int]  # alignment, offset in x and y, and whether it shows
CHARACTER, LINE = 6.2, 13.0  # pixels of a character and a line in 11-pixel type
SPOTS: list[tuple[Literal["left", "center", "right"], int, int]] = [
    ("left", 8, 0),
    ("left", 7, -9),
    ("center", 0, -13),
    ("right", -8, 0),
    ("right", -7, -9),
    ("left", 7, 10),
    ("center", 0, 14),
    ("right", -7, 10),
    ("left", 12, -20),
    ("right", -12, -20),
    ("left", 12, 21),
    ("right", -12, 21),
]


def place_labels(names: Sequence[str], points: np.ndarray, bars: np.ndarray, front: int, width: float) -> list[Label]:
    """Where the label of each point goes; earlier points choose first, and those that find no room show none.

    Args:
        points: [N, 2] positions in pixels.
        bars: [N, 2] upper and lower end of each point's error bar in pixels.
        front: how many of the first points are joined by a line of steps, from the right to the left.
        width: of the plot in pixels.
    """
    taken = [
        (x - 4, min(top, y - 4), x + 4, max(bottom, y + 4)) for (x, y), (top, bottom) in zip(points, bars, strict=True)
    ]
    for (right, lower), (left, upper) in pairwise(points[:front]):
        taken += [(left + 5, upper - 1, right, upper + 1), (right - 1, upper, right + 1, lower - 5)]
    labels: list[Label] = []
    for index, (name, (x, y)) in enumerate(zip(names, points, strict=True)):
        strangers = [(other[0] - 9, other[1] - 9, other[0] + 9, other[1] + 9) for other in np.delete(points, index, 0)]
        free = [
            (spot, box)
            for spot, box in _candidates(name, x, y)
            if box[0] >= 0 and box[2] <= width + 8 and not _meets(box, [*taken, *strangers])
        ]
        labels.append((*free[0][0], 1) if free else ("left", 0, 0, 0))
        taken += [box for _, box in free[:1]]
    return labels


def _candidates(name: str, x: float, y: float) -> Iterator[tuple[tuple, Box]]:
    long = CHARACTER * len(name)
    for align, dx, dy in SPOTS:
        left = x + dx - {"left": 0, "center": long / 2, "right": long}[align]
        yield (align, dx, dy), (left, y + dy - LINE / 2, left + long, y + dy + LINE / 2)


def _meets(box: Box, taken: Sequence[Box]) -> bool:
    return any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
