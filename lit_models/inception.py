"""Inception-v3, arXiv 1512.00567; Inception-v4 and Inception-ResNet-v2, arXiv 1602.07261."""

from typing import Any

from errors import UserError
from lit_models.classifier import LitClassifier
from lit_models.input_size import MAX_SIZE
from lit_models.nets.layers import Stem

# Pixels per side from which on the last reduction has something to take, in all three networks
SMALLEST: dict[str, int] = {"imagenet": 75, "cifar": 15}


class LitInceptionV3(LitClassifier):
    """Inception-v3: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv 1512.00567.

    It is torchvision's network, for which Inception_V3_Weights are: the one that was released, not quite that of the
    paper's Table 1. With the ImageNet stem and the auxiliary classifier it trains on images of 299 px or more. Batches
    of one image cannot train it. The weights hold the auxiliary classifier: with `aux_weight` 0, load them with
    `strict` false.

    Args:
        num_classes: K; the command line takes it from the data.
        aux_weight: what the loss of the auxiliary classifier counts beside the main one; 0 leaves it out.
        stem: imagenet, or cifar for small images: without the first stride and the second pool, with padded
            convolutions; the auxiliary classifier averages over 5x5 fields of any size.
        transform_input: for torchvision's weights on images that are normalised with ImageNet's mean and deviation:
            bring them to the mean and deviation of 0.5 that these weights know.
        **kwargs: see `LitClassifier`.
    """

    small_form = " (--model.stem cifar)"

    def __init__(
        self,
        num_classes: int,
        aux_weight: float = 0.4,
        stem: Stem = "imagenet",
        transform_input: bool = False,
        **kwargs: Any,
    ) -> None:
        from lit_models.nets.inception import InceptionV3

        if aux_weight < 0:
            raise UserError(f"aux_weight is {aux_weight}: it must be at least 0, which leaves out the auxiliary head.")
        auxiliary = aux_weight > 0
        net = InceptionV3(num_classes, auxiliary, stem, transform_input)
        super().__init__(net, num_classes, **kwargs)
        if auxiliary:
            self.weigh_heads(aux=aux_weight)
        papers_pool = auxiliary and stem == "imagenet"
        self.limit_sizes(smallest=SMALLEST[stem], training=(299, MAX_SIZE) if papers_pool else None)


class LitInceptionV4(LitClassifier):
    """Inception-v4: Szegedy et al., arXiv 1602.07261, Figures 3 to 9.

    It is timm's network, for which inception_v4.tf_in1k is. It has no auxiliary classifier.

    Args:
        num_classes: K; the command line takes it from the data.
        stem: imagenet, or cifar for small images: of the three strides of the stem only the second is left.
        **kwargs: see `LitClassifier`.
    """

    small_form = " (--model.stem cifar)"

    def __init__(self, num_classes: int, stem: Stem = "imagenet", **kwargs: Any) -> None:
        from lit_models.nets.inception import inception_v4

        super().__init__(inception_v4(num_classes, stem), num_classes, **kwargs)
        self.limit_sizes(smallest=SMALLEST[stem])


class LitInceptionResNetV2(LitClassifier):
    """Inception-ResNet-v2: Szegedy et al., arXiv 1602.07261, section 3.2 and Figure 15.

    It is timm's network, for which inception_resnet_v2.tf_in1k is: the one that was released, whose stem is that of
    Inception-v3 and one more module, not the paper's Figure 3. Its residuals are scaled by 0.17, 0.10 and 0.20 (section
    3.3). It has no auxiliary classifier.

    Args:
        num_classes: K; the command line takes it from the data.
        stem: imagenet, or cifar for small images: without the first stride and the second pool, with padded
            convolutions.
        **kwargs: see `LitClassifier`.
    """

    small_form = " (--model.stem cifar)"

    def __init__(self, num_classes: int, stem: Stem = "imagenet", **kwargs: Any) -> None:
        from lit_models.nets.inception import inception_resnet_v2

        super().__init__(inception_resnet_v2(num_classes, stem), num_classes, **kwargs)
        self.limit_sizes(smallest=SMALLEST[stem])
