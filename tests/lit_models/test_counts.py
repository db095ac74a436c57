import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lit_models.counts import Counts, count_used, layers_by_depth
from reports.papers.architectures import ARCHITECTURES

BY_NAME = {row.name: row for row in ARCHITECTURES}


@pytest.mark.parametrize(
    "name", ["cifar_resnet20", "googlenet_torchvision", "cifar_densenet_bc_100_12", "shake_shake_26_2x32d"]
)
def test_multiply_adds_are_those_of_torchs_counter(name):
    net = BY_NAME[name].build().eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, BY_NAME[name].size, BY_NAME[name].size, device="meta"))
    assert count_used(net, BY_NAME[name].size).multiply_adds == counter.get_total_flops() // 2


class WithHead(nn.Module):
    """A net with an auxiliary head, and a layer that stands in two places."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 9)
        self.dropout = nn.Dropout()

    def forward(self, images):
        pooled = self.fc(self.fc(self.dropout(self.conv(images).mean((2, 3)))))
        return (pooled, self.head(pooled)) if self.training else pooled


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_may_be_of_any_precision(dtype):
    assert count_used(WithHead().to(dtype), 6) == count_used(WithHead(), 6)


def test_heads_that_only_training_uses_do_not_count_and_the_net_stays_as_it_is():
    net = WithHead()
    net.dropout.eval()
    before = {name: (each, each.clone()) for name, each in net.named_parameters()}
    state = torch.get_rng_state()
    assert count_used(net, 6) == Counts(3 * 4 * 9 + 4 + 16 + 4, 4 * 4 * (4 * 27) + 2 * 16)
    assert [net.training, net.conv.training, net.dropout.training] == [True, True, False]
    for name, each in net.named_parameters():
        assert each is before[name][0] and torch.equal(each, before[name][1])
    assert torch.equal(torch.get_rng_state(), state) and not net.conv._forward_hooks


def test_layers_stand_in_the_order_of_the_forward_pass_and_a_shared_weight_counts_once():
    net = WithHead()
    net.again = nn.Linear(4, 4)
    net.again.weight = net.fc.weight
    before, net.dropout = net.dropout, nn.Sequential(net.again, net.dropout)
    assert list(layers_by_depth(net, 6)) == ["conv", "dropout.0", "fc"] and before.training
    assert count_used(net, 6).parameters == 3 * 4 * 9 + 4 + 16 + 4 + 4
    assert net.again.weight is net.fc.weight and not any(each.is_meta for each in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_the_last_layer_is_the_classifier(name):
    layers = layers_by_depth(BY_NAME[name].build(), BY_NAME[name].size)
    *_, last = layers.values()
    assert (last.out_features if isinstance(last, nn.Linear) else last.out_channels) in (10, 100, 1000)
    assert next(iter(layers.values())).weight.shape[1] == 3
