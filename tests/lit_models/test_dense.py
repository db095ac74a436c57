"""Dense evaluation: nets over whole images."""

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lit_models import LitClassifier, LitVGG
from lit_models.nets.dense import make_dense
from lit_models.nets.vgg import VGG
from tests.families import SMALL, parametrize_families


def net_of(family: type[LitClassifier], arguments: dict[str, Any]) -> nn.Module:
    pl.seed_everything(0, verbose=False)
    arguments = arguments | ({"batch_norm": True} if family is LitVGG else {})
    net = family(10, optimizer=torch.optim.SGD, **arguments).net.eval()
    for module in net.modules():  # fresh statistics let some nets say the same of all images
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.double()


@torch.no_grad()
@parametrize_families("LitNASNet", "LitShakeShake", only=set(SMALL))
def test_dense_is_the_same_at_the_usual_size_and_the_mean_over_windows_at_larger_ones(family, arguments):
    net = net_of(family, arguments)
    usual, larger = torch.randn(2, 3, 32, 32).double(), torch.randn(2, 3, 48, 64).double()
    maps: list[torch.Tensor] = []
    name = next(n for n in ("avgpool", "global_pool", "global_pooling") if hasattr(net, n))
    pool = net.get_submodule(name)
    handle = pool.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    expected = net(usual)
    net(larger)
    handle.remove()
    window = maps[0].shape[-1]
    windows = maps[1].unfold(2, window, 1).unfold(3, window, 1)  # [B, C, down, across, window, window]
    assert windows.shape[2:4] != (1, 1)
    scores = []
    for down in range(windows.shape[2]):
        for across in range(windows.shape[3]):
            replaced = pool.register_forward_pre_hook(lambda _, __, d=down, a=across: (windows[:, :, d, a],))
            scores.append(net(usual))
            replaced.remove()
    make_dense(net, 32)
    make_dense(net, 32)  # once more changes nothing
    assert torch.allclose(net(usual), expected, atol=1e-9)
    assert expected.std() > 1e-6
    assert torch.allclose(net(larger), torch.stack(scores).mean(0), atol=1e-9)


@torch.no_grad()
@pytest.mark.slow
def test_fully_connected_layers_of_7x7_are_convolutions():
    """The paper's own head: as the ordinary pass at 224 px, and at 288 px as the classifier on every 7x7 window."""
    torch.manual_seed(0)
    net = VGG(1000, "A", False, "imagenet", "glorot").eval()
    usual, larger = torch.randn(1, 3, 224, 224), torch.randn(1, 3, 256, 320)
    expected, last = net(usual), net.features(larger)
    assert last.shape[2:] == (8, 10)
    scores = [net.classifier(last[:, :, y : y + 7, x : x + 7].flatten(1)) for y in range(2) for x in range(4)]
    adaptive = net(larger)
    make_dense(net, 224)
    assert torch.allclose(net(usual), expected, atol=1e-5)
    assert torch.allclose(net(larger), torch.stack(scores).mean(0), atol=1e-5)
    assert not torch.allclose(net(larger), adaptive, atol=1e-3)  # torchvision's pooling is a third thing


def test_nets_that_cannot():
    with pytest.raises(ValueError, match="Sequential cannot be run densely: it has 0 global average poolings"):
        make_dense(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), 32)
    with pytest.raises(ValueError, match="VGG cannot be run densely with images of 32 px: .* 1 px a side"):
        make_dense(VGG(10, "A", False, "imagenet", "glorot").eval(), 32)
