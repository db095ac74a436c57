"""LitResNet: He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385."""

import logging
from typing import Any, Literal

from lit_models.classifier import LitClassifier
from lit_models.nets.layers import Stem
from lit_models.nets.resnet import ResNet, Shortcut

log = logging.getLogger(__name__)


class LitResNet(LitClassifier):
    """A ResNet for ImageNet or CIFAR, or the plain net of the same depth.

    Args:
        num_classes: K; the command line takes it from the data.
        depth: 18, 34, 50, 101 or 152 for ImageNet (Table 1); 20, 32, 44, 56, 110 or 1202 for CIFAR (section 4.2).
        shortcut: A pads with zero channels where a block changes the shape, B projects there, C projects in every
            block, "none" gives the plain net; by default the paper's: B on ImageNet and A on CIFAR.
        stride_in_1x1: put the stride of a bottleneck on its first 1x1 convolution, as in the paper, instead of its 3x3,
            as torchvision and all published weights do.
        zero_init_last: initialise the last gamma of each block with 0, so that the block starts as the identity.
        stem: stem of the ImageNet nets: imagenet, or cifar for small images: a 3x3 first convolution with stride 1 and
            no pooling, which the CIFAR nets have anyway.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        depth: Literal[18, 34, 50, 101, 152, 20, 32, 44, 56, 110, 1202] = 50,
        shortcut: Shortcut | None = None,
        stride_in_1x1: bool = False,
        zero_init_last: bool = False,
        stem: Stem = "imagenet",
        **kwargs: Any,
    ) -> None:
        net = ResNet(num_classes, depth, shortcut, stride_in_1x1, zero_init_last, stem)
        super().__init__(net, num_classes, **kwargs)
        if stride_in_1x1 and (weights := kwargs.get("weights")):
            log.warning(
                "stride_in_1x1 is true, and the weights of torchvision and timm were trained with false: they load, "
                "but with a higher error. Unless %s were trained here, give --model.stride_in_1x1 false.",
                weights,
            )
