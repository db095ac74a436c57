"""LitVGG: Simonyan and Zisserman, arXiv 1409.1556.

"Very Deep Convolutional Networks for Large-Scale Image Recognition".
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from errors import UserError
from lit_models.classifier import LitClassifier
from lit_models.nets.vgg import VGG, Head, Init, Variant, features, layer_paths
from lit_models.weights import read_file

log = logging.getLogger(__name__)

DEEPER = ("B", "C", "D", "E")
# Section 3.1: what they take over from A. "The first four convolutional layers" are those of A; by their place in the
# deeper nets they would not fit, whose second convolution has 64 channels.
STAGED = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")


class LitVGG(LitClassifier):
    """A VGG net, for ImageNet or for images of 32 px.

    Args:
        num_classes: K; the command line takes it from the data.
        variant: the column of the paper's Table 1: A (11 layers with weights), A-LRN (with local response
            normalisation), B (13), C (16, three of them 1x1 convolutions), D (16, known as VGG-16) or E (19).
        batch_norm: BatchNorm after each convolution, which the paper has not, and torchvision's vgg*_bn have.
        head: imagenet with 4096-4096-K fully connected layers, or cifar with 512-512-K; dropout 0.5 between them. The
            first is made for 224 px, the second for 32 px; both take other sizes from 32 px up.
        init: glorot, from which all variants learn; or normal, the paper's, of standard deviation 0.01.
        init_from: a file with the weights of a trained A (.ckpt, .pth or .safetensors), from which B, C, D or E takes
            over conv1_1, conv2_1, conv3_1, conv3_2 and fc6-8, as in section 3.1; batch_norm and head must be those of
            A. The other layers start from `init`.
        **kwargs: see `LitClassifier`.

    Raises:
        ValueError: for an unknown variant, head or init, or an `init_from` that does not fit.
        FileNotFoundError: if there is no file `init_from`.
    """

    small_form = " (--model.head cifar)"

    def __init__(
        self,
        num_classes: int,
        variant: Variant = "D",
        batch_norm: bool = False,
        head: Head = "imagenet",
        init: Init = "glorot",
        init_from: str | None = None,
        **kwargs: Any,
    ) -> None:
        net = VGG(num_classes, variant, batch_norm, head, init)
        if init_from is not None and variant not in DEEPER:
            raise UserError(
                f"init_from starts a deeper net ({', '.join(DEEPER)}) from a trained A, and variant is {variant}: give "
                "the file with --model.weights FILE."
            )
        if init_from is not None and kwargs.get("weights") is not None:
            raise UserError(
                f"init_from is {init_from}, but weights {kwargs['weights']} would replace all of it: leave one of them "
                "out."
            )
        super().__init__(net, num_classes, **kwargs)
        self.limit_sizes(smallest=32)  # five poolings
        self.hparams.pop("init_from", None)  # a checkpoint brings its own weights
        if init_from is not None:
            start_from_a(net, batch_norm, num_classes, Path(init_from).expanduser())


def start_from_a(net: VGG, batch_norm: bool, num_classes: int, path: Path) -> None:
    """Copy the layers `STAGED` of a trained A, and the norms of its convolutions, to the same places in a deeper net.

    A last layer for another number of classes keeps its random weights, with a message.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it does not hold such an A.
    """
    own, saved = net.state_dict(), read_file(path)
    with torch.device("meta"):
        theirs, ours = layer_paths(features("A", batch_norm)), layer_paths(net.features)
    taken: dict[str, Tensor] = {}
    wrong: list[str] = []
    for layer, there in theirs.items():
        if layer.replace("norm", "conv") not in STAGED:
            continue
        here = ours.get(layer, "nowhere")
        for part in sorted(parts(own, here) | parts(saved, there)):
            name, source = f"{here}.{part}", f"{there}.{part}"
            if name not in own or source not in saved:
                wrong.append(source)
            elif own[name].shape == saved[source].shape:
                taken[name] = saved[source]
            elif layer == "fc8" and len(own[name]) == num_classes and own[name].shape[1:] == saved[source].shape[1:]:
                log.warning("%s has another number of classes than %s: %s starts anew.", path, num_classes, name)
            else:
                wrong.append(source)
    if wrong:
        raise UserError(
            f"{path} does not hold a VGG A for this net ({', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}): "
            "give weights of an A that was trained with the same batch_norm, head and surgery."
        )
    net.load_state_dict(taken, strict=False)


def parts(state: dict[str, Tensor], place: str) -> set[str]:
    """What a state dict holds of one layer: weight, bias, and the running statistics of a BatchNorm."""
    names = {name.removeprefix(f"{place}.") for name in state if name.startswith(f"{place}.")}
    return names - {"num_batches_tracked"}  # older files have no such count, and nothing here uses it
