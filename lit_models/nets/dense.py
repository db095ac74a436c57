"""Dense evaluation: the classifier at every position of the feature map of a whole image.

Sermanet et al., arXiv 1312.6229; arXiv 1409.1556, section 3.2 (VGG); arXiv 1512.03385, section 4.1 (ResNet). For an
image of the usual size the logits stay the same. For a larger one they are the mean of the logits over all windows of
the last feature map that are as large as the map of an image of the usual size, one step apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError
from lit_models.nets.surgery import find_layers
from lit_models.nets.vgg import VGG


def make_dense(net: nn.Module, size: int) -> None:
    """Convert a net to dense evaluation; a net that is dense already stays unchanged.

    Args:
        net: changed in place, for evaluation only: the weights of a VGG get other names.
        size: pixels per side of the square images whose logits stay the same.

    Raises:
        UserError: if the net does not end in one global average pooling and a classifier.
    """
    if any(isinstance(layer, WindowMean) for layer in net.modules()):
        return
    if isinstance(net, VGG):
        return make_vgg_dense(net, size)
    pools = [found for found in find_layers(net, nn.AdaptiveAvgPool2d) if found[1].output_size in (1, (1, 1))]
    if len(pools) != 1:
        raise UserError(
            f"{type(net).__name__} cannot be run densely: it has {len(pools)} global average poolings, and needs one "
            "before its classifier. Choose a protocol of crops, such as multi_crop."
        )
    path, pool = pools[0]
    net.set_submodule(path, WindowMean(measure_feature_map(net, pool, size)))


def make_vgg_dense(net: VGG, size: int) -> None:
    """Convert the fully connected layers of a VGG to convolutions, as its paper does: it has more than one of them."""
    pool = net.avgpool
    assert isinstance(pool, nn.AdaptiveAvgPool2d) and isinstance(pool.output_size, int)
    field, window = pool.output_size, measure_feature_map(net, pool, size)
    if window < field:
        raise UserError(
            f"VGG cannot be run densely with images of {size} px: their last feature map has {window} px a side, and "
            f"its classifier needs {field}. Choose a protocol of crops, such as multi_crop."
        )
    convolutions = [
        convert_linear(layer, field if i == 0 else 1) if isinstance(layer, nn.Linear) else layer
        for i, layer in enumerate(net.classifier)
    ]
    net.avgpool, net.classifier = nn.Sequential(*convolutions, WindowMean(1)), nn.Sequential()


def measure_feature_map(net: nn.Module, pool: nn.Module, size: int) -> int:
    """Pixels per side of the feature map that enters a pooling layer, for images of `size` px."""
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
    """Stride-1 average pool followed by a global mean; equals averaging the logits, since the classifier is linear.

    Args:
        window: pixels per side of the average pool.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.window, stride=1).mean((2, 3), keepdim=True)  # [B, C, 1, 1]


def convert_linear(layer: nn.Linear, kernel: int) -> nn.Conv2d:
    """A convolution with the weights of a linear layer on the flattened pixels of a window of `kernel` px a side."""
    channels = layer.in_features // kernel**2
    convolution = nn.Conv2d(channels, layer.out_features, kernel, bias=layer.bias is not None, device="meta")
    weight = layer.weight.detach().view(layer.out_features, channels, kernel, kernel)
    convolution.weight, convolution.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return convolution
