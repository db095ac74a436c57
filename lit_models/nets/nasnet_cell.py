"""The cells of NASNet, arXiv 1707.07012, Figure 4 and appendix A.4: a table of operations made into layers."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import AvgPool2dSame, create_pool2d
from timm.models.nasnet import ActConvBn, BranchSeparables
from torch import Tensor, nn

from errors import UserError
from lit_models.nets.layers import named_sequential
from lit_models.nets.nasnet_tables import CellTable, Row
from random_draws import draw_per_image


class CellShape(NamedTuple):
    """Shape of a cell's output."""

    channels: int
    downsamplings: int


class Cell(nn.Module):
    """The layers of a cell table.

    Args:
        table: with its output, as from `complete_table`.
        shape: of the previous cell's output.
        prev_shape: of the output of the cell before that; None in the first cell, which uses the stem for both.
        filters: channels of every state of this cell.
        reduces: whether operations on states 0 and 1 have stride 2.
        drop: probability of dropping a path at the end of the training.
    """

    def __init__(
        self, table: CellTable, shape: CellShape, prev_shape: CellShape | None, filters: int, reduces: bool, drop: float
    ) -> None:
        super().__init__()
        self.rows, self.output, self.drop = table["rows"], table["output"], drop
        self.channels = len(self.output) * filters
        self.reduces_prev = prev_shape is not None and prev_shape.downsamplings < shape.downsamplings
        self.conv_1x1 = ActConvBn(shape.channels, filters, kernel_size=1)
        widths = [filters] * (2 + len(self.rows))
        if prev_shape is None:
            # The authors hand the stem on unprojected, with its 96 channels, and project the results
            self.conv_prev_1x1: nn.Module = nn.Identity()
            widths[1] = shape.channels
        elif self.reduces_prev:
            # timm's keys: the layers of this reduction belong to the cell
            reduction = FactorizedReduction(prev_shape.channels, filters)
            self.act, self.path_1, self.path_2 = nn.ReLU(), reduction.path_1, reduction.path_2
            self.final_path_bn = reduction.final_path_bn
        else:
            self.conv_prev_1x1 = ActConvBn(prev_shape.channels, filters, kernel_size=1)
        for i, (left, left_state, right, right_state) in enumerate(self.rows):
            for side, name, state in (("left", left, left_state), ("right", right, right_state)):
                stride = 2 if reduces and state < 2 else 1
                self.add_module(f"comb_iter_{i}_{side}", OPERATIONS[name](widths[state], filters, stride=stride))
        # States in the output whose shape is not that of the rows: a reduction's inputs, the unprojected stem
        self.fits = nn.ModuleDict()
        for state in self.output:
            if reduces and state < 2:
                self.fits[str(state)] = FactorizedReduction(widths[state], filters)
            elif widths[state] != filters:
                self.fits[str(state)] = named_sequential(**conv_bn(widths[state], filters))

    def forward(self, x: Tensor, x_prev: Tensor | None, progress: Tensor) -> Tensor:
        """Outputs of the previous cell, [B, C, H, W], and of the one before to [B, `channels`, H, W].

        A reduction cell returns half of H and W, rounded up.
        """
        states = [self.conv_1x1(x), self._match_prev(x if x_prev is None else x_prev)]
        for i, (left, left_state, right, right_state) in enumerate(self.rows):
            a = self._apply_operation(f"comb_iter_{i}_left", left, states[left_state], progress)
            b = self._apply_operation(f"comb_iter_{i}_right", right, states[right_state], progress)
            states.append(a + b)
        outputs = [self.fits[str(i)](states[i]) if str(i) in self.fits else states[i] for i in self.output]
        return torch.cat(outputs, 1)

    def _match_prev(self, x: Tensor) -> Tensor:
        if self.reduces_prev:
            return factorized_reduction(self.act(x), self.path_1, self.path_2, self.final_path_bn)
        return self.conv_prev_1x1(x)

    def _apply_operation(self, layer: str, name: str, x: Tensor, progress: Tensor) -> Tensor:
        x = self.get_submodule(layer)(x)
        # Identity is never dropped, even where it had to become a convolution, as in the authors' code
        drops = self.training and self.drop > 0 and name != "identity"
        return drop_path(x, 1 - progress * self.drop) if drops else x


def drop_path(x: Tensor, keep: Tensor) -> Tensor:
    """Set a path to 0 for a share 1 - keep of the images, and scale it by 1 / keep for the others.

    timm's `drop_path` draws other random numbers, and needs a new compilation for each `keep`.
    """
    kept = draw_per_image(lambda images: torch.rand(images, 1, 1, 1, device=x.device), len(x)) < keep
    return x * (kept / keep).to(x.dtype)


class FactorizedReduction(nn.Module):
    """Two 1x1 convolutions of stride 2, concatenated and normalised, with timm's names: see `factorized_reduction`."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.path_1 = named_sequential(conv=nn.Conv2d(channels, filters // 2, 1, stride=2, bias=False))
        self.path_2 = named_sequential(conv=nn.Conv2d(channels, filters - filters // 2, 1, stride=2, bias=False))
        self.final_path_bn = nn.BatchNorm2d(filters)

    def forward(self, x: Tensor) -> Tensor:
        return factorized_reduction(x, self.path_1, self.path_2, self.final_path_bn)


def factorized_reduction(x: Tensor, path_1: nn.Module, path_2: nn.Module, norm: nn.Module) -> Tensor:
    """[B, C, H, W] to half of H and W; the second path is shifted by one pixel, so that all columns are sampled."""
    return norm(torch.cat([path_1(x), path_2(F.pad(x, (-1, 1, -1, 1)))], 1))


def conv_bn(channels: int, filters: int) -> dict[str, nn.Module]:
    """A 1x1 convolution and a norm, by name."""
    return {"conv": nn.Conv2d(channels, filters, 1, bias=False), "bn": nn.BatchNorm2d(filters)}


def max_pool(channels: int, filters: int, stride: int, kernel: int) -> nn.Module:
    """Max pooling with SAME padding; see `project`."""
    return project(create_pool2d("max", kernel, stride=stride, padding="same"), channels, filters)


def avg_pool(channels: int, filters: int, stride: int) -> nn.Module:
    """3x3 average pooling with stride 1 or 2; see `project`."""
    layer = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False) if stride == 1 else StridedAvgPool2d(3, 2)
    return project(layer, channels, filters)


class StridedAvgPool2d(AvgPool2dSame):
    """3x3 average pooling with stride 2 and SAME padding; timm's cannot leave the padding out of the mean.

    NASNet sets `count_include_pad` as its variant needs it.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.count_include_pad:
            return super().forward(x)
        # SAME pads an odd size by 1 at the start; what it pads at the end, ceil_mode adds
        padding = (x.shape[-2] % 2, x.shape[-1] % 2)
        return F.avg_pool2d(x, 3, 2, padding, ceil_mode=True, count_include_pad=False)


def project(pooling: nn.Module, channels: int, filters: int) -> nn.Module:
    """A pooling layer, followed by a 1x1 convolution and a norm where the channels change."""
    return pooling if channels == filters else named_sequential(pool=pooling, **conv_bn(channels, filters))


def identity(channels: int, filters: int, stride: int) -> nn.Module:
    """The identity, or ReLU, 1x1 convolution and norm where the shape changes."""
    if stride == 1 and channels == filters:
        return nn.Identity()
    return ActConvBn(channels, filters, kernel_size=1, stride=stride)


# Called with channels, filters (output channels) and `stride`. Of the paper's list (section 3), without the dilated 3x3
# and the 1x3-3x1 and 1x7-7x1 convolutions, which NASNet-A does not use. sep: ReLU, separable convolution and norm,
# twice, with the stride in the first (appendix A.4)
OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "identity": identity,
    "conv_1x1": partial(ActConvBn, kernel_size=1),
    "conv_3x3": partial(ActConvBn, kernel_size=3, padding="same"),
    "sep_3x3": partial(BranchSeparables, kernel_size=3, pad_type="same", stem_cell=True),
    "sep_5x5": partial(BranchSeparables, kernel_size=5, pad_type="same", stem_cell=True),
    "sep_7x7": partial(BranchSeparables, kernel_size=7, pad_type="same", stem_cell=True),
    "avg_3x3": avg_pool,
    "max_3x3": partial(max_pool, kernel=3),
    "max_5x5": partial(max_pool, kernel=5),
    "max_7x7": partial(max_pool, kernel=7),
}


def complete_table(kind: str, table: CellTable) -> CellTable:
    """Check a cell table and fill in its output.

    Args:
        kind: normal or reduction, for messages.
        table: a user's.

    Raises:
        UserError: for an unknown operation, a hidden state that does not exist, or one that is not used.
    """
    rows = table.get("rows", [])
    if not rows:
        raise UserError(f"The {kind} cell has no rows: give it at least one [operation, state, operation, state].")
    for i, row in enumerate(rows):
        check_row(f"Row {i} of the {kind} cell", row, num_states=i + 2)
    states = range(len(rows) + 2)
    used = {state for row in rows for state in (row[1], row[3])}
    output = list(table.get("output", [state for state in states if state not in used]))
    for state in output:
        if state not in states:
            raise UserError(
                f"The output of the {kind} cell has hidden state {state}, which does not exist: choose from 0 to "
                f"{states[-1]}."
            )
    if unused := set(states) - used - set(output):
        raise UserError(
            f"Hidden state {min(unused)} of the {kind} cell goes nowhere: use it in a row, or name it in the output."
        )
    return {"rows": rows, "output": output}


def check_row(name: str, row: Row, num_states: int) -> None:
    """Raise UserError for a row that is not [operation, state, operation, state], with states below `num_states`."""
    if len(row) != 4:
        raise UserError(f"{name} is {list(row)}: it must be [operation, state, operation, state].")
    for operation, state in (row[:2], row[2:]):
        if operation not in OPERATIONS:
            raise UserError(
                f"{name} has the operation {operation}, which does not exist: choose one of {', '.join(OPERATIONS)}."
            )
        if state not in range(num_states):
            raise UserError(
                f"{name} takes hidden state {state}, which does not exist there: choose from 0 to {num_states - 1}."
            )
