"""GoogLeNet with the naive modules of Figure 2a, and narrower than the paper's (arXiv 1409.4842)."""

from functools import partial

import pytest
import torch
from torch import nn

from lit_models import LitGoogLeNet
from lit_models.counts import count_used
from lit_models.nets.googlenet import INCEPTIONS, GoogLeNet

# Channels of the input of each naive module: the pooling hands all of them on
INPUTS = {"3a": 192, "3b": 416, "4a": 832, "4b": 1280, "4c": 1728, "4d": 2176, "4e": 2640, "5a": 3344, "5b": 4048}
STEM = (3 * 64 * 49 + 64) + (64 * 64 + 64) + (64 * 192 * 9 + 192)


def test_parameters_of_the_naive_net_by_hand():
    parameters, channels = STEM, 192
    multiply_adds = 112**2 * 3 * 64 * 49 + 56**2 * (64 * 64 + 64 * 192 * 9)
    for name, (conv1x1, _, conv3x3, _, conv5x5, _) in INCEPTIONS.items():
        assert channels == INPUTS[name]
        weights = channels * (conv1x1 + 9 * conv3x3 + 25 * conv5x5)
        parameters += weights + conv1x1 + conv3x3 + conv5x5
        multiply_adds += {"3": 28, "4": 14, "5": 7}[name[0]] ** 2 * weights
        channels += conv1x1 + conv3x3 + conv5x5
    assert channels == 4944
    parameters += 4944 * 1000 + 1000
    multiply_adds += 4944 * 1000
    assert parameters == 97_526_008
    with torch.device("meta"):
        counts = count_used(GoogLeNet(1000, auxiliary=False, reductions=False), 224)
    assert (counts.parameters, counts.multiply_adds) == (parameters, multiply_adds)


def test_the_naive_module_is_that_of_figure_2a():
    module = GoogLeNet(10, reductions=False, width=0.125).inception3a
    kernels = [layer.kernel_size for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert kernels == [(1, 1), (3, 3), (5, 5)]
    x = torch.randn(2, 24, 8, 8)
    out = module(x)
    assert out.shape == (2, 8 + 16 + 4 + 24, 8, 8)
    torch.testing.assert_close(out[:, -24:], nn.functional.max_pool2d(x, 3, stride=1, padding=1))


@pytest.mark.parametrize("reductions", [True, False])
@pytest.mark.parametrize("variant", ["paper", "batch_norm"])
def test_a_narrow_net_with_its_heads_learns_from_every_parameter(variant, reductions):
    torch.manual_seed(0)
    model = LitGoogLeNet(
        10, variant, stem="cifar", reductions=reductions, width=0.125, optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    model.loss(model.train()(torch.randn(4, 3, 32, 32)), torch.tensor([1, 2, 3, 4])).backward()
    for name, parameter in model.net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    with torch.no_grad():
        assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_width_scales_every_layer():
    with torch.device("meta"):
        paper, narrow = GoogLeNet(10), GoogLeNet(10, width=0.5)
    for name, module in narrow.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.out_channels * 2 == paper.get_submodule(name).out_channels, name
    assert narrow.aux1.fc1.out_features == 512 and narrow.fc.in_features == 512
    assert paper.state_dict().keys() == narrow.state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reductions": False}, "reductions is false, and variant torchvision is one fixed network"),
        ({"width": 0.5}, "width is 0.5, and variant torchvision is one fixed network"),
        ({"variant": "paper", "width": -1}, r"width is -1: it must be above 0"),
    ],
)
def test_what_is_refused(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        LitGoogLeNet(10, **({"variant": "torchvision"} | arguments), optimizer=partial(torch.optim.SGD, lr=0.1))
