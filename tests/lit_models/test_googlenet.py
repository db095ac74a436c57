"""GoogLeNet: the paper's, with batch normalisation, and torchvision's."""

from functools import partial

import pytest
import torch
import torchvision
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lit_models import LitGoogLeNet
from lit_models.nets.googlenet import GoogLeNet
from lit_models.nets.inception import TorchvisionGoogLeNet
from tests.conftest import HOME
from tests.families import scramble

SGD = partial(torch.optim.SGD, lr=0.01)
VARIANTS = ["paper", "batch_norm", "torchvision"]
# Table 1 of the paper, weights without biases, as they follow from its filters
ROWS = {
    "3a": 163_328,
    "3b": 388_096,
    "4a": 375_552,
    "4b": 448_512,
    "4c": 509_440,
    "4d": 604_672,
    "4e": 867_328,
    "5a": 1_042_432,
    "5b": 1_442_816,
}


def build(variant, classes=10, **arguments):
    torch.manual_seed(0)
    return LitGoogLeNet(classes, variant=variant, optimizer=SGD, **arguments)


def kinds(net, *types):
    return [module for module in net.modules() if isinstance(module, types)]


@pytest.mark.parametrize(
    ("variant", "plain", "with_heads"),
    [
        ("paper", 6_998_552, 13_378_280),
        ("batch_norm", 7_005_832, 13_385_816),
        ("torchvision", 6_624_904, 13_004_888),
    ],
)
def test_parameters(variant, plain, with_heads):
    with torch.device("meta"):
        nets = [build(variant, 1000, aux_weight=weight).net for weight in (0, 0.3)]
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [plain, with_heads]


@pytest.mark.parametrize(
    ("variant", "expected"), [("paper", 1.5827e9), ("batch_norm", 1.5827e9), ("torchvision", 1.4984e9)]
)
def test_multiply_adds(variant, expected):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(variant, 1000).eval()(torch.empty(1, 3, 224, 224))
    assert counter.get_total_flops() / 2 == pytest.approx(expected, rel=1e-3)


def test_every_row_of_table_1():
    with torch.device("meta"):
        net = GoogLeNet(1000, auxiliary=False)
    for row, count in ROWS.items():
        convolutions = kinds(net.get_submodule(f"inception{row}"), nn.Conv2d)
        assert sum(conv.weight.numel() for conv in convolutions) == count, row
    assert net.conv2.conv.weight.numel() + net.conv3.conv.weight.numel() == 114_688
    assert sum(conv.weight.numel() for conv in kinds(net, nn.Conv2d)) == 5_966_272


def test_what_the_paper_has_and_torchvision_has_not():
    with torch.device("meta"):
        net, normed = GoogLeNet(10), GoogLeNet(10, batch_norm=True)
    norms = kinds(net, nn.LocalResponseNorm)
    assert [(n.size, n.alpha, n.beta, n.k) for n in norms] == [(5, 1e-4, 0.75, 1)] * 2
    assert norms == [net.lrn1, net.lrn2] and not kinds(net, nn.BatchNorm2d)
    assert all(conv.bias is not None for conv in kinds(net, nn.Conv2d))
    assert net.inception3a.branch3[1].conv.kernel_size == (5, 5)
    for pool in (net.maxpool1, net.maxpool2, net.maxpool3, net.maxpool4):
        assert (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode) == (3, 2, 0, True)
    assert net.dropout.p == 0.4 and net.aux1.dropout.p == net.aux2.dropout.p == 0.7
    assert (net.aux1.avgpool.kernel_size, net.aux1.avgpool.stride) == (5, 3)
    assert not kinds(normed, nn.LocalResponseNorm) and all(conv.bias is None for conv in kinds(normed, nn.Conv2d))
    assert len(kinds(normed, nn.BatchNorm2d)) == len(kinds(normed, nn.Conv2d)) == 59


def test_the_stem_normalises_after_its_first_pool_and_before_its_second():
    net, order = GoogLeNet(10, auxiliary=False).eval(), []
    for name in ("conv1", "maxpool1", "lrn1", "conv2", "conv3", "lrn2", "maxpool2", "inception3a", "inception5b"):
        module = net.get_submodule(name)
        module.register_forward_hook(lambda _, __, out, name=name: order.append((name, *out.shape[1:3])))
    with torch.no_grad():
        net(torch.randn(1, 3, 224, 224))
    assert order == [
        ("conv1", 64, 112),
        ("maxpool1", 64, 56),
        ("lrn1", 64, 56),
        ("conv2", 64, 56),
        ("conv3", 192, 56),
        ("lrn2", 192, 56),
        ("maxpool2", 192, 28),
        ("inception3a", 256, 28),
        ("inception5b", 1024, 7),
    ]


@pytest.mark.parametrize("transform_input", [False, True])
def test_torchvisions_weights_give_torchvisions_logits(transform_input):
    torch.manual_seed(1)
    theirs = scramble(torchvision.models.GoogLeNet(transform_input=transform_input, init_weights=False)).eval()
    ours = build("torchvision", 1000, transform_input=transform_input, dropout=0.0).net.eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = theirs(images)
        torch.testing.assert_close(ours(images), logits, rtol=0, atol=1e-4)
        assert (logits[0] - logits[1]).abs().max() > 0.1
        expected, found = theirs.train()(images), ours.train()(images)
        torch.testing.assert_close(found.aux1, expected.aux_logits1, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.aux2, expected.aux_logits2, rtol=0, atol=1e-4)


def test_keys_are_torchvisions():
    with torch.device("meta"):
        theirs = TorchvisionGoogLeNet(10, True, "imagenet", False).state_dict()
        normed, paper = GoogLeNet(10, batch_norm=True).state_dict(), GoogLeNet(10).state_dict()
    assert set(normed) == set(theirs)
    differ = {name for name in theirs if theirs[name].shape != normed[name].shape}
    assert differ == {f"inception{row}.branch3.1.conv.weight" for row in ROWS}  # 5x5 for 3x3
    assert {name for name in paper if name.endswith("weight")} == {
        name for name in theirs if name.endswith("weight") and ".bn." not in name
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_heads_are_named_and_in_training_alone(variant):
    model = build(variant, stem="cifar")
    for number, head in enumerate((model.net.aux1, model.net.aux2), start=1):
        nn.init.zeros_(head.fc2.weight)
        nn.init.constant_(head.fc2.bias, number)
    images = torch.randn(2, 3, 32, 32)
    output = model.train()(images)
    assert output._fields == ("logits", "aux1", "aux2") and output.logits is output[0]
    assert (output.aux1 == 1).all() and (output.aux2 == 2).all() and output.logits.shape == (2, 10)
    assert model.aux_weights == {"aux1": 0.3, "aux2": 0.3}
    assert isinstance(model.eval()(images), torch.Tensor)
    plain = build(variant, stem="cifar", aux_weight=0)
    assert isinstance(plain.train()(images), torch.Tensor) and not plain.aux_weights
    assert not [name for name in plain.state_dict() if "aux" in name]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("imagenet", 223)])
def test_every_parameter_gets_a_gradient(variant, stem, size):
    model = build(variant, stem=stem).train()
    model.loss(model(torch.randn(2, 3, size, size)), torch.tensor([1, 2])).backward()
    for name, parameter in model.net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluation_is_deterministic_and_follows_from_the_state_dict(variant):
    model, images = build(variant, stem="cifar"), torch.randn(2, 3, 32, 32)
    model.train()(images)  # running statistics move
    other = LitGoogLeNet(10, variant=variant, stem="cifar", optimizer=SGD)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = model.eval()(images)
        assert torch.equal(logits, model(images))
        torch.testing.assert_close(other.eval()(images), logits)


@pytest.mark.parametrize(
    ("variant", "stem", "smallest"),
    [
        ("paper", "imagenet", 31),
        ("paper", "cifar", 8),
        ("batch_norm", "imagenet", 31),
        ("batch_norm", "cifar", 8),
        ("torchvision", "imagenet", 15),
        ("torchvision", "cifar", 4),
    ],
)
def test_smallest_image(variant, stem, smallest):
    model = build(variant, stem=stem, aux_weight=0).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, smallest, smallest)).shape == (1, 10)
        with pytest.raises(ValueError, match=f"at least {smallest} px"):
            model(torch.randn(1, 3, smallest, smallest - 1))
        with pytest.raises(RuntimeError):  # the limit is the net's own
            model.net(torch.randn(1, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize("variant", ["paper", "batch_norm"])
def test_the_papers_auxiliary_pool_takes_223_to_270_px(variant):
    with torch.device("meta"):
        model = build(variant)
        for size in (223, 270):
            assert model.train()(torch.empty(2, 3, size, size)).aux1.shape == (2, 10)
        for size in (222, 271):
            with pytest.raises(ValueError, match=f"{size} px in training: they must have between 223 and 270 px"):
                model(torch.empty(2, 3, size, size))
            with pytest.raises(RuntimeError):
                model.net(torch.empty(2, 3, size, size))
            assert model.eval()(torch.empty(2, 3, size, size)).shape == (2, 10)
            model.train()
        build(variant, aux_weight=0).input_size.check(222, training=True)
        build("torchvision").input_size.check(64, training=True)
        build(variant, stem="cifar").input_size.check(64, training=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "v2"}, "variant v2 is no GoogLeNet: choose one of paper, batch_norm, torchvision"),
        ({"stem": "mnist"}, "stem mnist is unknown: choose one of imagenet, cifar"),
        ({"stem": "mnist", "variant": "torchvision"}, "stem mnist is unknown"),
        ({"aux_weight": -0.3}, "aux_weight is -0.3: it must be at least 0"),
        ({"transform_input": True}, "transform_input is for torchvision's weights, not for variant paper"),
    ],
)
def test_wrong_arguments(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        LitGoogLeNet(10, optimizer=SGD, **arguments)


@pytest.mark.parametrize("variant", ["paper", "batch_norm"])
def test_surgery(variant):
    net = build(variant, stem="cifar", activation="selu", dropout=0.1).net
    assert not kinds(net, nn.ReLU) and len(kinds(net, nn.SELU)) == 59 + 2
    assert [layer.p for layer in kinds(net, nn.AlphaDropout)] == [0.1] * 3 and not kinds(net, nn.Dropout)
    net.train()(torch.randn(2, 3, 32, 32)).aux1.sum().backward()


@pytest.mark.parametrize(("norm", "kind", "count"), [("group", nn.GroupNorm, 59), ("none", nn.BatchNorm2d, 0)])
@pytest.mark.parametrize("variant", ["batch_norm", "torchvision"])
def test_surgery_of_the_norm(variant, norm, kind, count):
    net = build(variant, stem="cifar", norm=norm).net
    assert len(kinds(net, kind)) == count
    assert all((conv.bias is not None) == (norm == "none") for conv in kinds(net, nn.Conv2d))
    assert net.train()(torch.randn(2, 3, 32, 32)).aux2.shape == (2, 10)


def test_surgery_that_is_refused():
    with torch.device("meta"):
        with pytest.raises(ValueError, match="GoogLeNet has no norm to swap"):
            build("paper", norm="group")
        with pytest.raises(ValueError, match="calls a relu"):
            build("torchvision", activation="leaky_relu")
        assert {layer.p for layer in kinds(build("torchvision", dropout=0.3).net, nn.Dropout)} == {0.3}


def test_he_initialisation():
    net = GoogLeNet(10)
    weight = net.inception5b.branch2[1].conv.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 192)) ** 0.5, rel=0.02)
    assert net.aux1.fc2.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert all(layer.bias.abs().sum() == 0 for layer in kinds(net, nn.Conv2d, nn.Linear))


@pytest.mark.slow
@pytest.mark.parametrize("aux_weight", [0.0, 0.3])
def test_the_papers_network_learns_from_scratch(aux_weight):
    """Without batch normalisation 22 layers may stay at ln 10 = 2.30 for good."""
    from datamodules import Digits

    data = Digits(batch_size=32)
    data.load("fit")
    images = nn.functional.avg_pool2d(data.train_set.images.float() / 255, 2).sub(0.305).div(0.324)
    model = build("paper", stem="cifar", aux_weight=aux_weight).train()
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.004, momentum=0.9), []
    for _ in range(120):
        batch = torch.randint(len(images), (32,))
        output, labels = model(images[batch]), data.train_set.labels[batch]
        optimizer.zero_grad()
        model.loss(output, labels).backward()
        optimizer.step()
        losses.append(model.losses(output, labels)["main"].item())
    assert sum(losses[-20:]) / 20 < 1.5


@pytest.mark.parametrize("name", ["imagenet/googlenet", "imagenet/googlenet_batch_norm", "cifar10/googlenet"])
def test_the_recipe(name):
    config = yaml.safe_load((HOME / "configs" / f"{name}.yaml").read_text())
    model, trainer = config["model"]["init_args"], config["trainer"]
    optimizer, decay = model["optimizer"]["init_args"], trainer["callbacks+"][0]["init_args"]
    assert model["aux_weight"] == 0.3 and optimizer["momentum"] == 0.9
    if name == "imagenet/googlenet":
        assert model["variant"] == "paper" and trainer["max_epochs"] == 250
        assert optimizer == {"lr": 0.01, "momentum": 0.9, "weight_decay": 2e-4}  # BVLC's solver
        assert decay == {"step_size": 8, "gamma": 0.96} and config["data"]["init_args"]["batch_size"] == 32
    if name == "imagenet/googlenet_batch_norm":
        assert model["variant"] == "batch_norm" and model["dropout"] == 0
        assert optimizer["lr"] == pytest.approx(5 * 0.0015) and optimizer["weight_decay"] == pytest.approx(2e-4 / 5)
        assert decay["step_size"] == pytest.approx(8 / 6) and decay["gamma"] == 0.96
