"""The Inception networks of torchvision and timm, with named outputs and a stem for images of CIFAR's size.

GoogLeNet with batch normalisation, arXiv 1409.4842 and 1502.03167; Inception-v3, arXiv 1512.00567; Inception-v4 and
Inception-ResNet-v2, arXiv 1602.07261. Their state-dict keys are the libraries'.

Their stems downsample images of 224 or 299 px by 8. The stem of the CIFAR form downsamples by 2: it leaves out two of
the three strides and pads, so that the three stages of modules see 32-px images at 15 or 16, 7 or 8, and 3 or 4 px. The
published weights load into the CIFAR forms whose layers keep their shapes.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import GoogLeNet, inception
from torchvision.models.googlenet import BasicConv2d

from lit_models.nets.googlenet import GoogLeNetOutputs
from lit_models.nets.layers import AuxiliaryOutputs, Stem, check_stem


class TorchvisionGoogLeNet(GoogLeNet):
    """torchvision's GoogLeNet: batch normalisation, 3x3 for 5x5 convolutions, a 2x2 fourth pool, dropout 0.2.

    Args:
        num_classes: K, the number of logits.
        auxiliary: whether to build the classifiers on 4a and 4d.
        stem: "imagenet", or "cifar": a 3x3 first convolution with stride 1, and no second pool.
        transform_input: convert images normalised with ImageNet's mean and deviation to the mean and deviation of 0.5
            that the published weights were trained on.
    """

    def __init__(self, num_classes: int, auxiliary: bool, stem: Stem, transform_input: bool) -> None:
        check_stem(stem)
        super().__init__(num_classes, aux_logits=auxiliary, transform_input=transform_input, init_weights=True)
        if stem == "cifar":
            self.conv1 = BasicConv2d(3, 64, kernel_size=3, padding=1)
            nn.init.trunc_normal_(self.conv1.conv.weight, std=0.01, a=-2, b=2)  # as torchvision's other convolutions
            self.maxpool2 = nn.Identity()

    def eager_outputs(self, x: Tensor, aux2: Tensor | None, aux1: Tensor | None) -> Tensor | GoogLeNetOutputs:
        return x if aux1 is None or aux2 is None else GoogLeNetOutputs(x, aux1, aux2)


class InceptionV3(inception.Inception3):
    """torchvision's Inception-v3: the released network, whose fourth convolution is not in the paper's Table 1.

    Args:
        num_classes: K, the number of logits.
        auxiliary: whether to build the classifier on the last 17x17 module.
        stem: "imagenet", or "cifar": the first stride and the second pool left out, the convolutions padded, and the
            auxiliary classifier's pool replaced by an adaptive one to 5x5.
        transform_input: convert images normalised with ImageNet's mean and deviation to the mean and deviation of 0.5
            that the published weights were trained on.
    """

    def __init__(self, num_classes: int, auxiliary: bool, stem: Stem, transform_input: bool) -> None:
        check_stem(stem)
        blocks = [inception.BasicConv2d, *(getattr(inception, f"Inception{letter}") for letter in "ABCDE")]
        blocks.append(inception.InceptionAux if stem == "imagenet" else CifarAuxiliary)
        super().__init__(num_classes, auxiliary, transform_input, blocks, init_weights=True)
        if stem == "cifar":
            keep_size(self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_4a_3x3)
            self.maxpool2 = nn.Identity()

    def eager_outputs(self, x: Tensor, aux: Tensor | None) -> Tensor | AuxiliaryOutputs:
        return x if aux is None else AuxiliaryOutputs(x, aux)


class CifarAuxiliary(inception.InceptionAux):
    """Inception-v3's auxiliary classifier for feature maps of any size."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(x, 5)  # [B, 768, 5, 5]
        x = self.conv1(self.conv0(x))  # [B, 768, 1, 1]
        return self.fc(x.flatten(1))  # [B, K]


def inception_v4(num_classes: int, stem: Stem) -> nn.Module:
    """timm's Inception-v4 with dropout 0.2 (Figure 9: "keep 0.8").

    Args:
        num_classes: K, the number of logits.
        stem: "imagenet", or "cifar": only the second of the three strides of the stem (Figure 3) is left.
    """
    import timm

    check_stem(stem)
    net: Any = timm.create_model("inception_v4", num_classes=num_classes, drop_rate=0.2)
    if stem == "cifar":
        keep_size(net.features[0], net.features[1], net.features[4], net.features[5])
    return net


def inception_resnet_v2(num_classes: int, stem: Stem) -> nn.Module:
    """timm's Inception-ResNet-v2 with dropout 0.2 (Figure 15: "keep 0.8").

    Args:
        num_classes: K, the number of logits.
        stem: "imagenet", or "cifar": the first stride and the second pool left out, the convolutions padded.
    """
    import timm

    check_stem(stem)
    net: Any = timm.create_model("inception_resnet_v2", num_classes=num_classes, drop_rate=0.2)
    if stem == "cifar":
        keep_size(net.conv2d_1a, net.conv2d_2a, net.conv2d_4a)
        net.maxpool_5a = nn.Identity()
    return net


def keep_size(*stages: nn.Module) -> None:
    """Set the stride of all convolutions and pools in these stages to 1, and pad them so that they keep the size."""
    for stage in stages:
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride, layer.padding = (1, 1), (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)
            elif isinstance(layer, nn.MaxPool2d):
                assert isinstance(layer.kernel_size, int)
                layer.stride, layer.padding = 1, layer.kernel_size // 2
