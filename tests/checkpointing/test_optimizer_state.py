"""State that an optimizer has written is accepted, whatever its class; missing state and other shapes are not."""

import copy
from functools import partial

import pytest
import timm.optim
import torch
from torch import Tensor, nn

from checkpointing.optimizer_state import KNOWN, count_states, refuse_other_optimizer_state
from errors import UserError

TORCH = ["ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam"]
TORCH += ["RMSprop", "Rprop", "SGD", "SparseAdam"]
TIMM = [
    "Adafactor",
    "AdafactorBigVision",
    "Adan",
    "AdaBelief",
    "AdamP",
    "Adopt",
    "Kron",
    "LaProp",
    "Lamb",
    "Lars",
    "Lion",
]
TIMM += ["MADGRAD", "Mars", "Muon", "NvNovoGrad", "RMSpropTF", "SGDW"]
OPTIONS = {
    (torch.optim, "SGD"): {"momentum": 0.9},
    (torch.optim, "Adam"): {"amsgrad": True},
    (torch.optim, "RMSprop"): {"centered": True, "momentum": 0.9},
    (timm.optim, "Lars"): {"momentum": 0.9},
}


def make_net() -> nn.Module:
    """A net with kernels, biases and single weights, and a parameter that never has a gradient."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.Flatten(), nn.Linear(16, 1))
    layers.register_parameter("unused", nn.Parameter(torch.ones(3)))
    return layers


def make_optimizer(module, name: str, net: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    parameters = [each for each in net.parameters() if name != "Muon" or module is timm.optim or each.ndim == 2]
    return getattr(module, name)(parameters, lr=lr, **OPTIONS.get((module, name), {}))


def take_steps(optimizer: torch.optim.Optimizer, net: nn.Module, sparse: bool = False) -> dict:
    """The state after two steps."""

    def loss() -> Tensor:
        optimizer.zero_grad()
        result = net(torch.ones(2, 3, 4, 4)).square().mean()
        result.backward()
        for parameter in net.parameters():
            if sparse and parameter.grad is not None:
                parameter.grad = parameter.grad.to_sparse()
        return result

    for _ in range(2):
        optimizer.step(loss)
    return copy.deepcopy(optimizer.state_dict())


CLASSES = [(torch.optim, name) for name in TORCH] + [(timm.optim, name) for name in TIMM]


@pytest.mark.parametrize(("module", "name"), CLASSES, ids=[f"{each.__name__}.{name}" for each, name in CLASSES])
def test_the_state_of_every_optimizer_is_accepted_and_refused_without_a_parameter(module, name):
    if not hasattr(module, name):
        pytest.skip(f"this version has no {name}")
    net = make_net()
    state = take_steps(make_optimizer(module, name, net), net, sparse=name == "SparseAdam")
    fresh = make_optimizer(module, name, net)
    check = partial(refuse_other_optimizer_state, [fresh], [state], 2, "last.ckpt", count_states([state]))
    check()
    refuse_other_optimizer_state([fresh], [state], 2, "last.ckpt")  # of version 0.1
    state["state"].pop(next(iter(state["state"])))
    with pytest.raises(UserError, match=r"last\.ckpt cannot be resumed"):
        check()


@pytest.mark.parametrize("name", sorted(each.__name__ for each in KNOWN))
def test_another_shape_or_a_missing_tensor_of_a_known_optimizer_is_refused(name):
    net = make_net()
    good = take_steps(make_optimizer(torch.optim, name, net), net)
    for key, value in good["state"][1].items():
        for other in (torch.ones(2, 2), "a", None):
            if not isinstance(value, Tensor):
                continue
            state = copy.deepcopy(good)
            if other is None:
                del state["state"][1][key]
            else:
                state["state"][1][key] = other
            with pytest.raises(UserError, match=f"parameter 1.*{key}|{key} of parameter 1"):
                refuse_other_optimizer_state([make_optimizer(torch.optim, name, net)], [state], 2, "last.ckpt")


def test_no_state_at_all_is_refused_without_a_count_too_unless_none_was_kept():
    net = make_net()
    for options, refused in (({"momentum": 0.9}, True), ({}, False)):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, **options)
        state = optimizer.state_dict()
        refuse_other_optimizer_state([optimizer], [state], 2, "last.ckpt", [0])  # no step of mixed precision was taken
        if refused:
            with pytest.raises(UserError, match="no momentum or other state of SGD after 2 steps"):
                refuse_other_optimizer_state([optimizer], [state], 2, "last.ckpt")
        else:
            refuse_other_optimizer_state([optimizer], [state], 2, "last.ckpt")


def test_an_optimizer_of_another_library_that_keeps_nothing_is_accepted():
    net = make_net()
    state = take_steps(timm.optim.Lars(net.parameters(), lr=0.1), net)
    assert not state["state"]
    for counts in (None, count_states([state])):
        refuse_other_optimizer_state([timm.optim.Lars(net.parameters(), lr=0.1)], [state], 2, "last.ckpt", counts)


def test_groups_with_settings_of_their_own_and_a_learning_rate_that_is_no_fraction_at_first():
    net = make_net()

    def make() -> torch.optim.Optimizer:
        groups = [{"params": [net[0].weight], "amsgrad": True}, {"params": [net[4].weight]}]
        return torch.optim.Adam(groups, lr=1)

    state = take_steps(make(), net)
    for group in state["param_groups"]:
        group["lr"] = 0.5
    refuse_other_optimizer_state([make()], [state], 2, "last.ckpt", count_states([state]))
