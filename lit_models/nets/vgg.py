"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556.

Table 1. One class holds all six columns, because torchvision's has neither A-LRN nor C, nor a form for small images.
Its state-dict keys are torchvision's, so that the published weights load into it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lit_models.nets.layers import check_choice, scale_channels

Variant = Literal["A", "A-LRN", "B", "C", "D", "E"]
Head = Literal["imagenet", "cifar", "average"]
Init = Literal["glorot", "normal"]

# Table 1: channels of the five blocks, each ended by a 2x2 max pooling, and the kernel sizes of their convolutions.
WIDTHS: tuple[int, ...] = (64, 128, 256, 512, 512)
BLOCKS: dict[str, tuple[tuple[int, ...], ...]] = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "A-LRN": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}
# Pixels per side of the last feature map, and channels of fc6 and fc7.
HEADS: dict[str, tuple[int, int]] = {"imagenet": (7, 4096), "cifar": (1, 512)}


class VGG(nn.Module):
    """Five blocks of convolutions and three fully connected layers with dropout between them.

    The first fully connected layer needs a feature map of 7x7 (from images of 224 px) or 1x1 (from 32 px). Feature maps
    of other sizes are average-pooled to that size (not in the paper; torchvision does so too).

    Args:
        num_classes: K, the number of logits.
        variant: the column of Table 1.
        batch_norm: BatchNorm after each convolution, which keeps its bias, as in torchvision. The paper has none.
        head: "imagenet" with 4096 units in the first two fully connected layers; "cifar" with 512, the number of
            features of a 32-px image; or "average", the mean over the feature map and one linear layer, as GoogLeNet
            and all later nets have it.
        init: "glorot" or "normal", see `initialise`.
        width: multiplier of all channels and units; 1 gives the paper's.

    Raises:
        UserError: for an unknown variant, head or init, or a width that is not above 0.
    """

    def __init__(
        self, num_classes: int, variant: Variant, batch_norm: bool, head: Head, init: Init, width: float = 1.0
    ) -> None:
        super().__init__()
        check_choice("variant", variant, BLOCKS, "no column of the VGG paper's Table 1")
        check_choice("head", head, get_args(Head), "no head of VGG")
        widths = [scale_channels(channels, width) for channels in WIDTHS]
        self.features = features(variant, batch_norm, widths)
        size = 1 if head == "average" else HEADS[head][0]
        self.avgpool: nn.Module = nn.AdaptiveAvgPool2d(size)
        if head == "average":
            self.classifier = nn.Sequential(nn.Linear(widths[-1], num_classes))
        else:
            self.classifier = classifier(widths[-1] * size**2, scale_channels(HEADS[head][1], width), num_classes)
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        # ImageNet at 224 px | CIFAR at 32 px
        x = self.features(x)  # [B, 512, 7, 7] | [B, 512, 1, 1]
        x = torch.flatten(self.avgpool(x), 1)  # [B, 25088] | [B, 512]
        return self.classifier(x)  # [B, K]


def classifier(inputs: int, units: int, num_classes: int) -> nn.Sequential:
    """Three fully connected layers with ReLU and dropout between them."""
    return nn.Sequential(
        nn.Linear(inputs, units),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(units, units),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(units, num_classes),
    )


def features(variant: Variant, batch_norm: bool, widths: Sequence[int]) -> nn.Sequential:
    """The convolutional layers of a net in one sequence, numbered as in torchvision; `widths` of the five blocks."""
    layers, channels = nn.Sequential(), 3
    for width, kernels in zip(widths, BLOCKS[variant], strict=True):
        for kernel in kernels:
            layers.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            if variant == "A-LRN" and channels == 3:
                # AlexNet's k = 2, n = 5, alpha = 1e-4, beta = 0.75; PyTorch divides alpha by n, AlexNet does not. Made
                # for pixels of 0 to 255: on images normalised to a deviation of 1 it is all but a factor of 2 ** -0.75
                layers.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2))
            channels = width
        layers.append(nn.MaxPool2d(2))
    return layers


def initialise(net: VGG, init: Init) -> None:
    """Draw the weights of all layers; biases are 0 (section 3.1).

    Args:
        net: changed in place.
        init: "normal" is the paper's, of standard deviation 0.01 (its "variance" of 0.01 would start A at a loss of
            1e7). The deeper nets do not learn from it, so the paper starts them from a trained A. With "glorot" they
            do, as the paper notes: Glorot and Bengio, AISTATS 2010, with the ReLU's gain in the convolutions.

    Raises:
        UserError: for an unknown init.
    """
    check_choice("init", init, get_args(Init), "no init of VGG")
    for module in net.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if init == "normal":
            nn.init.normal_(module.weight, std=0.01)
        else:
            # Deviation from the paper: Glorot's variance does not account for ReLU, which drops half of the signal in
            # each layer. The paper's pixels, 58 times larger than normalised images, make up for it; here the gain of
            # the convolutions does, without which the loss of E stays at ln K. The fully connected layers have none,
            # so that the first loss is about ln K.
            nn.init.xavier_uniform_(module.weight, gain=2**0.5 if isinstance(module, nn.Conv2d) else 1.0)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def staged_layers(variant: Variant, batch_norm: bool) -> list[str]:
    """Paths in a net of the layers that deeper nets start with from A, norms included, in the same order for all nets.

    Section 3.1 has "the first four convolutional layers" of A, which are conv1_1, conv2_1, conv3_1 and conv3_2. The
    deeper nets' first four have other shapes, since their second convolution has 64 channels.
    """
    paths = []
    for block, position in ((0, 0), (1, 0), (2, 0), (2, 1)):
        convolutions = sum(map(len, BLOCKS[variant][:block])) + position  # before this one; and `block` poolings
        index = block + convolutions * (3 if batch_norm else 2)
        paths += [f"features.{index + i}" for i in range(2 if batch_norm else 1)]
    return [*paths, "classifier.0", "classifier.3", "classifier.6"]
