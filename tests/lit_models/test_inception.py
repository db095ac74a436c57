"""Inception-v3, Inception-v4 and Inception-ResNet-v2."""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lit_models import LitInceptionResNetV2, LitInceptionV3, LitInceptionV4
from tests.conftest import HOME, TINY
from tests.families import scramble

SGD = partial(torch.optim.SGD, lr=0.01)
FAMILIES = {"v3": LitInceptionV3, "v4": LitInceptionV4, "resnet_v2": LitInceptionResNetV2}
ALL = pytest.mark.parametrize("name", FAMILIES)


def build(name, classes=10, **arguments):
    torch.manual_seed(0)
    return FAMILIES[name](classes, optimizer=SGD, **arguments)


def kinds(net, *types):
    return [module for module in net.modules() if isinstance(module, types)]


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("v3", {"aux_weight": 0}, 23_834_568),
        ("v3", {}, 27_161_264),
        ("v4", {}, 42_679_816),
        ("resnet_v2", {}, 55_843_464),
        ("v3", {"stem": "cifar"}, 27_161_264),
        ("v4", {"stem": "cifar"}, 42_679_816),
        ("resnet_v2", {"stem": "cifar"}, 55_843_464),
    ],
)
def test_parameters(name, arguments, count):
    with torch.device("meta"):
        net = build(name, 1000, **arguments).net
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize(("name", "expected"), [("v3", 5.7132e9), ("v4", 12.2540e9), ("resnet_v2", 13.1558e9)])
def test_multiply_adds(name, expected):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(name, 1000).eval()(torch.empty(1, 3, 299, 299))
    assert counter.get_total_flops() / 2 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("v3", lambda: torchvision.models.Inception3(init_weights=False)),
        ("v3", lambda: torchvision.models.Inception3(init_weights=False, transform_input=True)),
        ("v4", lambda: timm.create_model("inception_v4")),
        ("resnet_v2", lambda: timm.create_model("inception_resnet_v2")),
    ],
    ids=["v3", "v3_transform_input", "v4", "resnet_v2"],
)
def test_the_librarys_weights_give_the_librarys_logits(name, theirs):
    torch.manual_seed(1)
    theirs = scramble(theirs()).eval()
    arguments = {"transform_input": True} if getattr(theirs, "transform_input", False) else {}
    ours = build(name, 1000, **arguments).net.eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        logits = theirs(images)
        torch.testing.assert_close(ours(images), logits, rtol=0, atol=1e-4)
        assert (logits[0] - logits[1]).abs().max() > 0.01 * logits.abs().max()


def test_the_cifar_form_takes_the_published_weights_too():
    with torch.device("meta"):
        for name in FAMILIES:
            shapes = [
                {key: value.shape for key, value in build(name, 1000, stem=stem).net.state_dict().items()}
                for stem in ("imagenet", "cifar")
            ]
            assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("v3", {"Mixed_5d": 15, "Mixed_6e": 7, "Mixed_7c": 3}),
        ("v4", {"features.9": 15, "features.17": 7, "features.21": 3}),
        ("resnet_v2", {"repeat": 15, "repeat_1": 7, "repeat_2": 3}),
    ],
)
def test_modules_see_15_7_and_3_px_of_a_cifar_image(name, stages):
    sizes = {}
    with torch.device("meta"):
        net = build(name, stem="cifar").net.eval()
        for stage in stages:
            net.get_submodule(stage).register_forward_hook(
                lambda _, __, out, stage=stage: sizes.update({stage: out.shape[-1]})
            )
        net(torch.empty(1, 3, 32, 32))
    assert sizes == stages


def test_the_auxiliary_head_is_named_and_in_training_alone():
    model, images = build("v3", stem="cifar"), torch.randn(2, 3, 32, 32)
    nn.init.zeros_(model.net.AuxLogits.fc.weight)
    nn.init.constant_(model.net.AuxLogits.fc.bias, 7)
    output = model.train()(images)
    assert output._fields == ("logits", "aux") and output.logits.shape == (2, 10) and (output.aux == 7).all()
    assert model.aux_weights == {"aux": 0.4} and isinstance(model.eval()(images), torch.Tensor)


def test_no_auxiliary_head():
    with torch.device("meta"):
        plain = build("v3", stem="cifar", aux_weight=0)
        assert isinstance(plain.train()(torch.empty(2, 3, 32, 32)), torch.Tensor) and not plain.aux_weights
    assert not [key for key in plain.state_dict() if "Aux" in key]


@ALL
@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), pytest.param("imagenet", 299, marks=pytest.mark.slow)])
def test_every_parameter_gets_a_gradient(name, stem, size):
    model = build(name, stem=stem).train()
    model.loss(model(torch.randn(2, 3, size, size)), torch.tensor([1, 2])).backward()
    for key, parameter in model.net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@ALL
def test_evaluation_is_deterministic_and_follows_from_the_state_dict(name):
    model, images = build(name, stem="cifar"), torch.randn(2, 3, 32, 32)
    model.train()(images)  # running statistics move
    other = FAMILIES[name](10, stem="cifar", optimizer=SGD)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = model.eval()(images)
        assert torch.equal(logits, model(images))
        torch.testing.assert_close(other.eval()(images), logits)


@ALL
@pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 75), ("cifar", 15)])
def test_smallest_image(name, stem, smallest):
    with torch.device("meta"):
        model = build(name, stem=stem).eval()
        assert model(torch.empty(1, 3, smallest, smallest)).shape == (1, 10)
        with pytest.raises(ValueError, match=f"at least {smallest} px"):
            model(torch.empty(1, 3, smallest, smallest - 1))
        with pytest.raises(RuntimeError):  # the limit is the net's own
            model.net(torch.empty(1, 3, smallest - 1, smallest - 1))


def test_the_auxiliary_head_wants_299_px_in_training():
    with torch.device("meta"):
        model = build("v3").train()
        assert model(torch.empty(2, 3, 299, 299)).aux.shape == (2, 10)
        with pytest.raises(ValueError, match="298 px in training: they must have at least 299 px"):
            model(torch.empty(2, 3, 298, 298))
        with pytest.raises(RuntimeError):
            model.net(torch.empty(2, 3, 298, 298))
        plain = build("v3", aux_weight=0).train()
        assert plain(torch.empty(2, 3, 75, 75)).shape == (2, 10)
        build("v3", stem="cifar").input_size.check(32, training=True)


@ALL
def test_wrong_stem(name):
    with torch.device("meta"), pytest.raises(ValueError, match="stem mnist is unknown: choose one of imagenet, cifar"):
        build(name, stem="mnist")


def test_wrong_aux_weight():
    with pytest.raises(ValueError, match="aux_weight is -1: it must be at least 0"):
        build("v3", aux_weight=-1)


def test_inception_v3_starts_with_torchvisions_deviations():
    net = build("v3").net
    for layer, deviation in ((net.Mixed_7c.branch3x3dbl_2.conv, 0.1), (net.fc, 0.1), (net.AuxLogits.fc, 0.001)):
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.03)


def test_residuals_are_scaled():
    with torch.device("meta"):
        net = build("resnet_v2").net
    assert {block.scale for block in net.repeat} == {0.17}
    assert {block.scale for block in net.repeat_1} == {0.10}
    assert {block.scale for block in net.repeat_2} == {0.20}


def test_dropout():
    with torch.device("meta"):
        assert [layer.p for layer in kinds(build("v3").net, nn.Dropout)] == [0.5]
        for name in ("v4", "resnet_v2"):
            assert build(name).net.head_drop.p == 0.2
            assert build(name, dropout=0.6).net.head_drop.p == 0.6
        assert build("v3", dropout=0.2).net.dropout.p == 0.2


@pytest.mark.parametrize(("norm", "kind"), [("group", nn.GroupNorm), ("none", nn.BatchNorm2d)])
def test_inception_v3_takes_another_norm(norm, kind):
    with torch.device("meta"):
        net = build("v3", stem="cifar", norm=norm).net
        assert len(kinds(net, kind)) == (96 if norm == "group" else 0)
        assert len(kinds(net, nn.Conv2d)) == 96
        assert net.train()(torch.empty(2, 3, 32, 32)).aux.shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("v3", {"activation": "selu"}, "calls a relu"),
        ("v4", {"norm": "group"}, "BatchNormAct2d"),
        ("resnet_v2", {"norm": "none"}, "BatchNormAct2d"),
    ],
)
def test_surgery_that_is_refused(name, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build(name, **arguments)


@pytest.mark.parametrize("name", ["v4", pytest.param("resnet_v2", marks=pytest.mark.slow)])
def test_another_activation_reaches_every_layer(name):
    with torch.device("meta"):
        plain, swapped = build(name).net, build(name, activation="leaky_relu").net
    assert not kinds(swapped, nn.ReLU) and len(kinds(swapped, nn.LeakyReLU)) == len(kinds(plain, nn.ReLU)) > 100


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_the_recipe(name):
    config = recipe(name)
    optimizer = config["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "timm.optim.RMSpropTF"  # epsilon inside the root, as in TensorFlow
    assert {key: optimizer["init_args"][key] for key in ("lr", "alpha", "eps")} == {
        "lr": 0.045,
        "alpha": 0.9,
        "eps": 1.0,
    }
    decay, average, statistics = config["trainer"]["callbacks+"]
    assert statistics["class_path"] == "callbacks.PreciseBN"
    assert decay["init_args"] == {"step_size": 2, "gamma": 0.94}
    assert average["init_args"] == {"decay": 0.9999, "use_buffers": False}
    assert config["model"]["init_args"]["label_smoothing"] == 0.1 and config["data"]["init_args"]["size"] == 299
    if name == "inception_v3":
        assert config["trainer"]["gradient_clip_val"] == 2.0 and config["trainer"]["max_epochs"] == 100
        assert config["model"]["init_args"]["aux_weight"] == 0.4


def recipe(name):
    return yaml.safe_load((HOME / "configs" / "imagenet" / f"{name}.yaml").read_text())


def test_the_recipes_optimizer_clipping_and_average_on_a_small_net(run):
    """Its checkpoints hold the average, and beside it the weights that are trained; they test and resume."""
    config = recipe("inception_v3")
    config["model"] = {
        "class_path": "lit_models.LitResNet",
        "init_args": {"depth": 20, "optimizer": config["model"]["init_args"]["optimizer"]},
    }
    del config["data"]
    config["trainer"]["callbacks+"][1]["init_args"]["decay"] = 0.5  # for three epochs of four steps
    Path("averaged.yaml").write_text(yaml.safe_dump(config))
    run("fit", "--config", "averaged.yaml", "--run_name", "small/averaged", *TINY)
    checkpoint = torch.load("runs/small/averaged/version_0/checkpoints/last.ckpt", weights_only=True)
    average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert not torch.equal(average["net.conv1.weight"], current["net.conv1.weight"])
    assert not torch.equal(average["net.bn1.running_mean"], current["net.bn1.running_mean"])  # of its own
    assert average["net.bn1.num_batches_tracked"] == 12
    run("test", "--ckpt_path", "runs/small/averaged")
    run("fit", "--ckpt_path", "runs/small/averaged", "--trainer.max_epochs", "4")
    resumed = torch.load("runs/small/averaged/version_0/checkpoints/last.ckpt", weights_only=True)
    assert resumed["epoch"] == 3 and resumed["averaging_state"]["n_averaged"] == 16
