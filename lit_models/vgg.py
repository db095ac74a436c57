"""LitVGG: Simonyan and Zisserman, arXiv 1409.1556.

"Very Deep Convolutional Networks for Large-Scale Image Recognition".
"""

import logging
from pathlib import Path
from typing import Any

from errors import UserError, expand_home
from lit_models.classifier import LitClassifier
from lit_models.nets.vgg import VGG, Head, Init, Variant, staged_layers
from lit_models.weights import COUNTER, compare_weights, read_state_dict

log = logging.getLogger(__name__)

DEEPER = ("B", "C", "D", "E")


class LitVGG(LitClassifier):
    """A VGG net, for ImageNet or for images of 32 px.

    Args:
        num_classes: K; the command line takes it from the data.
        variant: the column of the paper's Table 1: A (11 layers with weights), A-LRN (with local response
            normalisation), B (13), C (16, three of them 1x1 convolutions), D (16, known as VGG-16) or E (19).
        batch_norm: BatchNorm after each convolution, as in torchvision's vgg*_bn; the paper has none.
        head: imagenet with 4096-4096-K fully connected layers, or cifar with 512-512-K; dropout 0.5 between them. The
            first is made for 224 px, the second for 32 px; both take other sizes from 32 px up. average is not the
            paper's: the mean over the feature map and one linear layer.
        init: glorot, with which all variants learn; or normal, the paper's, with a standard deviation of 0.01.
        init_from: file with the weights of a trained A (.ckpt, .pth or .safetensors), from which B, C, D or E starts
            with conv1_1, conv2_1, conv3_1, conv3_2 and fc6-8, as in section 3.1; batch_norm, head and width must be
            those of A. `init` initialises the other layers.
        width: multiplier of all channels and units, such as 0.25 for a small net.
        **kwargs: see `LitClassifier`.

    Raises:
        UserError: for an unknown variant, head or init, or a file `init_from` that is missing or does not fit.
    """

    def __init__(
        self,
        num_classes: int,
        variant: Variant = "D",
        batch_norm: bool = False,
        head: Head = "imagenet",
        init: Init = "glorot",
        init_from: str | None = None,
        width: float = 1.0,
        **kwargs: Any,
    ) -> None:
        net = VGG(num_classes, variant, batch_norm, head, init, width)
        if init_from is not None and variant not in DEEPER:
            raise UserError(
                f"init_from starts a deeper net ({', '.join(DEEPER)}) from a trained A, and variant is {variant}: give "
                "the file with --model.weights FILE."
            )
        if init_from is not None and kwargs.get("weights") is not None:
            raise UserError(
                f"init_from is {init_from}, but weights {kwargs['weights']} would replace it: leave one of them out."
            )
        super().__init__(net, num_classes, **kwargs)
        self.limit_sizes(smallest=32, small_form="--model.head cifar")  # five poolings
        self.hparams.pop("init_from", None)  # a checkpoint brings its own weights
        if init_from is not None:
            load_staged_layers(net, variant, batch_norm, num_classes, expand_home(init_from))


def load_staged_layers(net: VGG, variant: Variant, batch_norm: bool, num_classes: int, path: Path) -> None:
    """Copy layers of a trained A, and the norms of its convolutions, to a deeper net: see `staged_layers`.

    A last layer for another number of classes keeps its random weights, with a warning.

    Raises:
        UserError: if there is no such file, or it does not hold a matching A.
    """
    deeper = dict(zip(staged_layers("A", batch_norm), staged_layers(variant, batch_norm), strict=True))
    saved = {}
    for name, value in read_state_dict(path).items():
        layer, _, part = name.rpartition(".")
        if layer in deeper and part != COUNTER:
            saved[f"{deeper[layer]}.{part}"] = value
    own = {name: value for name, value in net.state_dict().items() if name.rpartition(".")[0] in deeper.values()}
    fitting, heads, report = compare_weights(net, own, saved, num_classes)
    if report:
        raise UserError(
            f"{path} does not hold a VGG A for this net ({report}): give weights of an A that was trained with the "
            "same batch_norm, head, width and surgery."
        )
    if heads:
        log.warning("%s has another number of classes than %s: fc8 keeps its random weights.", path, num_classes)
    net.load_state_dict(fitting, strict=False)
