"""Dropout with masks that are drawn once."""

import shutil
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from errors import UserError
from lit_models import LitResNet, LitVGG
from lit_models.nets.dropout_masks import DropoutMasks, MaskedDropout
from lit_models.nets.surgery import swap_activation, swap_dropout
from tests.checkpointing.test_resume import EXPERIMENT, same

SGD = partial(torch.optim.SGD, lr=0.1)


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Dropout(0.4), nn.Linear(50, 50), nn.Dropout(0.2))


def test_a_mask_is_the_same_for_all_images_and_keeps_a_share_of_the_values():
    layer = MaskedDropout(0.4, count=3, seed=5)
    x = torch.ones(4, 2000)
    assert layer(x) is x  # no mask is chosen
    layer.number = 1
    first = layer(x)
    assert (first == first[0]).all()
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert (first[0] == 0).float().mean().item() == pytest.approx(0.4, abs=0.04)
    layer.number = 2
    assert not torch.equal(layer(x), first)
    assert layer(torch.ones(2, 3, 8, 8)).shape == (2, 3, 8, 8)  # inputs of another shape have masks of theirs


def test_a_state_dict_carries_the_masks():
    one, other = (MaskedDropout(0.5, count=2, seed=seed) for seed in (1, 2))
    x = torch.ones(1, 100)
    one.number = other.number = 0
    assert not torch.equal(one(x), other(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_in_training_all_dropouts_of_a_net_take_the_masks_of_one_number_for_a_batch():
    net = small_net()
    masks = DropoutMasks(net, count=4)
    assert len(masks.layers) == 2
    torch.manual_seed(0)
    numbers = []
    for _ in range(40):
        net(torch.ones(2, 6))
        assert len({layer.number for layer in masks.layers}) == 1
        numbers.append(masks.layers[0].number)
    assert set(numbers) == {0, 1, 2, 3}
    net.eval()(torch.ones(2, 6))
    assert [layer.number for layer in masks.layers] == [None, None]
    masks.remove()
    assert [type(layer) for layer in net] == [type(layer) for layer in small_net()]
    assert not net._forward_pre_hooks


def test_evaluation_is_the_mean_of_the_probabilities_over_all_masks():
    torch.manual_seed(0)
    model = LitVGG(10, "A", head="cifar", fixed_dropout_masks=3, optimizer=SGD).eval()
    images = torch.randn(5, 3, 32, 32)
    features = model.net.features(images).flatten(1)
    linear = [layer for layer in model.net.classifier if isinstance(layer, nn.Linear)]
    drops = [layer for layer in model.net.classifier if isinstance(layer, MaskedDropout)]
    probabilities = torch.zeros(5, 10)
    for number in range(3):
        x = features
        for layer, drop in zip(linear, drops, strict=False):
            mask = drop.draw_masks(torch.Size([512]))[number]
            x = torch.relu(layer(x)) * mask
        probabilities += linear[-1](x).softmax(1) / 3
    with torch.no_grad():
        assert torch.allclose(model.log_probabilities(images).exp(), probabilities, atol=1e-6)
        assert torch.equal(model.log_probabilities(images[:2]), model.log_probabilities(images[:2]))
    assert model.view_average.passes == 3


def test_the_masks_follow_the_seed_of_the_run():
    seeds = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        seeds.append(LitResNet(10, 20, dropout=0.5, fixed_dropout_masks=2, optimizer=SGD).net.fc.dropout.seed.item())
    assert seeds[0] == seeds[1] != seeds[2]


def test_a_net_whose_dropout_was_added_keeps_its_keys_without_masks():
    keys = list(LitResNet(10, 20, optimizer=SGD).state_dict())
    assert list(LitResNet(10, 20, dropout=0.5, optimizer=SGD).state_dict()) == keys


def test_what_has_no_plain_dropout_is_refused_in_a_sentence():
    with pytest.raises(
        UserError, match="Sequential has no dropout to draw masks for: give it one with --model.dropout"
    ):
        DropoutMasks(nn.Sequential(nn.Linear(2, 2)), 2)
    with pytest.raises(UserError, match="dropout_masks is 0: it must be at least 1."):
        DropoutMasks(small_net(), 0)
    net = small_net()
    swap_activation(net, "selu")
    swap_dropout(net, 0.1)
    with pytest.raises(UserError, match="Sequential has AlphaDropout, and masks can take the place of plain dropout"):
        DropoutMasks(net, 2)


def test_a_resumed_run_has_the_masks_of_the_run(run, here):
    path = here / "noise" / "net.yaml"
    path.parent.mkdir()
    path.write_text(EXPERIMENT)
    run("fit", "--config", path, "--trainer.max_epochs", 2, "--model.fixed_dropout_masks", 3)
    whole, copy = (Path(f"runs/noise/net/version_{number}") for number in (0, 1))
    shutil.copytree(whole, copy)
    (copy / "checkpoints" / "last.ckpt").unlink()
    run("fit", "--allow", "tests", "--ckpt_path", copy / "checkpoints" / "step-2.ckpt")
    assert same(whole / "checkpoints" / "last.ckpt", copy / "checkpoints" / "last.ckpt")


def test_a_copy_has_masks_of_its_own():
    """As averaging of weights makes it."""
    model = LitVGG(10, "A", head="cifar", fixed_dropout_masks=3, width=0.25, optimizer=SGD)
    copied = deepcopy(model)
    copied.net(torch.randn(2, 3, 32, 32))
    assert copied.view_average.masks.layers[0].number is not None
    assert model.view_average.masks.layers[0].number is None
    assert copied.view_average.masks.net is copied.net
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval().log_probabilities(images), copied.eval().log_probabilities(images))
