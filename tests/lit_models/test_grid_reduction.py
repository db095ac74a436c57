"""Three ways to halve a feature map (arXiv 1512.00567, section 5): counts by hand, and where the bottleneck is."""

import pytest
import torch
from torch import nn

from lit_models.counts import count_used
from lit_models.nets.grid_reduction import GridReduction, reduce_grid

# Weights of a reduction from k to 2k channels in k^2, and the pixels at which they are applied, in d^2
WEIGHTS = {"pool_first": 9 * 2, "widen_first": 9 * 2, "parallel": 9}
SHARES = {"pool_first": 1 / 4, "widen_first": 1, "parallel": 1 / 4}
ALL = pytest.mark.parametrize("reduction", WEIGHTS)


@ALL
def test_counts_of_the_net(reduction):
    with torch.device("meta"):
        counts = count_used(GridReduction(10, reduction, width=16, stages=3, depth=2), 32)
    plain = 9 * (3 * 16 + 2 * (16 * 16 + 32 * 32 + 64 * 64))  # first convolution, and two in each stage
    norms = 2 * (16 + 2 * (16 + 32 + 64))  # gamma and beta
    # The convolution of a reduction has 2k channels, in the parallel one k
    wide = 1 if reduction == "parallel" else 2
    reductions, their_norms = WEIGHTS[reduction] * (16 * 16 + 32 * 32), 2 * wide * (16 + 32)
    assert counts.parameters == plain + norms + reductions + their_norms + 64 * 10 + 10
    multiply_adds = 9 * (32**2 * (3 * 16 + 2 * 16 * 16) + 16**2 * 2 * 32 * 32 + 8**2 * 2 * 64 * 64) + 64 * 10
    multiply_adds += WEIGHTS[reduction] * SHARES[reduction] * (32**2 * 16 * 16 + 16**2 * 32 * 32)
    assert counts.multiply_adds == multiply_adds


def test_costs_are_those_of_section_5():
    """Pooling first costs a quarter of widening first, and the parallel reduction half of that."""
    costs = {name: WEIGHTS[name] * SHARES[name] for name in WEIGHTS}
    assert costs["pool_first"] == costs["widen_first"] / 4
    assert costs["parallel"] == costs["pool_first"] / 2


@ALL
def test_a_reduction_halves_the_map_and_doubles_the_channels(reduction):
    module, images = reduce_grid(reduction, 6), torch.randn(2, 6, 8, 8)
    assert module(images).shape == (2, 12, 4, 4)
    assert module(images[..., :7, :7]).shape == (2, 12, 4, 4)


def test_the_smallest_map_between_two_steps_is_a_bottleneck_only_when_pooling_first():
    sizes = {}
    for name in WEIGHTS:
        values = []
        module = reduce_grid(name, 6)
        for part in module.modules():
            if isinstance(part, nn.MaxPool2d | nn.ReLU):
                part.register_forward_hook(lambda _, __, out, values=values: values.append(out[0].numel()))
        out = module(torch.randn(1, 6, 8, 8))
        # The parallel branches are both handed on
        sizes[name] = min(out[0].numel(), sum(values) if name == "parallel" else min(values))
    assert sizes == {"pool_first": 6 * 4 * 4, "widen_first": 12 * 4 * 4, "parallel": 12 * 4 * 4}


@ALL
def test_every_parameter_gets_a_gradient(reduction):
    net = GridReduction(10, reduction, width=4, stages=3, depth=1)
    logits = net(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": "stride"}, "reduction stride is no way to reduce a grid: choose one of pool_first, widen_first"),
        ({"width": 0}, "width is 0: it must be at least 1"),
        ({"stages": 0}, "stages is 0"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridReduction(10, **({"reduction": "parallel", "width": 4, "stages": 3, "depth": 1} | arguments))
