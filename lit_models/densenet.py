"""LitDenseNet: Huang et al., "Densely Connected Convolutional Networks", arXiv 1608.06993."""

from typing import Any

from lit_models.classifier import LitClassifier
from lit_models.nets.densenet import IMAGENET_BLOCKS, DenseNet


class LitDenseNet(LitClassifier):
    """A DenseNet for ImageNet or CIFAR, plain or with bottlenecks (B) and compression (C).

    Args:
        num_classes: K; the command line takes it from the data.
        depth: L. 121, 169, 201, 264 or 161 for ImageNet (Table 1). Any other is a net for CIFAR (section 3), with three
            blocks of (L - 4) / 6 layers, or of (L - 4) / 3 without `bottleneck`; the paper has 40, 100, 190 and 250.
        growth_rate: k, how many feature maps each layer adds; by default 32 on ImageNet, but 48 at depth 161, and 12 on
            CIFAR.
        bottleneck: begin each layer with a 1x1 convolution to 4k feature maps.
        compression: share of the feature maps that a transition keeps, in (0, 1]. The paper's DenseNet-BC has 0.5 with
            `bottleneck`, its plain DenseNet 1 without.
        dropout: probability of the dropout after every convolution but the first, in [0, 1). The paper has 0.2 where
            images are not augmented (CIFAR without +), and 0 elsewhere.
        memory_efficient: recompute the inside of the layers in the backward pass instead of keeping it: a quarter of
            the memory of a DenseNet-121, for about a tenth more time.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        depth: int = 121,
        growth_rate: int | None = None,
        bottleneck: bool = True,
        compression: float = 0.5,
        dropout: float = 0.0,
        memory_efficient: bool = False,
        **kwargs: Any,
    ) -> None:
        net = DenseNet(num_classes, depth, growth_rate, bottleneck, compression, dropout, memory_efficient)
        super().__init__(net, num_classes, **kwargs)
        # Below, a pooling layer would return less than one pixel
        self.limit_sizes(smallest=29 if depth in IMAGENET_BLOCKS else 4, small_form="--model.depth 40")
