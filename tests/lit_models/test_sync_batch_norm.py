"""BatchNorm over the batches of two processes against BatchNorm over both together."""

import copy

import pytest
import torch
from torch import nn

from lit_models.nets.sync_batch_norm import SyncBatchNorm2d, is_synchronised, sync_batch_norms
from tests.ranks import run_ranks

CPU = torch.device("cpu")


def make_net(**arguments):
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(5, **arguments)
    if norm.weight is not None:
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return nn.Sequential(nn.Conv2d(3, 5, 3), norm, nn.Tanh(), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)).double()


def passes(net, images, targets):
    """Output, gradients of the images and of all parameters, and buffers after two forward passes."""
    images = images.clone().requires_grad_()
    net(images)
    output = net(images)
    (output * targets).sum().backward()
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {"output": output.detach(), "images": images.grad, "grads": grads, "buffers": dict(net.named_buffers())}


ARGUMENTS = [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.3, "momentum": 0.4}]


@pytest.mark.parametrize("shares", [(4, 4), (1, 6)])
def test_two_processes_equal_one_on_the_whole_batch(tmp_path, shares):
    torch.manual_seed(0)
    images, targets = 1 + torch.randn(sum(shares), 3, 7, 6).double(), torch.randn(sum(shares), 4, 3, 2).double()
    images = images.to(memory_format=torch.channels_last)
    whole = [passes(make_net(**arguments), images, targets) for arguments in ARGUMENTS]

    def work(rank):
        mine = torch.split(images, shares)[rank], torch.split(targets, shares)[rank]
        found = []
        for arguments in ARGUMENTS:
            net = make_net(**arguments)
            assert sync_batch_norms(net, CPU) == 2
            found.append(passes(net, *mine))
        return found

    ranks = run_ranks(work, tmp_path)
    for one, two in zip(whole, zip(*ranks, strict=True), strict=True):
        close = {"rtol": 0, "atol": 1e-12}
        for name in ("output", "images"):
            torch.testing.assert_close(torch.cat([rank[name] for rank in two]), one[name], **close)
            assert two[0]["images"].is_contiguous(memory_format=torch.channels_last)
        for name, grad in one["grads"].items():
            torch.testing.assert_close(sum(rank["grads"][name] for rank in two), grad, rtol=1e-12, atol=1e-12)
        for name, buffer in one["buffers"].items():
            assert torch.equal(two[0]["buffers"][name], two[1]["buffers"][name])
            torch.testing.assert_close(two[0]["buffers"][name], buffer, **close)


@pytest.mark.parametrize("precision", ["autocast", "bfloat16", "float32"])
def test_lower_precision_is_as_near_as_one_process(tmp_path, precision):
    """To the outputs and gradients of float64; by as much as one process with the same precision, or twice that."""
    torch.manual_seed(0)
    images, targets = torch.randn(8, 3, 9, 9), torch.randn(8, 4, 5, 5)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32

    def passes_in_precision(net, images, targets):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            found = passes(net.to(dtype), images.to(dtype), targets.to(dtype))
        return torch.cat([found["output"].double().mean((0, 2, 3)), found["grads"]["0.weight"].double().flatten()])

    def work(rank):
        net = make_net()
        sync_batch_norms(net, CPU)
        return passes_in_precision(net, images.chunk(2)[rank], targets.chunk(2)[rank])

    exact = passes(make_net(), images.double(), targets.double())["grads"]["0.weight"].flatten()
    one = passes_in_precision(make_net(), images, targets)[4:]
    ranks = run_ranks(work, tmp_path)
    assert ((sum(ranks)[4:] - exact).norm() <= 2 * (one - exact).norm() + 1e-7 * exact.norm()).item()


def test_names_parameters_hooks_and_copies_stay():
    net, seen = make_net(), []
    before, keys = list(net.parameters()), list(net.state_dict())
    net[1].register_forward_hook(lambda *_: seen.append(1))
    assert sync_batch_norms(net, CPU) == 2 == sync_batch_norms(net, CPU)
    assert list(net.state_dict()) == keys
    assert all(one is other for one, other in zip(net.parameters(), before, strict=True))
    copied = copy.deepcopy(net)
    assert isinstance(copied[1], SyncBatchNorm2d)
    net(torch.randn(2, 3, 8, 8).double())
    assert seen


def test_in_one_process_and_in_evaluation_they_are_batch_norms_as_before():
    net, other, images = make_net(), make_net(), torch.randn(4, 3, 8, 8).double()
    sync_batch_norms(net, CPU)
    for mode in (True, False):
        assert torch.equal(net.train(mode)(images), other.train(mode)(images))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


def test_frozen_batch_norms_stay():
    net = make_net()
    net[1].requires_grad_(False).eval()
    assert sync_batch_norms(net, CPU) == 1
    assert type(net[1]) is nn.BatchNorm2d and is_synchronised(net[4])


def test_for_cuda_they_are_pytorchs():
    net = make_net()
    parameters = list(net.parameters())
    assert sync_batch_norms(net, torch.device("cuda")) == 2
    assert type(net[1]) is nn.SyncBatchNorm
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))


@pytest.mark.slow  # timm takes two seconds to import
def test_timms_batch_norm_drops_out_and_activates_as_before(tmp_path):
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    def make():
        return nn.Sequential(BatchNormAct2d(3, act_layer=nn.Tanh)).double()

    torch.manual_seed(0)
    images, targets = torch.randn(6, 3, 4, 4).double(), torch.randn(6, 3, 4, 4).double()
    whole = passes(make(), images, targets)

    def work(rank):
        net = make()
        assert sync_batch_norms(net, CPU) == 1
        return passes(net, images.chunk(2)[rank], targets.chunk(2)[rank])

    ranks = run_ranks(work, tmp_path)
    for name in ("output", "images"):
        torch.testing.assert_close(torch.cat([rank[name] for rank in ranks]), whole[name], rtol=0, atol=1e-12)
    net = make()
    assert sync_batch_norms(net, torch.device("cuda")) == 1 and type(net[0]) is SyncBatchNormAct
