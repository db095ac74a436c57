"""Inception-ResNet-v1 and its plain counterpart: arXiv 1602.07261, Figures 7 and 10 to 15."""

from functools import partial

import pytest
import torch
from torch import nn

from lit_models import LitInceptionResNetV1
from lit_models.counts import count_used
from lit_models.nets.inception_resnet import BLOCKS, InceptionResNetV1

SMALL = {"blocks": (1, 2, 1), "width": 0.125, "stem": "cifar"}


def kinds(net, *types):
    return [module for module in net.modules() if isinstance(module, types)]


def convolutions(*shapes):
    """Weights and BatchNorms (gamma and beta) of convolutions: (inputs, outputs, pixels of the kernel)."""
    return sum(inputs * outputs * pixels + 2 * outputs for inputs, outputs, pixels in shapes)


@pytest.mark.parametrize("residual", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_parameters_by_hand(residual):
    """The figures, added up; a plain net has the same layers."""
    stem = convolutions((3, 32, 9), (32, 32, 9), (32, 64, 9), (64, 80, 1), (80, 192, 9), (192, 256, 9))  # Figure 14
    block_a = convolutions(*[(256, 32, 1)] * 3, *[(32, 32, 9)] * 3) + 96 * 256 + 256  # Figure 10
    reduction_a = convolutions((256, 384, 9), (256, 192, 1), (192, 192, 9), (192, 256, 9))  # Figure 7
    block_b = convolutions((896, 128, 1), (896, 128, 1), (128, 128, 7), (128, 128, 7)) + 256 * 896 + 896  # Figure 11
    reduction_b = convolutions(  # Figure 12
        *((896, 256, 1), (256, 384, 9)), *((896, 256, 1), (256, 256, 9)), *((896, 256, 1), (256, 256, 9), (256, 256, 9))
    )
    block_c = convolutions((1792, 192, 1), (1792, 192, 1), (192, 192, 3), (192, 192, 3)) + 384 * 1792 + 1792  # 13
    blocks = 5 * block_a + reduction_a + 10 * block_b + reduction_b + 5 * block_c  # Figure 15
    expected = stem + blocks + 1792 * 1000 + 1000
    assert expected == 22_756_328
    with torch.device("meta"):
        counts = count_used(InceptionResNetV1(1000, residual), 299)
    assert counts.parameters == expected
    assert counts.multiply_adds == pytest.approx(6.2064e9, rel=1e-4)


def test_maps_are_those_of_figures_14_and_15():
    sizes = []
    with torch.device("meta"):
        net = InceptionResNetV1(10).eval()
        for module in [*net.stem, *net.stages]:
            module.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:3])))
        net(torch.empty(1, 3, 299, 299))
    stem = [(32, 149), (32, 147), (64, 147), (64, 73), (80, 73), (192, 71), (256, 35)]
    assert sizes == [*stem, (256, 35), (896, 17), (1792, 8)]
    assert BLOCKS == (5, 10, 5) and net.dropout.p == 0.2


def test_residuals_are_scaled_and_added():
    torch.manual_seed(0)
    nets = [InceptionResNetV1(10, residual, **SMALL).eval() for residual in (True, False)]
    nets[1].load_state_dict(nets[0].state_dict())  # the same keys
    x = torch.rand(2, 32, 7, 7)
    residual, plain = (net.stages[0][0] for net in nets)
    projected = residual.projection(torch.cat([branch(x) for branch in residual.branches], 1))
    torch.testing.assert_close(residual(x), torch.relu(x + 0.17 * projected))
    torch.testing.assert_close(plain(x), torch.relu(projected))
    scales = [block.scale for stage in nets[0].stages for block in stage if hasattr(block, "scale")]
    assert scales == [0.17, 0.10, 0.10, 0.20]


def test_the_projection_is_linear_and_has_a_bias_of_0():
    net = InceptionResNetV1(10, **SMALL)
    projections = [module.projection for module in net.modules() if hasattr(module, "projection")]
    assert len(projections) == 4 and all(not each.bias.any() for each in projections)
    assert len(kinds(net, nn.BatchNorm2d)) == len(kinds(net, nn.Conv2d)) - 4


def test_the_cifar_form_sees_15_7_and_3_px_and_keeps_the_keys():
    sizes = []
    with torch.device("meta"):
        nets = [InceptionResNetV1(10, blocks=(1, 1, 1), width=0.25, stem=stem).eval() for stem in ("imagenet", "cifar")]
        for stage in nets[1].stages:
            stage.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
        nets[1](torch.empty(1, 3, 32, 32))
    assert sizes == [15, 7, 3]
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in nets]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("residual", [True, False])
def test_every_parameter_gets_a_gradient(residual):
    torch.manual_seed(0)
    net = InceptionResNetV1(10, residual, **SMALL)
    logits = net(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("stem", "smallest"), [pytest.param("imagenet", 75, marks=pytest.mark.slow), ("cifar", 15)])
def test_smallest_image(stem, smallest):
    with torch.device("meta"):
        model = LitInceptionResNetV1(10, width=0.25, stem=stem, optimizer=partial(torch.optim.SGD, lr=0.1)).eval()
        assert model(torch.empty(1, 3, smallest, smallest)).shape == (1, 10)
        with pytest.raises(ValueError, match=f"at least {smallest} px"):
            model(torch.empty(1, 3, smallest, smallest - 1))
        with pytest.raises(RuntimeError):  # the limit is the net's own
            model.net(torch.empty(1, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stem": "mnist"}, "stem mnist is unknown: choose one of imagenet, cifar"),
        ({"blocks": (1, 0, 1)}, "blocks is 0: it must be at least 1"),
        ({"width": 0.0}, r"width is 0.0: it must be above 0 \(1 is the paper's\)"),
    ],
)
def test_what_is_refused(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        InceptionResNetV1(10, **arguments)
