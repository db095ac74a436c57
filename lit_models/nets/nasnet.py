"""NASNet-A: Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", arXiv 1707.07012.

Figure 2 (how cells are stacked), Figure 4 (the cells), Table 1 (CIFAR-10: 6 @ 768), Table 2 (ImageNet: 6 @ 4032) and
Table 3 (mobile: 4 @ 1056). What the paper leaves open is as in the authors' code (tensorflow/models, research/slim/
nets/nasnet). Of the three timm has the large net; the state-dict keys here are timm's, so that its weights load.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError

Size = Literal["large", "mobile", "cifar"]
Row = tuple[str, int, str, int]


class CellTable(TypedDict):
    """A cell in plain types.

    Each row is two operations, of those in `OPERATIONS`, each on one hidden state: [operation, state, operation,
    state]. Their sum is a new state. State 0 is what the cell before gave, state 1 what the one before that gave, state
    2 + i the sum of row i. In a reduction cell, operations on states 0 and 1 have stride 2.

    `output` are the states that are concatenated to what the cell gives; without it, all that no row takes.
    """

    rows: list[Row]
    output: NotRequired[list[int]]


# Figure 4. State 1 of the normal cell and state 3 of the reduction cell are in the output though a row takes them.
NORMAL_CELL: CellTable = {
    "rows": [
        ("sep_5x5", 0, "sep_3x3", 1),
        ("sep_5x5", 1, "sep_3x3", 1),
        ("avg_3x3", 0, "identity", 1),
        ("avg_3x3", 1, "avg_3x3", 1),
        ("sep_3x3", 0, "identity", 0),
    ],
    "output": [1, 2, 3, 4, 5, 6],
}
REDUCTION_CELL: CellTable = {
    "rows": [
        ("sep_5x5", 0, "sep_7x7", 1),
        ("max_3x3", 0, "sep_7x7", 1),
        ("avg_3x3", 0, "sep_5x5", 1),
        ("avg_3x3", 2, "identity", 3),
        ("sep_3x3", 2, "max_3x3", 0),
    ],
    "output": [3, 4, 5, 6],
}


class Variant(NamedTuple):
    """What sets the paper's three nets apart."""

    repeats: int  # N
    filters: int  # F
    imagenet: bool  # a stem of stride 2 and two reduction cells
    stem_multiplier: int  # channels of the first convolution: times 32 on ImageNet, times F on CIFAR
    skip_reduction_input: bool  # the cell after a reduction looks back past the reduction's input, to that one's input
    drop_path: float
    dropout: float
    bn_momentum: float  # torch's: 1 - decay
    bn_epsilon: float
    aux_size: int  # pixels a side that the auxiliary head's pooling leaves of the paper's images


# The authors' configurations; drop path and dropout are 1 - the probabilities of keeping
VARIANTS: dict[str, Variant] = {
    "large": Variant(6, 168, True, 3, True, 0.3, 0.5, 0.0003, 1e-3, aux_size=6),
    "mobile": Variant(4, 44, True, 1, False, 0.0, 0.5, 0.0003, 1e-3, aux_size=4),
    "cifar": Variant(6, 32, False, 3, False, 0.4, 0.0, 0.1, 1e-5, aux_size=4),
}


class NASNetOutput(NamedTuple):
    """Logits [B, K] of the net and of its auxiliary head."""

    logits: Tensor
    aux: Tensor


class NASNet(nn.Module):
    """Stem, three stacks of N normal cells with a reduction cell between two stacks, pooling, linear classifier.

    ScheduledDropPath (appendix A.5) follows the buffer `progress`, the share of the training that is done, in [0, 1]:
    whoever trains the net fills it before each step. At 0, where it starts, no path is dropped.

    Args:
        num_classes: K, the number of logits.
        variant: large (6 @ 4032), mobile (4 @ 1056) or cifar (6 @ 768).
        repeats: N, normal cells in a stack; unset, the variant's.
        filters: F, filters of the first stack, which each reduction doubles; unset, the variant's. "N @ x" in the paper
            has x = 24 F.
        normal_cell, reduction_cell: what takes the place of NASNet-A's cells.
        drop_path: probability that the last cell drops a path at the end of the training; unset, the variant's.
        bn_momentum: share of each batch in the running statistics; unset, the variant's.
        auxiliary: build the auxiliary head, whose logits come beside the main ones in training mode.

    Raises:
        ValueError: for another variant, numbers out of range, or tables that are no cells.
    """

    progress: Tensor

    def __init__(
        self,
        num_classes: int,
        variant: Size = "large",
        repeats: int | None = None,
        filters: int | None = None,
        normal_cell: CellTable | None = None,
        reduction_cell: CellTable | None = None,
        drop_path: float | None = None,
        bn_momentum: float | None = None,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UserError(f"variant {variant} is no NASNet-A of the paper: choose one of {', '.join(VARIANTS)}.")
        chosen: dict[str, Any] = {
            "repeats": repeats,
            "filters": filters,
            "drop_path": drop_path,
            "bn_momentum": bn_momentum,
        }
        v = VARIANTS[variant]._replace(**{name: value for name, value in chosen.items() if value is not None})
        check_numbers(v)
        normal = complete("normal", NORMAL_CELL if normal_cell is None else normal_cell)
        reduction = complete("reduction", REDUCTION_CELL if reduction_cell is None else reduction_cell)

        before, last = None, State(v.stem_multiplier * (32 if v.imagenet else v.filters), halvings=0)
        stride, padding = (2, 0) if v.imagenet else (1, 1)
        conv = nn.Conv2d(3, last.channels, 3, stride, padding, bias=False)
        self.conv0 = named(conv=conv, bn=nn.BatchNorm2d(last.channels))
        self.steps = plan(v)
        self.aux_after, self.aux = f"cell_{2 * v.repeats - 1}", None
        for i, step in enumerate(self.steps):
            # ScheduledDropPath counts every cell, those of the stem and the reductions too
            table, drop = reduction if step.reduces else normal, v.drop_path * (i + 1) / len(self.steps)
            cell = Cell(table, last, before, step.filters, step.reduces, drop)
            self.add_module(step.name, cell)
            before = before if step.skipped else last
            last = State(cell.channels, last.halvings + step.reduces)
            if auxiliary and step.name == self.aux_after:
                self.aux = auxiliary_head(last.channels, num_classes, v.aux_size)
        self.act = nn.ReLU(inplace=True)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.head_drop = nn.Dropout(v.dropout)
        self.last_linear = nn.Linear(last.channels, num_classes)
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum, module.eps = v.bn_momentum, v.bn_epsilon
            elif isinstance(module, SamePool2d):
                # timm's average with stride 2 counts the zeros around the image, where the authors' does not
                module.counts_padding = variant == "large"
        self._initialise()

    def _initialise(self) -> None:
        """Variance scaling over the fan-out, as in the authors' code, the classifier too; the paper does not say.

        The authors' normal distribution is cut off at two deviations, and of the same variance as this one.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=(2 / module.out_features) ** 0.5)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor | NASNetOutput:
        # large at 331 px | mobile at 224 px | CIFAR at 32 px
        before, x = None, self.conv0(x)  # [B, 96, 165, 165] | [B, 32, 111, 111] | [B, 96, 32, 32]
        aux = None
        for step in self.steps:
            y = self.get_submodule(step.name)(x, before, self.progress)
            before, x = before if step.skipped else x, y
            if step.name == self.aux_after and self.aux is not None and self.training:
                aux = self.aux(x)  # from [B, 2016, 21, 21] | [B, 528, 14, 14] | [B, 384, 16, 16]
        x = self.global_pool(self.act(x))  # from [B, 4032, 11, 11] | [B, 1056, 7, 7] | [B, 768, 8, 8]
        logits = self.last_linear(self.head_drop(torch.flatten(x, 1)))  # [B, K]
        return logits if aux is None else NASNetOutput(logits, aux)


class Step(NamedTuple):
    """A cell's place in the net."""

    name: str
    filters: int
    reduces: bool
    skipped: bool  # whether the next cell looks back past this one's input


def plan(v: Variant) -> list[Step]:
    """The cells in order (Figure 2). The filters double with each reduction, from F / 4 in ImageNet's stem."""
    steps = [Step(f"cell_stem_{i}", v.filters // (4 >> i), True, False) for i in range(2)] if v.imagenet else []
    for stack in range(3):
        filters = v.filters << stack
        if stack > 0:
            steps.append(Step(f"reduction_cell_{stack - 1}", filters, True, v.skip_reduction_input))
        steps += [Step(f"cell_{stack * v.repeats + i}", filters, False, False) for i in range(v.repeats)]
    return steps


class State(NamedTuple):
    """The shape of a hidden state."""

    channels: int
    halvings: int


class Cell(nn.Module):
    """A table of rows, made into layers.

    Args:
        table: what `complete` made of a user's.
        last: the shape of what the cell before gives.
        before: the shape of what the one before that gives; None in the first cell, where there is none and `last`
            takes its place.
        filters: channels of every state of this cell.
        reduces: halve the image.
        drop: probability of dropping a path at the end of the training.
    """

    def __init__(
        self, table: CellTable, last: State, before: State | None, filters: int, reduces: bool, drop: float
    ) -> None:
        super().__init__()
        self.rows, self.output, self.drop = table["rows"], table["output"], drop
        self.channels = len(self.output) * filters
        self.halves_before = before is not None and before.halvings < last.halvings
        self.projects_before = before is not None and not self.halves_before
        self.conv_1x1 = relu_conv_bn(last.channels, filters, stride=1, kernel=1)
        widths = [filters] * (2 + len(self.rows))
        if before is None:
            # The authors hand the stem on as it is, its 96 channels unprojected, and project what comes of it
            widths[1] = last.channels
        elif self.halves_before:
            self.act = nn.ReLU()
            for name, layer in halving(before.channels, filters).items():
                self.add_module(name, layer)
        else:
            self.conv_prev_1x1 = relu_conv_bn(before.channels, filters, stride=1, kernel=1)
        for i, (left, left_state, right, right_state) in enumerate(self.rows):
            for side, name, state in (("left", left, left_state), ("right", right, right_state)):
                stride = 2 if reduces and state < 2 else 1
                self.add_module(f"comb_iter_{i}_{side}", OPERATIONS[name](widths[state], filters, stride))
        # States in the output of another shape than the rows': a reduction's inputs, the unprojected stem
        self.fits = nn.ModuleDict()
        for state in self.output:
            if reduces and state < 2:
                self.fits[str(state)] = nn.ModuleDict(halving(widths[state], filters))
            elif widths[state] != filters:
                self.fits[str(state)] = named(
                    conv=nn.Conv2d(widths[state], filters, 1, bias=False), bn=nn.BatchNorm2d(filters)
                )

    def forward(self, x: Tensor, before: Tensor | None, progress: Tensor) -> Tensor:
        """[B, C, H, W] and what came before it to [B, `channels`, H, W], or half of H and W, rounded up."""
        states = [self.conv_1x1(x), self._before(x if before is None else before)]
        for i, (left, left_state, right, right_state) in enumerate(self.rows):
            a = self._operate(f"comb_iter_{i}_left", left, states[left_state], progress)
            b = self._operate(f"comb_iter_{i}_right", right, states[right_state], progress)
            states.append(a + b)
        return torch.cat([self._fit(state, states[state]) for state in self.output], 1)

    def _before(self, x: Tensor) -> Tensor:
        if self.halves_before:
            return halve(self.act(x), self)
        return self.conv_prev_1x1(x) if self.projects_before else x

    def _operate(self, layer: str, name: str, x: Tensor, progress: Tensor) -> Tensor:
        x = self.get_submodule(layer)(x)
        # Identity is never dropped, also where it had to become a convolution, as in the authors' code
        drops = self.training and self.drop > 0 and name != "identity"
        return drop_path(x, 1 - progress * self.drop) if drops else x

    def _fit(self, state: int, x: Tensor) -> Tensor:
        if str(state) not in self.fits:
            return x
        fit = self.fits[str(state)]
        return halve(x, fit) if isinstance(fit, nn.ModuleDict) else fit(x)


def drop_path(x: Tensor, keep: Tensor) -> Tensor:
    """Drop a path for a share 1 - keep of the images, and scale it by 1 / keep for the others."""
    kept = torch.rand(len(x), 1, 1, 1, device=x.device) < keep
    return x * (kept / keep).to(x.dtype)


def halving(channels: int, filters: int) -> dict[str, nn.Module]:
    """The layers of a factorized reduction, by timm's names."""
    first = nn.Conv2d(channels, filters // 2, 1, stride=2, bias=False)
    second = nn.Conv2d(channels, filters - filters // 2, 1, stride=2, bias=False)
    return {"path_1": named(conv=first), "path_2": named(conv=second), "final_path_bn": nn.BatchNorm2d(filters)}


def halve(x: Tensor, layers: Any) -> Tensor:
    """Two 1x1 convolutions of stride 2, one of them a pixel to the right and below, so that no column goes unseen."""
    return layers.final_path_bn(torch.cat([layers.path_1(x), layers.path_2(F.pad(x, (-1, 1, -1, 1)))], 1))


def named(**layers: nn.Module) -> nn.Sequential:
    """Layers one after the other, with names in place of numbers."""
    return nn.Sequential(OrderedDict(layers))


def relu_conv_bn(channels: int, filters: int, stride: int, kernel: int) -> nn.Module:
    return named(act=nn.ReLU(), conv=same_conv(channels, filters, kernel, stride), bn=nn.BatchNorm2d(filters))


def separable(channels: int, filters: int, stride: int, kernel: int) -> nn.Module:
    """ReLU, separable convolution and norm, twice (appendix A.4), the stride in the first."""
    layers: dict[str, nn.Module] = {}
    for i, (inputs, step) in enumerate([(channels, stride), (filters, 1)], start=1):
        layers[f"act_{i}"] = nn.ReLU(inplace=i > 1)
        layers[f"separable_{i}"] = named(
            depthwise_conv2d=same_conv(inputs, inputs, kernel, step, groups=inputs),
            pointwise_conv2d=nn.Conv2d(inputs, filters, 1, bias=False),
        )
        layers[f"bn_sep_{i}"] = nn.BatchNorm2d(filters)
    return named(**layers)


def pool(channels: int, filters: int, stride: int, kernel: int, kind: Literal["average", "max"]) -> nn.Module:
    pooling = SamePool2d(kind, kernel, stride)
    if channels == filters:
        return pooling
    return named(pool=pooling, conv=nn.Conv2d(channels, filters, 1, bias=False), bn=nn.BatchNorm2d(filters))


def identity(channels: int, filters: int, stride: int) -> nn.Module:
    if stride == 1 and channels == filters:
        return nn.Identity()
    return relu_conv_bn(channels, filters, stride, kernel=1)


# Each is called with the channels it gets, those it gives, and its stride. Of the paper's list (section 3), without
# the dilated 3x3 and the 1x3-3x1 and 1x7-7x1 convolutions, which NASNet-A does not use
OPERATIONS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "identity": identity,
    "conv_1x1": partial(relu_conv_bn, kernel=1),
    "conv_3x3": partial(relu_conv_bn, kernel=3),
    "sep_3x3": partial(separable, kernel=3),
    "sep_5x5": partial(separable, kernel=5),
    "sep_7x7": partial(separable, kernel=7),
    "avg_3x3": partial(pool, kernel=3, kind="average"),
    "max_3x3": partial(pool, kernel=3, kind="max"),
    "max_5x5": partial(pool, kernel=5, kind="max"),
    "max_7x7": partial(pool, kernel=7, kind="max"),
}


def same_conv(channels: int, filters: int, kernel: int, stride: int, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that gives ceil(size / stride) pixels."""
    if stride == 1:
        return nn.Conv2d(channels, filters, kernel, padding=kernel // 2, groups=groups, bias=False)
    return StridedConv2d(channels, filters, kernel, stride, groups=groups, bias=False)


class StridedConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: as the size wants it, and if unevenly, more at the end."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, same_padding(x, self.kernel_size[0], self.stride[0])))


class SamePool2d(nn.Module):
    """Pooling that gives ceil(size / stride) pixels, with TensorFlow's SAME padding.

    The average is over the pixels that are there, or, if `counts_padding`, over zeros around them too where the stride
    is 2.
    """

    def __init__(self, kind: Literal["average", "max"], kernel: int, stride: int) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride, self.counts_padding = kind, kernel, stride, False

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = same_padding(x, self.kernel, self.stride)
        if self.kind == "average" and self.counts_padding and self.stride == 2:
            return F.avg_pool2d(F.pad(x, (left, right, top, bottom)), self.kernel, self.stride)
        # What SAME pads more at the end, ceil_mode adds there
        if self.kind == "max":
            return F.max_pool2d(x, self.kernel, self.stride, (top, left), ceil_mode=True)
        return F.avg_pool2d(x, self.kernel, self.stride, (top, left), ceil_mode=True, count_include_pad=False)

    def extra_repr(self) -> str:
        return f"{self.kind}, kernel={self.kernel}, stride={self.stride}"


def same_padding(x: Tensor, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """TensorFlow's SAME padding of [B, C, H, W]: pixels to the left, right, top and bottom."""
    height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:])
    return width // 2, width - width // 2, height // 2, height - height // 2


def auxiliary_head(channels: int, num_classes: int, size: int) -> nn.Module:
    """The authors' auxiliary head; the paper says no more than where it stands and its weight (appendix A.7)."""
    return named(
        act_0=nn.ReLU(),
        pool=nn.AvgPool2d(5, stride=3),  # [B, C, size, size]
        conv_1=nn.Conv2d(channels, 128, 1, bias=False),
        bn_1=nn.BatchNorm2d(128),
        act_1=nn.ReLU(inplace=True),
        conv_2=nn.Conv2d(128, 768, size, bias=False),  # [B, 768, 1, 1]
        bn_2=nn.BatchNorm2d(768),
        act_2=nn.ReLU(inplace=True),
        flatten=nn.Flatten(),
        linear=nn.Linear(768, num_classes),
    )


def complete(kind: str, table: CellTable) -> CellTable:
    """A user's cell with its output, if it can be built.

    Raises:
        ValueError: for an operation or a hidden state that does not exist, or a state that goes nowhere.
    """
    rows = table.get("rows", [])
    if not rows:
        raise UserError(f"The {kind} cell has no rows: give it at least one [operation, state, operation, state].")
    for i, row in enumerate(rows):
        if len(row) != 4:
            raise UserError(
                f"Row {i} of the {kind} cell is {list(row)}: it must be [operation, state, operation, state]."
            )
        for name, state in (row[:2], row[2:]):
            if name not in OPERATIONS:
                raise UserError(
                    f"Row {i} of the {kind} cell has the operation {name}, which does not exist: choose one of "
                    f"{', '.join(OPERATIONS)}."
                )
            if state not in range(i + 2):
                raise UserError(
                    f"Row {i} of the {kind} cell takes hidden state {state}, which does not exist there: choose from 0 "
                    f"to {i + 1}."
                )
    states = range(len(rows) + 2)
    taken = {state for row in rows for state in (row[1], row[3])}
    output = table.get("output")
    output = [state for state in states if state not in taken] if output is None else list(output)
    for state in output:
        if state not in states:
            raise UserError(
                f"The output of the {kind} cell has hidden state {state}, which does not exist: choose from 0 to "
                f"{states[-1]}."
            )
    for state in states:
        if state not in taken and state not in output:
            raise UserError(
                f"Hidden state {state} of the {kind} cell goes nowhere: take it in a row, or name it in the output."
            )
    return {"rows": rows, "output": output}


def check_numbers(v: Variant) -> None:
    """Raise ValueError for numbers that no net can have."""
    if v.repeats < 1:
        raise UserError(f"repeats is {v.repeats}: a stack needs at least 1 normal cell.")
    if v.filters < 8:
        raise UserError(f"filters is {v.filters}: it must be at least 8, as ImageNet's stem begins with a quarter.")
    if not 0 <= v.drop_path < 1:
        raise UserError(f"drop_path is {v.drop_path}: it must be in [0, 1).")
    if not 0 < v.bn_momentum <= 1:
        raise UserError(f"bn_momentum is {v.bn_momentum}: it must be in (0, 1].")
