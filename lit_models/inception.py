"""Inception-v3, arXiv 1512.00567; Inception-v4 and both Inception-ResNets, arXiv 1602.07261."""

from typing import Any, Literal, get_args

from torch import nn

from errors import UserError
from lit_models.classifier import LitClassifier
from lit_models.input_size import MAX_SIZE
from lit_models.nets.inception import InceptionV3, inception_resnet_v2, inception_v4
from lit_models.nets.inception_resnet import BLOCKS, InceptionResNetV1
from lit_models.nets.inception_v3 import PaperInceptionV3
from lit_models.nets.layers import Stem, check_choice

Variant = Literal["released", "paper"]

# Smallest images, in pixels per side, for which the last reduction still has an input, in all networks
SMALLEST: dict[str, int] = {"imagenet": 75, "cifar": 15}


class LitInceptionV3(LitClassifier):
    """Inception-v3: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv 1512.00567.

    With the ImageNet stem and the auxiliary classifier it trains on images of 299 px or more, in batches of at least
    two. The published weights contain the auxiliary classifier: with `aux_weight` 0, load them with `strict` false.

    Args:
        num_classes: K; the command line takes it from the data.
        variant: released (the network that the authors released, torchvision's, for which there are
            Inception_V3_Weights) or paper (that of Table 1 and Figures 5 to 7, with five blocks at 17x17 and no 5x5
            convolution in the blocks at 35x35).
        aux_weight: weight of the loss of the auxiliary classifier, added to the main loss; 0 builds none.
        stem: imagenet, or cifar for small images: without the first stride and the second pool, with padded
            convolutions; the auxiliary classifier then pools to 5x5 pixels from any size.
        transform_input: for torchvision's weights on images normalised with ImageNet's mean and deviation: convert
            images to the mean and deviation of 0.5 that the weights were trained with.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        variant: Variant = "released",
        aux_weight: float = 0.4,
        stem: Stem = "imagenet",
        transform_input: bool = False,
        **kwargs: Any,
    ) -> None:
        check_choice("variant", variant, get_args(Variant), "no Inception-v3")
        auxiliary = aux_weight > 0
        if variant == "released":
            net: nn.Module = InceptionV3(num_classes, auxiliary, stem, transform_input)
        elif transform_input:
            raise UserError("transform_input is for torchvision's weights, not for variant paper: leave it out.")
        else:
            net = PaperInceptionV3(num_classes, auxiliary, stem)
        super().__init__(net, num_classes, **kwargs)
        self.weigh_heads(aux=aux_weight)
        training = (299, MAX_SIZE) if auxiliary and stem == "imagenet" else None
        self.limit_sizes(SMALLEST[stem], training, small_form="--model.stem cifar")


class LitInceptionV4(LitClassifier):
    """Inception-v4: Szegedy et al., arXiv 1602.07261, Figures 3 to 9.

    timm's network, with the weights inception_v4.tf_in1k. It has no auxiliary classifier.

    Args:
        num_classes: K; the command line takes it from the data.
        stem: imagenet, or cifar for small images: only the second of the three strides of the stem is left.
        **kwargs: see `LitClassifier`.
    """

    def __init__(self, num_classes: int, stem: Stem = "imagenet", **kwargs: Any) -> None:
        super().__init__(inception_v4(num_classes, stem), num_classes, **kwargs)
        self.limit_sizes(smallest=SMALLEST[stem], small_form="--model.stem cifar")


class LitInceptionResNetV1(LitClassifier):
    """Inception-ResNet-v1: Szegedy et al., arXiv 1602.07261, Figures 7 and 10 to 15.

    By default the paper's network. It has no auxiliary classifier, and there are no weights of it for ImageNet.

    Args:
        num_classes: K; the command line takes it from the data.
        residual: shortcuts across the Inception blocks; false gives the plain net of the same layers.
        blocks: Inception blocks in each of the three stages.
        width: multiplier of all channels, such as 0.25 for a small net.
        stem: imagenet, or cifar for small images: without the first stride and the pool, with padded convolutions.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        residual: bool = True,
        blocks: tuple[int, int, int] = BLOCKS,
        width: float = 1.0,
        stem: Stem = "imagenet",
        **kwargs: Any,
    ) -> None:
        super().__init__(InceptionResNetV1(num_classes, residual, blocks, width, stem), num_classes, **kwargs)
        self.limit_sizes(smallest=SMALLEST[stem], small_form="--model.stem cifar")


class LitInceptionResNetV2(LitClassifier):
    """Inception-ResNet-v2: Szegedy et al., arXiv 1602.07261, section 3.2 and Figure 15.

    timm's network, with the weights inception_resnet_v2.tf_in1k: the released network, whose stem is Inception-v3's
    with one more module in place of the paper's Figure 3. Residuals are scaled by 0.17, 0.10 and 0.20 (section 3.3). It
    has no auxiliary classifier.

    Args:
        num_classes: K; the command line takes it from the data.
        stem: imagenet, or cifar for small images: without the first stride and the second pool, with padded
            convolutions.
        **kwargs: see `LitClassifier`.
    """

    def __init__(self, num_classes: int, stem: Stem = "imagenet", **kwargs: Any) -> None:
        super().__init__(inception_resnet_v2(num_classes, stem), num_classes, **kwargs)
        self.limit_sizes(smallest=SMALLEST[stem], small_form="--model.stem cifar")
