"""NAS-Bench-201's nets: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search".

arXiv 2001.00326, section 2.1 and Figure 1. Where the paper is silent, the net follows the authors' code
(D-X-Y/AutoDL-Projects), whose names it has: the norms and the ReLU before the pooling, the padding of the average
pooling, and torch's default initialisation.
"""

import re
from functools import reduce

import torch
from torch import Tensor, nn

from errors import UserError, check_at_least

# A cell has four nodes; an edge carries an operation from one to a later one. Figure 1, in the order of the cell's text
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# A residual block as a cell: two 3x3 convolutions in a row, and the identity beside them
RESIDUAL_CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"


class NASBench201(nn.Module):
    """Stem, three stages of N cells with a residual block between two stages, pooling, linear classifier.

    Args:
        num_classes: K, the number of logits.
        cell: see `parse_cell`.
        repeats: N, cells in each stage.
        channels: C, of the first stage; each further one has twice as many.

    Raises:
        UserError: for a text that is no cell, and numbers below 1.
    """

    def __init__(self, num_classes: int, cell: str, repeats: int = 5, channels: int = 16) -> None:
        super().__init__()
        check_at_least(1, repeats=repeats, channels=channels)
        operations = parse_cell(cell)
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.cells = nn.Sequential()
        for stage in range(3):
            if stage > 0:
                self.cells.append(ReductionBlock(channels, 2 * channels))
                channels = 2 * channels
            self.cells.extend(Cell(operations, channels) for _ in range(repeats))
        self.lastact = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        # C = 16 at 32 px
        x = self.stem(x)  # [B, 16, 32, 32]
        x = self.cells(x)  # [B, 64, 8, 8]
        x = self.global_pooling(self.lastact(x))  # [B, 64, 1, 1]
        return self.classifier(torch.flatten(x, 1))  # [B, K]


class Cell(nn.Module):
    """Four nodes: the first is the input, each other is the sum of what its edges bring, the last is the output.

    Args:
        operations: of each of `EDGES`.
        channels: of all nodes.
    """

    def __init__(self, operations: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(operation_layer(name, channels) for name in operations)

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for end in (1, 2, 3):
            arriving = [(i, start) for i, (start, to) in enumerate(EDGES) if to == end]
            nodes.append(reduce(torch.add, [self.layers[i](nodes[start]) for i, start in arriving]))
        return nodes[-1]  # of the shape of x


class Zero(nn.Module):
    """The operation none: zeros, through which gradients of 0 go back, so that layers before it have one too."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x


def operation_layer(name: str, channels: int) -> nn.Module:
    """The layer of one of `OPERATIONS`, which keeps the shape."""
    match name:
        case "none":
            return Zero()
        case "skip_connect":
            return nn.Identity()
        case "avg_pool_3x3":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return relu_conv_bn(channels, channels, kernel=int(name[-1]))


def relu_conv_bn(channels: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU, convolution and norm."""
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))


class ReductionBlock(nn.Module):
    """Residual block of stride 2 between two stages; its shortcut is a 2x2 average pooling and a 1x1 convolution."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = relu_conv_bn(channels, outputs, 3, stride=2)
        self.conv_b = relu_conv_bn(outputs, outputs, 3)
        # Rounded up for an odd number of pixels, as the convolution does; the paper's images have 32
        pool = nn.AvgPool2d(2, stride=2, ceil_mode=True)
        self.downsample = nn.Sequential(pool, nn.Conv2d(channels, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x) + self.conv_b(self.conv_a(x))  # [B, 2C, H / 2, W / 2]


def parse_cell(text: str) -> tuple[str, ...]:
    """The operations of `EDGES` from a cell in the paper's form: "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|".

    A group for each node after the first, with the operations from all nodes before it.

    Raises:
        UserError: for any other text.
    """
    groups = [re.findall(r"([^|~]+)~([^|~]+)", group) for group in text.split("+")]
    found = [(start, str(end)) for end, group in enumerate(groups, start=1) for _, start in group]
    operations = tuple(name for group in groups for name, _ in group)
    if found != [(str(start), str(end)) for start, end in EDGES] or format_cell(operations) != text:
        raise UserError(
            f"cell {text} is no cell of NAS-Bench-201: write it as {RESIDUAL_CELL}, with the operations on the "
            "edges to the nodes 1, 2 and 3."
        )
    for name in operations:
        if name not in OPERATIONS:
            raise UserError(
                f"cell has the operation {name}, which NAS-Bench-201 has not: choose from {', '.join(OPERATIONS)}."
            )
    return operations


def format_cell(operations: tuple[str, ...]) -> str:
    """The text of a cell from the operations of `EDGES`; see `parse_cell`."""
    named = [(f"{name}~{start}", end) for name, (start, end) in zip(operations, EDGES, strict=True)]
    return "+".join(f"|{'|'.join(text for text, at in named if at == end)}|" for end in (1, 2, 3))
