"""Inception-v3 as its paper has it: arXiv 1512.00567, Table 1, section 6, and Figures 5 to 7 and 10."""

from functools import partial

import pytest
import torch
from torch import nn

from lit_models import LitInceptionV3
from lit_models.counts import count_used
from lit_models.nets.inception_v3 import Figure5, PaperInceptionV3


def build(**arguments):
    torch.manual_seed(0)
    return LitInceptionV3(10, variant="paper", optimizer=partial(torch.optim.SGD, lr=0.01), **arguments)


def convolutions(*shapes):
    """Weights and BatchNorms (gamma and beta) of convolutions: (inputs, outputs, pixels of the kernel)."""
    return sum(inputs * outputs * pixels + 2 * outputs for inputs, outputs, pixels in shapes)


def figure_7(inputs):
    wide = [(inputs, 448, 1), (448, 384, 9), (384, 384, 3), (384, 384, 3)]
    return convolutions((inputs, 320, 1), (inputs, 384, 1), *[(384, 384, 3)] * 2, *wide, (inputs, 192, 1))


def test_parameters_by_hand():
    stem = convolutions((3, 32, 9), (32, 32, 9), (32, 64, 9), (64, 80, 9), (80, 192, 9), (192, 288, 9))  # Table 1
    figure_5 = convolutions(
        (288, 64, 1), (288, 48, 1), (48, 64, 9), (288, 64, 1), (64, 96, 9), (96, 96, 9), (288, 64, 1)
    )
    reduction_1 = convolutions((288, 384, 9), (288, 64, 1), (64, 96, 9), (96, 96, 9))
    short, long = [(128, 128, 7), (128, 192, 7)], [*[(128, 128, 7)] * 3, (128, 192, 7)]
    figure_6 = convolutions((768, 192, 1), (768, 128, 1), *short, (768, 128, 1), *long, (768, 192, 1))
    reduction_2 = convolutions((768, 192, 1), (192, 320, 9), (768, 192, 1), *[(192, 192, 7)] * 2, (192, 192, 9))
    blocks = 3 * figure_5 + reduction_1 + 5 * figure_6 + reduction_2 + figure_7(1280) + figure_7(2048)
    expected = stem + blocks + 2048 * 1000 + 1000
    assert expected == 23_928_904 < 25e6  # "less than 25 million parameters"
    with torch.device("meta"):
        net = PaperInceptionV3(1000, True, "imagenet")
        counts = count_used(net, 299)
    assert counts.parameters == expected and counts.multiply_adds == pytest.approx(5.7678e9, rel=1e-4)
    auxiliary = convolutions((768, 128, 1), (128, 768, 25)) + 768 * 1000 + 1000
    assert sum(parameter.numel() for parameter in net.parameters()) == expected + auxiliary


def test_maps_are_those_of_table_1():
    sizes = []
    with torch.device("meta"):
        net = PaperInceptionV3(10, True, "imagenet").eval()
        parts = [*net.stem, *net.blocks5, net.reduction1, *net.blocks6, net.reduction2, *net.blocks7]
        for part in parts:
            part.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:3])))
        net(torch.empty(1, 3, 299, 299))
    stem = [(32, 149), (32, 147), (64, 147), (64, 73), (80, 71), (192, 35), (288, 35)]
    blocks = [*[(288, 35)] * 3, (768, 17), *[(768, 17)] * 5, (1280, 8), *[(2048, 8)] * 2]
    assert sizes == stem + blocks


def test_the_35x35_blocks_have_no_5x5_convolution():
    kernels = [module.kernel_size for module in Figure5().modules() if isinstance(module, nn.Conv2d)]
    assert sorted(kernels) == [(1, 1)] * 4 + [(3, 3)] * 3
    with torch.device("meta"):
        released = LitInceptionV3(10, optimizer=partial(torch.optim.SGD, lr=0.01)).net
    assert (5, 5) in [module.kernel_size for module in released.Mixed_5b.modules() if isinstance(module, nn.Conv2d)]


def test_the_cifar_form_keeps_the_keys_and_sees_15_7_and_3_px():
    sizes = []
    with torch.device("meta"):
        nets = [PaperInceptionV3(10, True, stem).eval() for stem in ("imagenet", "cifar")]
        for part in (nets[1].blocks5, nets[1].blocks6, nets[1].blocks7):
            part.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
        nets[1](torch.empty(1, 3, 32, 32))
    assert sizes == [15, 7, 3]
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in nets]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_the_auxiliary_head_is_on_the_last_17x17_block_and_in_training_alone():
    model = build(stem="cifar")
    output = model.train()(torch.randn(2, 3, 32, 32))
    assert output._fields == ("logits", "aux") and output.logits.shape == output.aux.shape == (2, 10)
    assert model.aux_weights == {"aux": 0.4}
    model.loss(output, torch.tensor([1, 2])).backward()
    for name, parameter in model.net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    with torch.no_grad():
        assert isinstance(model.eval()(torch.randn(1, 3, 32, 32)), torch.Tensor)


@pytest.mark.slow
def test_initial_deviations_are_torchvisions():
    net = build(stem="cifar").net
    assert net.fc.weight.std().item() == pytest.approx(0.1, rel=0.03)
    assert net.auxiliary.fc.weight.std().item() == pytest.approx(0.001, rel=0.03)


@pytest.mark.slow
def test_sizes():
    with torch.device("meta"):
        model = build()
        assert model.eval()(torch.empty(1, 3, 75, 75)).shape == (1, 10)
        with pytest.raises(RuntimeError):  # the limit is the net's own
            model.net(torch.empty(1, 3, 74, 74))
        assert model.train()(torch.empty(2, 3, 299, 299)).aux.shape == (2, 10)
        with pytest.raises(RuntimeError):
            model.net(torch.empty(2, 3, 298, 298))
        plain = build(aux_weight=0).train()
        assert plain(torch.empty(2, 3, 75, 75)).shape == (2, 10) and plain.net.auxiliary is None


def test_what_is_refused():
    with torch.device("meta"):
        with pytest.raises(ValueError, match="transform_input is for torchvision's weights, not for variant paper"):
            build(transform_input=True)
        with pytest.raises(ValueError, match="variant v2 is no Inception-v3: choose one of released, paper"):
            LitInceptionV3(10, variant="v2", optimizer=partial(torch.optim.SGD, lr=0.01))
