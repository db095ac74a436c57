"""VGG nets: Table 1 of arXiv 1409.1556, torchvision's weights, initialisation, the staged start from A."""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from datamodules import Digits
from errors import UserError
from lit_models import LitVGG
from lit_models.nets import vgg
from lit_models.nets.vgg import BLOCKS, VGG
from tests.conftest import HOME

SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9)

# variant: parameters, with BatchNorm, G multiply-adds at 224 px; and parameters of the CIFAR form for 10 classes
COUNTS = {
    "A": (132_863_336, 132_868_840, 7.6091, 9_750_922),
    "A-LRN": (132_863_336, 132_868_840, 7.6091, 9_750_922),
    "B": (133_047_848, 133_053_736, 11.3085, 9_935_434),
    "C": (133_638_952, 133_647_400, 11.7709, 10_526_538),
    "D": (138_357_544, 138_365_992, 15.4703, 15_245_130),
    "E": (143_667_240, 143_678_248, 19.6321, 20_554_826),
}
TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
CONFIGS = {
    "vgg_a": "A",
    "vgg_a_lrn": "A-LRN",
    "vgg_b": "B",
    "vgg_c": "C",
    "vgg_d": "D",
    "vgg_e": "E",
}


def small(variant="A", batch_norm=False, init="glorot"):
    """A net for 32 px images of ten classes."""
    return VGG(10, variant, batch_norm, "cifar", init)


def large(variant, batch_norm=False):
    """A net for images of ImageNet."""
    return VGG(1000, variant, batch_norm, "imagenet", "glorot")


def lit(variant="A", **kwargs):
    return LitVGG(10, variant=variant, head="cifar", optimizer=SGD, **kwargs)


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("variant", COUNTS)
def test_parameters_and_multiply_adds_are_those_of_the_paper(variant):
    plain, with_norm, operations, cifar = COUNTS[variant]
    with torch.device("meta"):
        net = large(variant).eval()
        assert (count(net), count(large(variant, batch_norm=True)), count(small(variant))) == (
            plain,
            with_norm,
            cifar,
        )
        with FlopCounterMode(display=False) as flops:
            assert net(torch.empty(1, 3, 224, 224)).shape == (1, 1000)
    assert flops.get_total_flops() / 2 == pytest.approx(operations * 1e9, rel=1e-3)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("variant", TORCHVISION)
def test_torchvisions_weights_give_torchvisions_logits(variant, batch_norm):
    theirs = getattr(torchvision.models, TORCHVISION[variant] + ("_bn" if batch_norm else ""))()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # else the running statistics are 0 and 1 on both sides
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    with torch.device("meta"):
        ours = large(variant, batch_norm)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    images = torch.randn(2, 3, 64, 64)
    expected = theirs.eval()(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours.eval()(images), expected, rtol=0, atol=0)


def kinds(variant, **kwargs):
    """The layers of a net in a word each: its kind, and a convolution's channels and kernel."""
    with torch.device("meta"):
        net = small(variant, **kwargs)
    return [
        f"{layer.out_channels}x{layer.kernel_size[0]}" if isinstance(layer, nn.Conv2d) else type(layer).__name__
        for layer in net.features
    ]


def test_parameters_of_a_narrow_net_by_hand():
    """A quarter of the channels and units of A: 16, 32, 64, 128, 128; 128."""
    channels = [3, 16, 32, 64, 64, 128, 128, 128, 128]
    convolutions = sum(9 * a * b + b for a, b in pairwise(channels))
    units = (128 * 128 + 128) * 2 + 128 * 10 + 10
    with torch.device("meta"):
        net = VGG(10, "A", False, "cifar", "glorot", width=0.25)
        assert count(net) == convolutions + units
        assert net.state_dict().keys() == small().state_dict().keys()
        with pytest.raises(ValueError, match="width is 0: it must be above 0"):
            VGG(10, "A", False, "cifar", "glorot", width=0)


@pytest.mark.parametrize("variant", BLOCKS)
def test_the_share_of_the_fully_connected_layers(variant):
    """The paper's three layers, 25088 x 4096, 4096 x 4096 and 4096 x 1000 with biases, against one of 512 x 1000."""
    fully_connected = 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    with torch.device("meta"):
        averaged = VGG(1000, variant, False, "average", "glorot")
    convolutions = COUNTS[variant][0] - fully_connected
    assert count(averaged) == convolutions + 512 * 1000 + 1000
    assert 0.86 < fully_connected / COUNTS[variant][0] < 0.94
    assert [type(layer) for layer in averaged.classifier] == [nn.Linear]


def test_the_1x1_convolutions_of_c_end_its_last_three_blocks():
    convolutions = [kind for kind in kinds("C") if kind[0].isdigit()]
    assert convolutions == (
        ["64x3", "64x3", "128x3", "128x3", "256x3", "256x3", "256x1"] + ["512x3", "512x3", "512x1"] * 2
    )
    with torch.device("meta"):
        maps = small("C").features(torch.empty(1, 3, 224, 224))
    assert maps.shape == (1, 512, 7, 7)


def test_a_lrn_normalises_as_alexnet_after_its_first_relu():
    assert kinds("A-LRN")[:4] == ["64x3", "ReLU", "LocalResponseNorm", "MaxPool2d"]
    assert kinds("A-LRN").count("LocalResponseNorm") == 1 and "LocalResponseNorm" not in kinds("A")
    assert [kind for kind in kinds("A-LRN") if kind != "LocalResponseNorm"] == kinds("A")
    norm = small("A-LRN").features[2]
    x = torch.rand(1, 64, 2, 2) * 20
    # AlexNet, section 3.3: k + alpha * the sum (not the mean) of the squares of five neighbouring channels
    padded = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    total = sum(padded[:, i : i + 64] for i in range(5))
    torch.testing.assert_close(norm(x), x / (2 + 1e-4 * total) ** 0.75)


def test_batch_norm_stands_before_each_relu():
    assert kinds("A-LRN", batch_norm=True)[:5] == ["64x3", "BatchNorm2d", "ReLU", "LocalResponseNorm", "MaxPool2d"]
    assert kinds("E", batch_norm=True).count("BatchNorm2d") == 16


def test_dropout_stands_after_the_first_two_fully_connected_layers():
    names = ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [type(layer).__name__ for layer in small().classifier] == names
    assert [layer.p for layer in small().classifier if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("variant", BLOCKS)
def test_every_parameter_gets_a_gradient(variant, batch_norm):
    model = lit(variant, batch_norm=batch_norm)
    model.loss(model(torch.randn(2, 3, 32, 32)), torch.tensor([3, 7])).backward()
    for name, parameter in model.net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("variant", BLOCKS)
def test_imagenet_form_trains_at_its_smallest_and_its_native_size(variant, size):
    model = LitVGG(1000, variant=variant, optimizer=SGD)
    loss = model.loss(model(torch.randn(2, 3, size, size)), torch.tensor([1, 2]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1000), abs=1.5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("variant", ["A-LRN", "C"])
def test_evaluation_repeats_itself_and_training_drops(variant):
    model, images = lit(variant).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        again = lit(variant).eval()
        assert not torch.equal(model(images), again(images))
        again.load_state_dict(model.state_dict())
        assert torch.equal(model(images), again(images))
        model.train()
        assert not torch.equal(model(images), model(images))


def test_a_lrn_in_channels_last_bfloat16_and_compiled():
    model, images = lit("A-LRN").eval(), torch.randn(2, 3, 32, 32)
    contiguous = lit("A-LRN", channels_last=False).eval()
    contiguous.load_state_dict(model.state_dict())
    with torch.no_grad():
        plain = model(images)
        torch.testing.assert_close(contiguous(images), plain, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(images).float(), plain, rtol=0.1, atol=0.1 * plain.std().item())
        model.net.compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(model(images), plain)


@pytest.mark.parametrize("head", ["imagenet", "cifar", "average"])
def test_sizes_below_32_px_are_refused(head):
    with torch.device("meta"):
        model = LitVGG(10, variant="A", head=head, optimizer=SGD).eval()
        assert model(torch.empty(1, 3, 32, 32)).shape == (1, 10)
        assert model(torch.empty(1, 3, 96, 64)).shape == (1, 10)
        with pytest.raises(ValueError, match=r"images of 31 px .* at least 32 px"):
            model(torch.empty(1, 3, 31, 31))
        with pytest.raises(RuntimeError):  # not a limit of ours alone
            model.net(torch.empty(1, 3, 31, 31))


def test_wrong_arguments():
    for arguments, message in (
        ({"variant": "F"}, r"variant F is no column .*: choose one of A, A-LRN, B, C, D, E\."),
        ({"head": "mnist"}, r"head mnist is no head of VGG: choose one of imagenet, cifar, average\."),
        ({"init": "he"}, r"init he is no init of VGG: choose one of glorot, normal\."),
    ):
        with torch.device("meta"), pytest.raises(ValueError, match=message):
            LitVGG(10, optimizer=SGD, **arguments)


# Initialisation: does a signal arrive, and does it return?


def first_step(net, size=32):
    """The deviation of the logits between images, the loss, and each layer's gradient relative to its weights."""
    images = F.interpolate(torch.randn(4, 3, 8, 8), size=size, mode="bilinear")
    logits = net.eval()(images / images.std())
    loss = F.cross_entropy(logits, torch.arange(4))
    loss.backward()
    ratios = [(p.grad.norm() / p.norm()).item() for p in net.parameters() if p.ndim > 1]
    return logits.std(0).mean().item(), loss.item(), ratios


@pytest.mark.parametrize("variant", ["A", "C", "E"])
def test_glorot_neither_vanishes_nor_explodes(variant):
    torch.manual_seed(0)
    spread, loss, ratios = first_step(small(variant))
    assert 0.001 < spread < 1
    assert loss == pytest.approx(math.log(10), abs=0.4)
    assert min(ratios) > 0.003 and max(ratios) / min(ratios) < 50


def test_the_papers_deviation_of_001_vanishes_in_e():
    torch.manual_seed(0)
    spread, loss, ratios = first_step(small("E", init="normal"))
    assert spread < 1e-6 and max(ratios) < 1e-4 and loss == pytest.approx(math.log(10), abs=1e-3)


@pytest.mark.slow
def test_e_starts_at_ln_1000():
    torch.manual_seed(0)
    spread, loss, ratios = first_step(large("E"), size=224)
    assert 0.01 < spread < 1 and loss == pytest.approx(math.log(1000), abs=0.2) and min(ratios) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("init", "leaves"), [("glorot", True), ("normal", False)])
def test_e_leaves_ln_k_from_glorot_without_a_staged_start(init, leaves, monkeypatch):
    """The recipe's optimizer on real digits; all layers of E, a quarter as wide."""
    monkeypatch.setattr(vgg, "WIDTHS", (16, 32, 64, 128, 128))
    monkeypatch.setattr(vgg, "HEADS", {"cifar": (1, 128)})
    data = Digits(batch_size=64)
    data.load("fit")
    torch.manual_seed(0)
    images = (data.train_set.images.float() / 255 - 0.305) / 0.324
    net = small("E", init=init)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    losses = []
    for _ in range(100):
        chosen = torch.randint(len(images), (64,))
        loss = F.cross_entropy(net(images[chosen]), data.train_set.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(10), abs=0.1)
    # A plain net this deep may fall back once: what it reached counts, and not what a single batch gave
    lowest = min(sum(losses[k : k + 20]) / 20 for k in range(0, 100, 20))
    assert lowest < 2 if leaves else lowest > 2.28


def test_weights_are_drawn_as_documented():
    glorot, normal = small("D"), small("D", init="normal")
    conv = glorot.features[17]  # conv4_1: 256 to 512 channels
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 * 2 / (9 * (256 + 512))), rel=0.02)
    assert glorot.classifier[0].weight.std().item() == pytest.approx(math.sqrt(2 / (512 + 512)), rel=0.02)
    assert glorot.classifier[6].weight.std().item() == pytest.approx(math.sqrt(2 / (512 + 10)), rel=0.05)
    for layer in (normal.features[17], normal.classifier[0], normal.classifier[6]):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
    for net in (glorot, normal):
        assert all(m.bias.abs().sum() == 0 for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))


# The staged start from A: places in `features`, A's and the deeper net's, of conv1_1, conv2_1, conv3_1 and conv3_2

STAGED = {0: 0, 3: 5, 6: 10, 8: 12}
STAGED_WITH_NORM = {0: 0, 1: 1, 4: 7, 5: 8, 8: 14, 9: 15, 11: 17, 12: 18}


@pytest.fixture
def trained_a(tmp_path):
    """A's weights on disk, all of them other than at the start of any net: biases too."""

    def save(name="a.pth", **kwargs):
        net = small("A", **kwargs)
        state = {
            key: torch.randn_like(value) if value.is_floating_point() else value
            for key, value in net.state_dict().items()
        }
        path = tmp_path / name
        if name.endswith("safetensors"):
            save_file(state, path)
        else:
            torch.save(
                {"state_dict": {f"net.{k}": v for k, v in state.items()}} if name.endswith("ckpt") else state, path
            )
        return path, state

    return save


def assert_staged(model, state, places):
    """Exactly the layers at these places, and the fully connected ones, are A's."""
    sources = {f"features.{ours}": f"features.{theirs}" for theirs, ours in places.items()}
    sources |= {f"classifier.{k}": f"classifier.{k}" for k in (0, 3, 6)}
    of_a = [value for value in state.values() if value.ndim]
    for name, value in model.net.state_dict().items():
        place, _, part = name.rpartition(".")
        if place in sources and value.ndim:
            assert torch.equal(value, state[f"{sources[place]}.{part}"]), name
        elif value.ndim:
            assert not any(v.shape == value.shape and torch.equal(v, value) for v in of_a), name


@pytest.mark.parametrize("variant", ["B", "C", "D", "E"])
def test_staged_start_takes_the_layers_of_the_same_block_and_position(trained_a, variant):
    path, state = trained_a()
    assert_staged(lit(variant, init_from=str(path)), state, STAGED)


def test_staged_start_takes_the_norms_of_its_convolutions(trained_a):
    path, state = trained_a(batch_norm=True)
    assert_staged(lit("D", batch_norm=True, init_from=str(path)), state, STAGED_WITH_NORM)


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_staged_start_from_other_files(trained_a, name):
    path, state = trained_a(name)
    model = lit("B", init_from=str(path))
    assert torch.equal(model.net.features[5].weight, state["features.3.weight"])
    assert "init_from" not in model.hparams  # a checkpoint is loaded where A's file is gone


def test_staged_start_of_narrow_nets_with_an_average_head(tmp_path):
    torch.manual_seed(1)
    form = {"head": "average", "width": 0.125, "optimizer": SGD}
    trained = LitVGG(10, variant="A", **form).net.state_dict()
    torch.save(trained, tmp_path / "a.pth")
    started = LitVGG(10, variant="D", init_from=str(tmp_path / "a.pth"), **form).net.state_dict()
    for ours, theirs in (("features.0", "features.0"), ("features.5", "features.3"), ("classifier.0", "classifier.0")):
        assert torch.equal(started[f"{ours}.weight"], trained[f"{theirs}.weight"]), ours


def test_staged_start_survives_the_surgery_that_draws_weights(trained_a):
    path, state = trained_a()
    model = lit("B", init_from=str(path), activation="selu")
    assert_staged(model, state, STAGED)


def test_staged_start_for_other_classes_keeps_the_last_layer(trained_a, caplog):
    path, state = trained_a()
    model = LitVGG(7, variant="D", head="cifar", init_from=str(path), optimizer=SGD)
    assert model.net.classifier[6].weight.shape == (7, 512)
    assert torch.equal(model.net.classifier[3].weight, state["classifier.3.weight"])
    assert "another number of classes than 7: fc8 keeps its random weights" in caplog.text


def test_staged_start_from_what_is_no_such_a(trained_a, tmp_path):
    plain, normed = trained_a()[0], trained_a("bn.pth", batch_norm=True)[0]
    torch.save(small("D").state_dict(), tmp_path / "d.pth")
    for path, arguments, message in (
        (tmp_path / "d.pth", {}, r"d\.pth does not hold a VGG A .*same batch_norm, head"),
        (plain, {"batch_norm": True}, "does not hold a VGG A"),
        (normed, {}, "does not hold a VGG A"),
        (normed, {"batch_norm": True, "norm": "none"}, "does not hold a VGG A"),
        (plain, {"variant": "A"}, "--model.weights"),
        (plain, {"variant": "A-LRN"}, "--model.weights"),
        (plain, {"weights": "w.pth"}, "leave one of them out"),
    ):
        with pytest.raises(ValueError, match=message):
            lit(init_from=str(path), **{"variant": "D", **arguments})
    with torch.device("meta"), pytest.raises(ValueError, match="does not hold a VGG A"):
        LitVGG(10, variant="D", init_from=str(plain), optimizer=SGD)  # the ImageNet head
    with pytest.raises(UserError, match="nowhere.pth"):
        lit("D", init_from="nowhere.pth")


# Surgery


def test_norm_is_swapped_where_there_is_one():
    net = lit("A", batch_norm=True, norm="group").net
    assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len([m for m in net.modules() if isinstance(m, nn.GroupNorm)]) == 8
    with pytest.raises(ValueError, match="VGG has no norm to swap"):
        lit("A-LRN", norm="group")  # LRN has neither gamma nor beta


@pytest.mark.parametrize(("activation", "kind"), [("selu", nn.SELU), ("leaky_relu", nn.LeakyReLU)])
def test_activation_and_dropout_are_swapped(activation, kind):
    net = lit("A", activation=activation, dropout=0.2).net
    assert not [m for m in net.modules() if isinstance(m, nn.ReLU)]
    assert len([m for m in net.modules() if isinstance(m, kind)]) == 10
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout | nn.AlphaDropout)] == [0.2, 0.2]


# Recipes


@pytest.mark.parametrize("name", CONFIGS)
def test_the_papers_recipe(name):
    config = yaml.safe_load(Path(HOME / "configs" / "imagenet" / f"{name}.yaml").read_text())
    model = config["model"]["init_args"]
    assert model["variant"] == CONFIGS[name]
    assert model["optimizer"]["init_args"] == {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    plateau = model["lr_scheduler"]["init_args"]
    assert plateau["monitor"] == "val/top1_error" and plateau["factor"] == 0.1
    assert plateau["min_lr"] == pytest.approx(0.01 * plateau["factor"] ** 3)
    assert config["trainer"] == {"max_epochs": 74}
    assert config["data"]["init_args"]["batch_size"] == 256
    # S = 256; 224 px are the data module's default
    assert config["data"]["init_args"]["augmentation"] == {"shorter_side": [256, 256], "lighting": 0.1}
