"""LitGoogLeNet: Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842."""

from typing import Any, Literal, get_args

from torch import nn

from errors import UserError
from lit_models.classifier import LitClassifier
from lit_models.nets.googlenet import GoogLeNet
from lit_models.nets.inception import TorchvisionGoogLeNet
from lit_models.nets.layers import Stem, check_choice

Variant = Literal["paper", "batch_norm", "torchvision"]

# Smallest images, in pixels per side, for which the last pooling layer still has an input
SMALLEST = {"imagenet": 31, "cifar": 8}
SMALLEST_TORCHVISION = {"imagenet": 15, "cifar": 4}


class LitGoogLeNet(LitClassifier):
    """GoogLeNet with its two auxiliary classifiers, which are used in training only.

    With the ImageNet stem and auxiliary classifiers, `paper` and `batch_norm` train on images of 223 to 270 px: only
    for these does the paper's 5x5 pool return the 4x4 pixels that its fully connected layers need.

    torchvision's `weights` contain auxiliary classifiers, which were not trained: with `aux_weight` 0, load them with
    `strict` false.

    Args:
        num_classes: K; the command line takes it from the data.
        variant: paper (5x5 convolutions, local response normalisation, no batch normalisation); batch_norm (the same
            with batch normalisation instead, arXiv 1502.03167); torchvision (3x3 in place of the 5x5 convolutions, a
            2x2 fourth pool, dropout 0.2), the network of GoogLeNet_Weights.
        aux_weight: weight of the loss of each auxiliary classifier, added to the main loss; two numbers weigh the one
            on 4a and the one on 4d; 0 builds none.
        stem: imagenet, or cifar for small images: a 3x3 first convolution with stride 1 and no second pool; the
            auxiliary classifiers then pool to 4x4 pixels from any size.
        transform_input: for torchvision's weights on images normalised with ImageNet's mean and deviation: convert
            images to the mean and deviation of 0.5 that the weights were trained with.
        reductions: 1x1 convolutions before the 3x3 and 5x5 and behind the pooling of each inception module (Figure 2b);
            false gives the naive modules of Figure 2a, whose channels grow from module to module and whose weights are
            14 times as many.
        width: multiplier of all channels and units, such as 0.25 for a small net.
        **kwargs: see `LitClassifier`.
    """

    def __init__(
        self,
        num_classes: int,
        variant: Variant = "paper",
        aux_weight: float | tuple[float, float] = 0.3,
        stem: Stem = "imagenet",
        transform_input: bool = False,
        reductions: bool = True,
        width: float = 1.0,
        **kwargs: Any,
    ) -> None:
        check_choice("variant", variant, get_args(Variant), "no GoogLeNet")
        weights = aux_weight if isinstance(aux_weight, tuple | list) else (aux_weight, aux_weight)
        auxiliary = max(weights) > 0
        if variant == "torchvision":
            check_torchvision(reductions, width)
            net: nn.Module = TorchvisionGoogLeNet(num_classes, auxiliary, stem, transform_input)
        elif transform_input:
            raise UserError(f"transform_input is for torchvision's weights, not for variant {variant}: leave it out.")
        else:
            net = GoogLeNet(num_classes, variant == "batch_norm", auxiliary, stem, reductions, width)
        super().__init__(net, num_classes, **kwargs)
        self.weigh_heads(aux1=weights[0], aux2=weights[1])
        smallest = (SMALLEST_TORCHVISION if variant == "torchvision" else SMALLEST)[stem]
        papers_pool = auxiliary and variant != "torchvision" and stem == "imagenet"
        self.limit_sizes(smallest, (223, 270) if papers_pool else None, small_form="--model.stem cifar")


def check_torchvision(reductions: bool, width: float) -> None:
    """Raise UserError for arguments that torchvision's network does not have."""
    if not reductions or width != 1:
        given = "reductions is false" if not reductions else f"width is {width}"
        raise UserError(f"{given}, and variant torchvision is one fixed network: take variant paper or batch_norm.")
