"""NASNet-A: Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", arXiv 1707.07012.

Figure 2 (how cells are stacked), Figure 4 (the cells), Table 1 (CIFAR-10: 6 @ 768), Table 2 (ImageNet: 6 @ 4032) and
Table 3 (mobile: 4 @ 1056). Where the paper is silent, the nets follow the authors' code (tensorflow/models, research/
slim/nets/nasnet). timm has only the large net; the state-dict keys here are timm's, so that its weights load.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_models.nets.layers import AuxiliaryOutputs, named_sequential
from lit_models.nets.nasnet_cell import Cell, CellShape, StridedAvgPool2d, complete_table
from lit_models.nets.nasnet_tables import CellTable, Variant


class NASNet(nn.Module):
    """Stem, three stacks of N normal cells with a reduction cell between two stacks, pooling, linear classifier.

    ScheduledDropPath (appendix A.5) follows the buffer `progress`, the completed share of the training, in [0, 1],
    which the training code sets before each step. At 0, the initial value, no path is dropped.

    Args:
        num_classes: K, the number of logits.
        variant: one of the paper's nets, as from `choose_variant`.
        normal_cell, reduction_cell: tables of the two cells.
        auxiliary: build the auxiliary head; in training mode the net then returns `AuxiliaryOutputs`.

    Raises:
        UserError: for invalid cell tables.
    """

    progress: Tensor

    def __init__(
        self, num_classes: int, variant: Variant, normal_cell: CellTable, reduction_cell: CellTable, auxiliary: bool
    ) -> None:
        super().__init__()
        normal, reduction = complete_table("normal", normal_cell), complete_table("reduction", reduction_cell)
        channels = variant.stem_multiplier * (32 if variant.imagenet else variant.filters)
        prev_shape, shape = None, CellShape(channels, downsamplings=0)
        stride, padding = (2, 0) if variant.imagenet else (1, 1)
        conv = nn.Conv2d(3, channels, 3, stride, padding, bias=False)
        self.conv0 = named_sequential(conv=conv, bn=nn.BatchNorm2d(channels))
        self.cell_specs = list_cells(variant)
        self.aux_after, self.aux = f"cell_{2 * variant.repeats - 1}", None
        for i, spec in enumerate(self.cell_specs):
            # ScheduledDropPath counts every cell, those of the stem and the reductions too
            table, drop = reduction if spec.reduces else normal, variant.drop_path * (i + 1) / len(self.cell_specs)
            cell = Cell(table, shape, prev_shape, spec.filters, spec.reduces, drop)
            self.add_module(spec.name, cell)
            prev_shape = prev_shape if spec.skips_input else shape
            shape = CellShape(cell.channels, shape.downsamplings + spec.reduces)
            if auxiliary and spec.name == self.aux_after:
                self.aux = auxiliary_head(shape.channels, num_classes, variant.aux_size)
        self.act = nn.ReLU(inplace=True)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.head_drop = nn.Dropout(variant.dropout)
        self.last_linear = nn.Linear(shape.channels, num_classes)
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self._initialise(variant)

    def _initialise(self, v: Variant) -> None:
        """Draw the weights, and set the options of norms and poolings.

        Variance scaling over the fan-out, as in the authors' code, the classifier too; the paper gives none. The
        authors' normal distribution is truncated at two deviations and has the same variance as this one.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=(2 / module.out_features) ** 0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum, module.eps = v.bn_momentum, v.bn_epsilon
            elif isinstance(module, StridedAvgPool2d):
                module.count_include_pad = v.count_include_pad_at_stride_2

    def forward(self, x: Tensor) -> Tensor | AuxiliaryOutputs:
        # large at 331 px | mobile at 224 px | CIFAR at 32 px
        x_prev, x = None, self.conv0(x)  # [B, 96, 165, 165] | [B, 32, 111, 111] | [B, 96, 32, 32]
        aux = None
        for spec in self.cell_specs:
            y = self.get_submodule(spec.name)(x, x_prev, self.progress)
            x_prev, x = x_prev if spec.skips_input else x, y
            if spec.name == self.aux_after and self.aux is not None and self.training:
                aux = self.aux(x)  # from [B, 2016, 21, 21] | [B, 528, 14, 14] | [B, 384, 16, 16]
        x = self.global_pool(self.act(x))  # from [B, 4032, 11, 11] | [B, 1056, 7, 7] | [B, 768, 8, 8]
        logits = self.last_linear(self.head_drop(torch.flatten(x, 1)))  # [B, K]
        return logits if aux is None else AuxiliaryOutputs(logits, aux)


class CellSpec(NamedTuple):
    """A cell of the net."""

    name: str
    filters: int
    reduces: bool
    skips_input: bool  # whether state 1 of the next cell is this cell's state 1 in place of its state 0


def list_cells(v: Variant) -> list[CellSpec]:
    """The cells in order (Figure 2). The filters double with each reduction, from F / 4 in ImageNet's stem."""
    cells = [CellSpec(f"cell_stem_{i}", v.filters // (4 >> i), True, False) for i in range(2)] if v.imagenet else []
    for stack in range(3):
        filters = v.filters << stack
        if stack > 0:
            cells.append(CellSpec(f"reduction_cell_{stack - 1}", filters, True, v.skip_reduction_input))
        cells += [CellSpec(f"cell_{stack * v.repeats + i}", filters, False, False) for i in range(v.repeats)]
    return cells


def auxiliary_head(channels: int, num_classes: int, size: int) -> nn.Module:
    """The authors' auxiliary head; the paper gives only its position and its weight (appendix A.7)."""
    return named_sequential(
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
