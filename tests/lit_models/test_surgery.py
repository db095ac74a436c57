"""Norm, activation and dropout swapped in any net."""

from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from errors import UserError
from lit_models import LitResNet, LitVGG
from lit_models.nets.resnet import ResNet
from lit_models.nets.surgery import swap_activation, swap_dropout, swap_norm

SGD = partial(torch.optim.SGD, lr=0.1)


def kinds(net, *types):
    return [module for module in net.modules() if isinstance(module, types)]


@pytest.mark.parametrize("build", [lambda: ResNet(10, 20), torchvision.models.vgg11_bn, torchvision.models.resnet18])
def test_group_norm_takes_the_place_of_every_batch_norm_and_its_gamma(build):
    net = build()
    before = len(kinds(net, nn.BatchNorm2d))
    first = kinds(net, nn.BatchNorm2d)[0]
    nn.init.constant_(first.weight, 3.0)
    swap_norm(net, "group")
    norms = kinds(net, nn.GroupNorm)
    assert not kinds(net, nn.BatchNorm2d) and len(norms) == before and (norms[0].weight == 3).all()
    swap_norm(net, "batch")
    assert len(kinds(net, nn.BatchNorm2d)) == before and not kinds(net, nn.GroupNorm)


def test_no_norm_gives_every_convolution_a_bias():
    net = ResNet(10, 20)
    assert all(m.bias is None for m in kinds(net, nn.Conv2d))
    swap_norm(net, "none")
    assert not kinds(net, nn.BatchNorm2d, nn.GroupNorm)
    assert all(m.bias is not None and m.bias.abs().sum() == 0 for m in kinds(net, nn.Conv2d))
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert net.conv1.bias.grad is not None


def test_selu_brings_lecun_normal_weights_and_alpha_dropout():
    net = torchvision.models.vgg11(num_classes=10)
    swap_activation(net, "selu")
    assert not kinds(net, nn.ReLU) and len(kinds(net, nn.SELU)) == 10
    assert not kinds(net, nn.Dropout) and len(kinds(net, nn.AlphaDropout)) == 2
    weight = net.features[8].weight  # 256 -> 256, 3x3
    assert weight.std().item() == pytest.approx((1 / (9 * weight.shape[1])) ** 0.5, rel=0.02)
    assert all(m.bias.abs().sum() == 0 for m in kinds(net, nn.Conv2d, nn.Linear))


def test_leaky_relu_leaves_the_weights():
    net = ResNet(10, 20)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    swap_activation(net, "leaky_relu")
    assert len(kinds(net, nn.LeakyReLU)) == 10 and not kinds(net, nn.ReLU)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_dropout_is_set_where_it_is_and_put_before_the_classifier_where_it_is_not():
    vgg = torchvision.models.vgg11(num_classes=10)
    swap_dropout(vgg, 0.2)
    assert [m.p for m in kinds(vgg, nn.Dropout)] == [0.2, 0.2]
    net = ResNet(10, 20)
    keys, images = list(net.state_dict()), torch.randn(8, 3, 32, 32)
    expected = net.eval()(images)
    swap_dropout(net, 0.5)
    assert list(net.state_dict()) == keys
    torch.testing.assert_close(net.eval()(images), expected)
    features = torch.ones(4, 64)
    assert not torch.equal(net.train().fc(features), net.fc(features))


def test_selu_brings_alpha_dropout_where_a_net_has_no_dropout_of_its_own():
    net = LitResNet(10, depth=20, optimizer=SGD, activation="selu", dropout=0.5).net.train()
    outputs = nn.functional.linear(torch.zeros(1, 64), net.fc.weight, net.fc.bias)
    dropped = net.fc(torch.zeros(1, 64))  # plain dropout leaves zeros alone, AlphaDropout does not
    assert not torch.equal(dropped, outputs) and torch.equal(net.eval().fc(torch.zeros(1, 64)), outputs)


def test_the_kind_of_dropout_is_chosen_apart_from_the_activation():
    def build(**arguments):
        return LitVGG(10, variant="A", head="cifar", width=0.1, optimizer=SGD, **arguments).net

    plain = build(activation="selu", dropout=0.1, alpha_dropout=False)
    assert [m.p for m in kinds(plain, nn.Dropout)] == [0.1, 0.1] and not kinds(plain, nn.AlphaDropout)
    alpha = build(alpha_dropout=True)
    assert [m.p for m in kinds(alpha, nn.AlphaDropout)] == [0.5, 0.5] and not kinds(alpha, nn.Dropout)
    before_classifier = LitResNet(10, depth=20, optimizer=SGD, activation="selu", dropout=0.5, alpha_dropout=False).net
    assert torch.equal(before_classifier.train().fc(torch.zeros(1, 64))[0], before_classifier.fc.bias)
    with pytest.raises(UserError, match="alpha_dropout is false, but ResNet has no dropout: give it one"):
        LitResNet(10, depth=20, optimizer=SGD, alpha_dropout=False)


@pytest.mark.parametrize(
    ("build", "swap", "message"),
    [
        (torchvision.models.vgg11, lambda net: swap_norm(net, "group"), "VGG has no norm"),
        (torchvision.models.densenet121, lambda net: swap_activation(net, "selu"), "DenseNet calls a relu"),
        (torchvision.models.googlenet, lambda net: swap_activation(net, "selu"), "calls a relu"),
        (torchvision.models.inception_v3, lambda net: swap_activation(net, "leaky_relu"), "calls a relu"),
        (lambda: timm.create_model("inception_v4"), lambda net: swap_norm(net, "group"), "BatchNormAct2d"),
        (lambda: ResNet(10, 20), lambda net: swap_dropout(net, 1.0), r"dropout is 1.0: it must be in \[0, 1\)"),
    ],
)
def test_what_cannot_be_swapped_whole_is_refused(build, swap, message):
    with torch.device("meta"):
        net = build()
    with pytest.raises(ValueError, match=message):
        swap(net)
