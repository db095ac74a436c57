"""Dense evaluation: the classifier at every place of a whole image's feature map.

Sermanet et al., arXiv 1312.6229; arXiv 1409.1556, section 3.2 (VGG); arXiv 1512.03385, section 4.1 (ResNet). What an
image of the usual size gives is the same as ever. A larger one gives the mean of the logits over all windows of the
last feature map that are as large as the usual size makes that map, a step of one apart.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError
from lit_models.nets.surgery import layers
from lit_models.nets.vgg import VGG


def make_dense(net: nn.Module, size: int) -> None:
    """Let a net look at whole images.

    Args:
        net: changed in place, for evaluation alone: a VGG's weights have other names then.
        size: pixels per side of the square images whose result stays as it is.

    Raises:
        ValueError: if the net does not end in the pooling of a map and a classifier that can be moved over it.
    """
    if any(isinstance(layer, WindowMean | PlaceMean) for layer in net.modules()):
        return  # it is
    if isinstance(net, VGG):
        return make_vgg_dense(net, size)
    pools = [place for place in layers(net) if is_global_pool(place[2])]
    if len(pools) != 1:
        raise UserError(
            f"{type(net).__name__} cannot be run densely: it has {len(pools)} global average poolings, and wants one "
            "before its classifier. Choose a protocol of crops, such as multi_crop."
        )
    parent, name, pool = pools[0]
    setattr(parent, name, WindowMean(map_size(net, pool, size)))


def make_vgg_dense(net: VGG, size: int) -> None:
    """Turn the fully connected layers of a VGG into convolutions, which the paper does: there is more than one."""
    field = net.avgpool.output_size
    assert isinstance(field, int)
    if (window := map_size(net, net.avgpool, size)) < field:
        raise UserError(
            f"VGG cannot be run densely with images of {size} px: their last feature map has {window} px a side, and "
            f"its classifier wants {field}. Choose a protocol of crops, such as multi_crop."
        )
    net.avgpool, net.classifier = convolutional(net.classifier, field), nn.Sequential()  # type: ignore[assignment]


def is_global_pool(layer: nn.Module) -> bool:
    """Whether a layer averages over a whole map."""
    return isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))


def map_size(net: nn.Module, pool: nn.Module, size: int) -> int:
    """Pixels per side of the feature map that a pooling gets from images of `size` px."""
    sides: list[int] = []
    handle = pool.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    training = net.training
    weight = next(net.parameters())
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype))
    finally:
        handle.remove()
        net.train(training)
    return sides[0]


class WindowMean(nn.Module):
    """Mean of all windows, each averaged: a linear classifier makes of it the mean of the logits of all windows."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.window, stride=1).mean((2, 3), keepdim=True)  # [B, C, 1, 1]


class PlaceMean(nn.Module):
    """Mean over all places of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)  # [B, K, 1, 1]


def convolutional(classifier: nn.Sequential, field: int) -> nn.Sequential:
    """Fully connected layers as convolutions with the same weights, the first one of `field` px, and their mean."""
    converted: list[nn.Module] = []
    for layer in classifier:
        if not isinstance(layer, nn.Linear):
            converted.append(layer)
            continue
        kernel = 1 if any(isinstance(other, nn.Conv2d) for other in converted) else field
        converted.append(as_convolution(layer, kernel))
    return nn.Sequential(*converted, PlaceMean())


def as_convolution(layer: nn.Linear, kernel: int) -> nn.Conv2d:
    """A convolution that makes of a window what the linear layer makes of its flattened pixels."""
    channels = layer.in_features // kernel**2
    options: dict[str, Any] = {"bias": layer.bias is not None, "device": "meta"}
    convolution = nn.Conv2d(channels, layer.out_features, kernel, **options)
    weight = layer.weight.detach().view(layer.out_features, channels, kernel, kernel)
    convolution.weight, convolution.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return convolution
