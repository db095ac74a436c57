"""Stacks of small kernels against a large one: counts by hand, receptive fields, and what is refused."""

import pytest
import torch
from torch import nn

from lit_models.counts import count_used
from lit_models.nets.kernel_stacks import KernelStacks, parse_kernels, stack

# Weights of a stack from C to C channels, without biases: arXiv 1409.1556, section 2.3, and 1512.00567, section 3.2
WEIGHTS = {
    ("3x3", "3x3"): 2 * 9,
    ("5x5",): 25,
    ("3x3", "3x3", "3x3"): 3 * 9,  # "3 (3^2 C^2) = 27 C^2"
    ("7x7",): 49,  # "7^2 C^2 = 49 C^2"
    ("7x1", "1x7"): 7 + 7,
}
FIELDS = {("3x3", "3x3"): 5, ("5x5",): 5, ("3x3", "3x3", "3x3"): 7, ("7x7",): 7, ("7x1", "1x7"): 7}
STACKS = pytest.mark.parametrize("kernels", WEIGHTS, ids=" ".join)


def build(kernels=("3x3", "3x3"), width=8, stages=3, batch_norm=False, relu_between=True):
    return KernelStacks(10, kernels, width, stages, batch_norm, relu_between)


@STACKS
@pytest.mark.parametrize("batch_norm", [False, True])
def test_counts(kernels, batch_norm):
    with torch.device("meta"):
        counts = count_used(build(kernels, width=32, batch_norm=batch_norm), 32)
    convolutions = 1 + 3 * len(kernels)
    first, classifier = 9 * 3 * 32, 32 * 10
    per_convolution = 2 * 32 if batch_norm else 32  # gamma and beta, or a bias
    weights = first + 3 * WEIGHTS[kernels] * 32 * 32 + classifier
    assert counts.parameters == weights + convolutions * per_convolution + 10
    pixels = 32 * 32 + 16 * 16 + 8 * 8  # of the three stages
    expected = 32 * 32 * first + pixels * WEIGHTS[kernels] * 32 * 32 + classifier
    assert counts.multiply_adds == expected


@STACKS
def test_receptive_field(kernels):
    layers = stack(1, 2, parse_kernels(kernels), batch_norm=False, relu_between=True)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    image = torch.ones(1, 1, 15, 15, requires_grad=True)
    layers(image)[0, 0, 7, 7].backward()
    seen = image.grad[0, 0].nonzero()
    side = FIELDS[kernels]
    assert len(seen) == side**2 and seen.min() == 7 - side // 2 and seen.max() == 7 + side // 2


def test_stacks_are_as_deep_as_their_kernels_and_keep_the_size():
    net = build(("3x3", "1x7"), stages=2)
    kinds = [type(layer).__name__ for layer in net.features]
    assert kinds == ["Conv2d", "ReLU", *["Conv2d", "ReLU"] * 2, "MaxPool2d", *["Conv2d", "ReLU"] * 2]
    assert net.features(torch.randn(2, 3, 32, 32)).shape == (2, 8, 16, 16)
    assert build(stages=1).features(torch.randn(2, 3, 9, 9)).shape == (2, 8, 9, 9)


def test_without_relu_between_the_stack_is_linear_up_to_its_last_relu():
    layers = stack(4, 4, [(7, 1), (1, 7)], batch_norm=False, relu_between=False)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.Conv2d, nn.ReLU]
    net = build(("7x1", "1x7"), batch_norm=True, relu_between=False)
    assert sum(isinstance(layer, nn.ReLU) for layer in net.features) == 1 + 3
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in net.features) == 1 + 3 * 2


@STACKS
def test_every_parameter_gets_a_gradient(kernels):
    net = build(kernels)
    logits = net(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernels": ()}, "kernels is empty: give the convolutions of a stack, such as"),
        ({"kernels": ("4x4",)}, "kernels has 4x4: write height x width, both odd, such as 3x3 or 1x7"),
        ({"kernels": ("3x3", "3")}, "kernels has 3: write height x width"),
        ({"width": 0}, "width is 0: it must be at least 1"),
        ({"stages": 0}, "stages is 0: it must be at least 1"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
