"""Inception-v3 as its paper has it: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv
1512.00567, Table 1, section 6 and Figures 5, 6, 7 and 10.

The network that the authors released, torchvision's (`nets/inception.py`), differs in five places:

| | paper | released |
|---|---|---|
| 4th convolution | 3x3, 80 channels | 1x1, 80 channels |
| 5th | 3x3 with stride 2, 192 channels | 3x3 with stride 1, then a 3x3 max pooling with stride 2 |
| 6th | 3x3, 288 channels | none: the first block has 192 channels before it and 256 behind it |
| 35x35 blocks | Figure 5: two 3x3 for the 5x5 convolution, another 3x3 | two 3x3, and another 5x5 |
| 17x17 blocks | five | four |

The filter banks of the blocks are in a file (model.txt) that was submitted with the paper and is not public. Here they
are those of the released network, whose blocks and reductions ("variations of" Figure 10) are torchvision's.
"""

import torch
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d, InceptionAux, InceptionB, InceptionC, InceptionD, InceptionE

from lit_models.nets.inception import CifarAuxiliary, keep_size
from lit_models.nets.layers import AuxiliaryOutputs, Stem, check_stem

# Channels of the 1x7 and 7x1 convolutions inside the five blocks of Figure 6 (n = 7). Those of the released network
# grow: 128, 160, 160, 192. The paper has "5 instances" of the block and "less than 25 million" parameters, which one
# more of 128 would exceed (25.56 million): here all five have the 128 of the first.
CHANNELS_7X7 = (128, 128, 128, 128, 128)


class PaperInceptionV3(nn.Module):
    """Six convolutions, 3 + 5 + 2 Inception blocks with a reduction between each two kinds, linear classifier.

    With the auxiliary classifier it returns `AuxiliaryOutputs` in training mode, and takes images of 299 px or more, or
    with the CIFAR stem of any size.

    Args:
        num_classes: K, the number of logits.
        auxiliary: whether to build the classifier on the last 17x17 block.
        stem: "imagenet", or "cifar": the first stride and the pool left out, the convolutions padded.

    Raises:
        UserError: for an unknown stem.
    """

    def __init__(self, num_classes: int, auxiliary: bool, stem: Stem) -> None:
        super().__init__()
        check_stem(stem)
        self.stem = nn.Sequential(
            BasicConv2d(3, 32, kernel_size=3, stride=2),
            BasicConv2d(32, 32, kernel_size=3),
            BasicConv2d(32, 64, kernel_size=3, padding=1),
            nn.MaxPool2d(3, stride=2),
            BasicConv2d(64, 80, kernel_size=3),
            BasicConv2d(80, 192, kernel_size=3, stride=2),
            # Padded, which Table 1 does not mark: it has 35 x 35 pixels before and behind it
            BasicConv2d(192, 288, kernel_size=3, padding=1),
        )
        if stem == "cifar":
            keep_size(*self.stem[:5])
        self.blocks5 = nn.Sequential(*(Figure5() for _ in range(3)))
        self.reduction1 = InceptionB(288)
        self.blocks6 = nn.Sequential(*(InceptionC(768, channels) for channels in CHANNELS_7X7))
        head = InceptionAux if stem == "imagenet" else CifarAuxiliary
        self.auxiliary = head(768, num_classes) if auxiliary else None
        self.reduction2 = InceptionD(768)
        self.blocks7 = nn.Sequential(InceptionE(1280), InceptionE(2048))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)  # of the released network
        self.fc = nn.Linear(2048, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor | AuxiliaryOutputs:
        # ImageNet at 299 px | CIFAR at 32 px
        x = self.stem(x)  # [B, 288, 35, 35] | [B, 288, 15, 15]
        x = self.reduction1(self.blocks5(x))  # [B, 768, 17, 17] | [B, 768, 7, 7]
        x = on_17 = self.blocks6(x)  # [B, 768, 17, 17] | [B, 768, 7, 7]
        x = self.blocks7(self.reduction2(x))  # [B, 2048, 8, 8] | [B, 2048, 3, 3]
        logits = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))  # [B, K]
        if self.training and self.auxiliary is not None:
            return AuxiliaryOutputs(logits, self.auxiliary(on_17))
        return logits


class Figure5(nn.Module):
    """1x1; 1x1 and 3x3; 1x1 and two 3x3 in place of a 5x5; pooling and 1x1: 288 channels in, 64 + 64 + 96 + 64 out."""

    def __init__(self) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(288, 64, kernel_size=1)
        self.branch3x3 = nn.Sequential(
            BasicConv2d(288, 48, kernel_size=1),
            BasicConv2d(48, 64, kernel_size=3, padding=1),
        )
        self.branch5x5 = nn.Sequential(
            BasicConv2d(288, 64, kernel_size=1),
            BasicConv2d(64, 96, kernel_size=3, padding=1),
            BasicConv2d(96, 96, kernel_size=3, padding=1),
        )
        self.branch_pool = nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), BasicConv2d(288, 64, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)], 1)


def initialise(net: PaperInceptionV3) -> None:
    """torchvision's initialisation: truncated normal with deviation 0.1, in the auxiliary classifier 0.001."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.1, a=-2, b=2)
    if net.auxiliary is not None:
        nn.init.trunc_normal_(net.auxiliary.fc.weight, std=0.001, a=-2, b=2)
