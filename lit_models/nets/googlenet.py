"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842, Table 1, Figure 3 and section 5.

torchvision's GoogLeNet is another network: batch normalisation in place of local response normalisation, 3x3 in place
of the 5x5 convolutions, a 2x2 fourth pool. The state-dict keys are torchvision's.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_models.nets.layers import Stem, check_stem, named_sequential, scale_channels


class Widths(NamedTuple):
    """Channels of the convolutions of an inception module, in the order of Table 1."""

    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce5x5: int
    conv5x5: int
    projection: int


# Table 1: 1x1 | 3x3 reduce, 3x3 | 5x5 reduce, 5x5 | pool proj
INCEPTIONS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutputs(NamedTuple):
    """Output of a GoogLeNet with auxiliary classifiers in training mode: logits [B, K] of all three classifiers."""

    logits: Tensor
    aux1: Tensor
    aux2: Tensor


class GoogLeNet(nn.Module):
    """Stem, nine inception modules, global average pooling, 40 % dropout, linear classifier.

    With auxiliary classifiers it returns `GoogLeNetOutputs` in training mode, and takes images of 223 to 270 px, for
    which the output of 4a has 14 to 16 pixels a side. With the CIFAR stem it takes any size.

    Args:
        num_classes: K, the number of logits.
        batch_norm: normalise after each convolution (arXiv 1502.03167), in place of biases and of the two local
            response normalisations. Fully connected layers keep their biases and are not normalised.
        auxiliary: whether to build the classifiers on 4a and 4d.
        stem: "imagenet", which makes images 8 times smaller, or "cifar", which halves them: its first convolution is
            3x3 with stride 1, and its second pool is left out, so that 32 px go through the inception modules as 16,
            8 and 4.
        reductions: whether inception modules reduce channels by 1x1 convolutions (Figure 2b). False gives the naive
            modules of Figure 2a.
        width: multiplier of all channels and units; 1 gives the paper's.

    Raises:
        UserError: for an unknown stem, or a width that is not above 0.
    """

    def __init__(
        self,
        num_classes: int,
        batch_norm: bool = False,
        auxiliary: bool = True,
        stem: Stem = "imagenet",
        reductions: bool = True,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_stem(stem)
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        narrow, channels = scale_channels(64, width), scale_channels(192, width)
        self.conv1 = conv_layer(3, narrow, kernel, batch_norm, stride)
        self.maxpool1 = max_pool()
        self.maxpool2 = max_pool() if stem == "imagenet" else nn.Identity()
        self.conv2 = conv_layer(narrow, narrow, 1, batch_norm)
        self.conv3 = conv_layer(narrow, channels, 3, batch_norm)
        # The paper gives no constants: these are Caffe's, whose alpha is divided by n as in PyTorch. They are made for
        # pixels of 0 to 255: on images normalised to a deviation of 1 they change activations by 0.03 %.
        self.lrn1, self.lrn2 = (
            nn.Identity() if batch_norm else nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1) for _ in range(2)
        )
        self.maxpool3, self.maxpool4 = max_pool(), max_pool()
        behind = {}  # channels of the output of each module
        for name, widths in INCEPTIONS.items():
            scaled = Widths(*(scale_channels(each, width) for each in widths))
            inception = Inception(channels, scaled, batch_norm) if reductions else Naive(channels, scaled, batch_norm)
            self.add_module(f"inception{name}", inception)
            behind[name] = channels = inception.channels
        auxiliary_classifier = partial(AuxiliaryClassifier, num_classes, batch_norm, stem, width)
        self.aux1 = auxiliary_classifier(behind["4a"]) if auxiliary else None
        self.aux2 = auxiliary_classifier(behind["4d"]) if auxiliary else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(channels, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation (arXiv 1502.01852), biases of 0, and N(0, 0.01) in the three classifiers.

        The paper gives no initialisation. BVLC's Xavier weights with biases of 0.2 are made for pixels of 0 to 255: on
        normalised images the outputs of 5b differ 70 times less between images than those of conv1, and the loss
        stays at ln K.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for classifier in (self.fc, *(head.fc2 for head in (self.aux1, self.aux2) if head is not None)):
            nn.init.normal_(classifier.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        # ImageNet at 224 px | CIFAR at 32 px
        x = self.lrn1(self.maxpool1(self.conv1(x)))  # [B, 64, 56, 56] | [B, 64, 16, 16]
        x = self.maxpool2(self.lrn2(self.conv3(self.conv2(x))))  # [B, 192, 28, 28] | [B, 192, 16, 16]
        x = self._run_inceptions(x, "3a", "3b")  # [B, 480, 28, 28] | [B, 480, 16, 16]
        x = on_4a = self._run_inceptions(self.maxpool3(x), "4a")  # [B, 512, 14, 14] | [B, 512, 8, 8]
        x = on_4d = self._run_inceptions(x, "4b", "4c", "4d")  # [B, 528, 14, 14] | [B, 528, 8, 8]
        x = self.maxpool4(self._run_inceptions(x, "4e"))  # [B, 832, 7, 7] | [B, 832, 4, 4]
        x = self._run_inceptions(x, "5a", "5b")  # [B, 1024, 7, 7] | [B, 1024, 4, 4]
        logits = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))  # [B, K]
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutputs(logits, self.aux1(on_4a), self.aux2(on_4d))
        return logits

    def _run_inceptions(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(f"inception{name}")(x)
        return x


class Inception(nn.Module):
    """Four parallel branches (Figure 2b), concatenated along the channels."""

    def __init__(self, inputs: int, widths: Widths, batch_norm: bool) -> None:
        super().__init__()
        conv = partial(conv_layer, batch_norm=batch_norm)
        self.branch1 = conv(inputs, widths.conv1x1, 1)
        self.branch2 = nn.Sequential(conv(inputs, widths.reduce3x3, 1), conv(widths.reduce3x3, widths.conv3x3, 3))
        self.branch3 = nn.Sequential(conv(inputs, widths.reduce5x5, 1), conv(widths.reduce5x5, widths.conv5x5, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(inputs, widths.projection, 1))
        self.channels = widths.conv1x1 + widths.conv3x3 + widths.conv5x5 + widths.projection

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Naive(nn.Module):
    """The naive inception module (Figure 2a): 1x1, 3x3, 5x5 and pooling side by side, without any reduction.

    The pooling hands all its inputs on, so that channels grow from module to module: 192, 416, 832, ..., 4944.
    """

    def __init__(self, inputs: int, widths: Widths, batch_norm: bool) -> None:
        super().__init__()
        self.branch1 = conv_layer(inputs, widths.conv1x1, 1, batch_norm)
        self.branch2 = conv_layer(inputs, widths.conv3x3, 3, batch_norm)
        self.branch3 = conv_layer(inputs, widths.conv5x5, 5, batch_norm)
        self.branch4 = nn.MaxPool2d(3, stride=1, padding=1)
        self.channels = widths.conv1x1 + widths.conv3x3 + widths.conv5x5 + inputs

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryClassifier(nn.Module):
    """5x5 average pooling with stride 3, 1x1 convolution, 1,024 units, 70 % dropout, linear classifier (section 5)."""

    def __init__(self, num_classes: int, batch_norm: bool, stem: Stem, width: float, channels: int) -> None:
        super().__init__()
        # The paper's pool gives 4x4 only for 14 to 16 pixels; the CIFAR form adapts to other sizes
        self.avgpool = nn.AvgPool2d(5, stride=3) if stem == "imagenet" else nn.AdaptiveAvgPool2d(4)
        reduced, units = scale_channels(128, width), scale_channels(1024, width)
        self.conv = conv_layer(channels, reduced, 1, batch_norm)
        self.fc1 = nn.Linear(4 * 4 * reduced, units)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(units, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.avgpool(x))  # [B, 128, 4, 4]
        x = self.dropout(self.relu(self.fc1(torch.flatten(x, 1))))  # [B, 1024]
        return self.fc2(x)  # [B, K]


def conv_layer(inputs: int, outputs: int, kernel: int, batch_norm: bool, stride: int = 1) -> nn.Sequential:
    """Convolution and ReLU, with a bias or with batch normalisation between them."""
    return named_sequential(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not batch_norm),
        bn=nn.BatchNorm2d(outputs, eps=0.001) if batch_norm else nn.Identity(),  # epsilon as in torchvision
        relu=nn.ReLU(inplace=True),
    )


def max_pool() -> nn.MaxPool2d:
    """3x3 max pooling with stride 2 that rounds the size up, as in Caffe: 112, 56, 28, 14, 7."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
