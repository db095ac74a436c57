"""What holds for every family, in a form for small images: a family of one's own is tested without a change here."""

import csv
import inspect
from functools import partial
from pathlib import Path

import pytest
import torch

import lit_models
from callbacks.precise_bn import update_bn_stats
from tests.conftest import DIGITS
from tests.families import (
    SMALL,
    experiment_arguments,
    find_families,
    make_images,
    parametrize_families,
    smallest_training_size,
)

# With the side of its native images
NETS = [
    pytest.param("LitVGG", {"variant": "A"}, 224, id="vgg_a"),
    pytest.param("LitGoogLeNet", {"variant": "paper"}, 224, id="googlenet_paper"),
    pytest.param("LitGoogLeNet", {"variant": "batch_norm"}, 224, id="googlenet_batch_norm"),
    pytest.param("LitGoogLeNet", {"variant": "torchvision"}, 224, id="googlenet_torchvision"),
    pytest.param("LitResNet", {"depth": 18}, 224, id="resnet18"),
    pytest.param("LitResNet", {"depth": 50}, 224, id="resnet50"),
    pytest.param("LitDenseNet", {"depth": 121}, 224, id="densenet121"),
    pytest.param("LitInceptionV3", {}, 299, id="inception_v3"),
    pytest.param("LitInceptionV3", {"aux_weight": 0.0}, 299, id="inception_v3_without_head"),
    pytest.param("LitInceptionV3", {"variant": "paper"}, 299, id="inception_v3_paper"),
    pytest.param("LitInceptionV4", {}, 299, id="inception_v4"),
    pytest.param("LitInceptionResNetV1", {}, 299, id="inception_resnet_v1"),
    pytest.param("LitInceptionResNetV2", {}, 299, id="inception_resnet_v2"),
    pytest.param("LitNASNet", {"variant": "mobile"}, 224, id="nasnet_mobile"),
    pytest.param("LitNASNet", {"variant": "large"}, 331, id="nasnet_large"),
    pytest.param("LitVGG", {"variant": "A", "head": "cifar"}, 32, id="cifar_vgg_a"),
    pytest.param("LitGoogLeNet", {"variant": "paper", "stem": "cifar"}, 32, id="cifar_googlenet_paper"),
    pytest.param("LitGoogLeNet", {"variant": "batch_norm", "stem": "cifar"}, 32, id="cifar_googlenet_batch_norm"),
    pytest.param("LitGoogLeNet", {"variant": "torchvision", "stem": "cifar"}, 32, id="cifar_googlenet_torchvision"),
    pytest.param("LitResNet", {"depth": 20}, 32, id="cifar_resnet20"),
    pytest.param("LitDenseNet", {"depth": 40}, 32, id="cifar_densenet40"),
    pytest.param("LitInceptionV3", {"stem": "cifar"}, 32, id="cifar_inception_v3"),
    pytest.param("LitInceptionV3", {"stem": "cifar", "variant": "paper"}, 32, id="cifar_inception_v3_paper"),
    pytest.param("LitInceptionV4", {"stem": "cifar"}, 32, id="cifar_inception_v4"),
    pytest.param("LitInceptionResNetV1", {"stem": "cifar"}, 32, id="cifar_inception_resnet_v1"),
    pytest.param("LitInceptionResNetV1", {"stem": "cifar", "residual": False}, 32, id="cifar_plain_inception"),
    pytest.param("LitGridReduction", {}, 32, id="grid_reduction"),
    pytest.param("LitKernelStacks", {}, 32, id="kernel_stacks"),
    pytest.param("LitInceptionResNetV2", {"stem": "cifar"}, 32, id="cifar_inception_resnet_v2"),
    pytest.param("LitNASNet", {"variant": "cifar"}, 32, id="cifar_nasnet"),
    pytest.param("LitShakeShake", {"width": 32}, 32, id="cifar_shake_shake"),
]
WITH_HEADS = {"LitGoogLeNet", "LitInceptionV3", "LitNASNet"}


def build(family, arguments, num_classes=10, **more):
    return family(num_classes, optimizer=partial(torch.optim.SGD, lr=0.1), **arguments, **more)


def build_seeded(family, arguments, **more):
    torch.manual_seed(0)
    return build(family, arguments, **more)


def difference(family, logits):
    """The largest difference between two images' logits, which no test may find equal by accident."""
    largest = (logits[0] - logits[1]).abs().max().item()
    assert largest > (0.05 if family.__name__ in SMALL else 1e-4)
    return largest


def test_every_family_has_an_experiment_and_takes_its_arguments():
    families = find_families()
    assert {family.__name__ for family in families} >= SMALL.keys()
    for family in families:
        assert experiment_arguments(family).keys().isdisjoint({"self", "num_classes", "kwargs"})


@pytest.mark.parametrize("family", find_families())
def test_num_classes_comes_first_and_has_no_default(family):
    first, *others = inspect.signature(family.__init__).parameters.values()
    assert first.name == "self" and others[0].name == "num_classes"
    assert others[0].default is inspect.Parameter.empty
    assert any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in others)


@parametrize_families()
def test_bfloat16_and_channels_last_reach_every_parameter(family, arguments):
    model = build_seeded(family, arguments).train()
    images = make_images(model, 4).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        model.loss(model(images), torch.tensor([1, 2, 3, 4])).backward()
    for parameter_name, parameter in model.net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "native"), NETS)
def test_nets_train_at_their_smallest_and_their_native_size(name, arguments, native):
    """Two images: the smallest leave maps of one pixel, and BatchNorm wants two values of each channel."""
    model = build_seeded(getattr(lit_models, name), arguments).train()
    smallest = smallest_training_size(model)
    assert smallest <= native
    for size in sorted({smallest, native}):
        model.zero_grad()
        model.loss(model(torch.randn(2, 3, size, size)), torch.tensor([1, 2])).backward()
        for parameter_name, parameter in model.net.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), (size, parameter_name)


@parametrize_families()
def test_evaluation_is_deterministic_and_follows_from_the_state_dict(family, arguments):
    model = build_seeded(family, arguments)
    images = make_images(model, 2)
    update_bn_stats(model, model, [images])  # as statistics are at first, some nets tell no image from another
    torch.manual_seed(1)
    other = build(family, arguments)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = model.eval()(images)
        assert logits.shape == (2, 10) and logits.dtype == torch.float32
        assert torch.equal(logits, model(images)) and difference(family, logits)
        torch.testing.assert_close(other.eval()(images), logits)


@parametrize_families("LitNASNet", "LitShakeShake", "LitInceptionResNetV1", "LitGridReduction", "LitKernelStacks")
def test_compiled_nets_give_the_same_logits_and_keys(family, arguments):
    """Dynamo's part of compiling; code generation takes minutes for some of them."""
    model = build_seeded(family, arguments).eval()
    images = make_images(model, 2)
    update_bn_stats(model, model, [images])
    with torch.no_grad():
        expected, keys = model(images), list(model.state_dict())
        assert difference(family, expected)
        model.net.compile(backend="eager")
        torch.testing.assert_close(model(images), expected)
    assert list(model.state_dict()) == keys
    torch.compiler.reset()


@pytest.mark.slow
@parametrize_families()
def test_generated_code_gives_the_same_logits_and_trains(family, arguments):
    """With the whole of inductor, as in configs/overlays/compile.yaml."""
    model = build_seeded(family, arguments, compile=True).eval()
    images = make_images(model, 2)
    update_bn_stats(
        model, model, [images]
    )  # with the statistics they start from, v4's logits are the same for all images
    with torch.no_grad():
        expected = model(images)
        between = difference(family, expected)
        model.setup("fit")
        # Where a few images leave hardly any variance, float32 itself is off by 1e-3 of this (v4, against float64)
        torch.testing.assert_close(model(images), expected, rtol=0, atol=0.01 * between)
    model.train()
    model.loss(model(images), torch.tensor([1, 2])).backward()
    for parameter_name, parameter in model.net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    torch.compiler.reset()


@parametrize_families(only=WITH_HEADS)
def test_auxiliary_heads_count_by_their_weight_in_training_alone(family, arguments):
    model, labels = build_seeded(family, arguments), torch.tensor([1, 2, 3, 4])
    images = make_images(model, 4)
    output = model.train()(images)
    losses = model.losses(output, labels)
    assert set(losses) == {"main", *model.aux_weights} and model.aux_weights
    expected = losses["main"] + sum(weight * losses[head] for head, weight in model.aux_weights.items())
    torch.testing.assert_close(model.loss(output, labels), expected)
    assert isinstance(model.eval()(images), torch.Tensor)
    bare = build_seeded(family, arguments, aux_weight=0.0).train()
    assert isinstance(bare(images), torch.Tensor) and not bare.aux_weights
    assert sum(p.numel() for p in bare.parameters()) < sum(p.numel() for p in model.parameters())


@parametrize_families(only=WITH_HEADS)
def test_a_head_for_other_classes_keeps_its_random_weights_with_its_auxiliary_heads(
    family, arguments, tmp_path, caplog
):
    model = build_seeded(family, arguments)
    torch.save(model.net.state_dict(), tmp_path / "w.pth")
    torch.manual_seed(1)
    tuned = build(family, arguments, num_classes=3, weights=str(tmp_path / "w.pth"))
    assert "are for 10 classes, the data have 3" in caplog.text
    old, new = model.net.state_dict(), tuned.net.state_dict()
    same = [key for key in old if old[key].shape == new[key].shape]
    assert len(same) >= len(old) - 6 and all(torch.equal(old[key], new[key]) for key in same)
    output = tuned.train()(make_images(tuned, 4))
    assert all(logits.shape == (4, 3) for logits in output)


# 5 to 15 seconds each
@parametrize_families(
    *("LitDenseNet", "LitGoogLeNet", "LitNASNet", "LitShakeShake", "LitVGG"),
    *("LitInceptionResNetV1", "LitGridReduction", "LitKernelStacks"),
)
def test_two_epochs_through_the_command_line_lower_the_loss(run, here, family, arguments):
    flags = [f"--model.{key}={value}" for key, value in arguments.items()]
    # torchvision's initialisation of Inception-v3 is made for slow starts: at 0.05 its loss rises first
    lr = 0.01 if family.__name__ == "LitInceptionV3" else 0.05
    flags += ["--model.optimizer=torch.optim.SGD", f"--model.optimizer.lr={lr}", "--trainer.max_epochs=2"]
    flags += ["--trainer.limit_train_batches=16", "--trainer.limit_val_batches=1", "--data.batch_size=32"]
    run("fit", "--config", DIGITS, "--model", f"{family.__module__}.{family.__name__}", *flags)
    with Path("runs/digits/resnet20/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 2 and losses[1] < losses[0]
    for head in build(family, arguments).aux_weights:
        assert any(row[f"train/{head}_loss"] for row in rows)
