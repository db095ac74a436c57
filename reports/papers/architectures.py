"""The architectures of the papers, one row each: how to build it here, and what the paper says of it."""

import inspect
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

import lit_models

AUXILIARY = "aux_weight"  # 0 builds a family's net without its auxiliary heads


@dataclass
class Row:
    """One architecture.

    Args:
        name: how it is called here.
        family: the class of lit_models that builds it.
        arguments: what that class is given; auxiliary heads are counted beside the net by themselves.
        size: pixels per side of its native input.
        parameters, multiply_adds: what the paper says, as it prints it ("25.6M", "3.8G"); empty where it says nothing.
        error: what the paper reports, and how it was tested.
        source: who has the network.
        note: why the counts differ from the paper's, where they do by more than its rounding.
    """

    name: str
    family: str
    arguments: dict[str, Any] = field(default_factory=dict)
    size: int = 224
    parameters: str = ""
    multiply_adds: str = ""
    error: str = ""
    source: str = "ours"
    note: str = ""

    @property
    def classes(self) -> int:
        return 10 if self.size == 32 else 1000

    @property
    def has_auxiliary(self) -> bool:
        """Whether the family has auxiliary heads that can be left out."""
        return AUXILIARY in inspect.signature(getattr(lit_models, self.family).__init__).parameters

    def build(self, auxiliary: bool = False) -> nn.Module:
        """The net on the meta device, in evaluation mode: counted, not computed."""
        family = getattr(lit_models, self.family)
        arguments = dict(self.arguments)
        if self.has_auxiliary and not auxiliary:
            arguments[AUXILIARY] = 0.0
        with torch.device("meta"):
            return family(self.classes, optimizer=partial(torch.optim.SGD, lr=0.1), **arguments).net.eval()


STRIDE = "torchvision's and timm's have the stride on the 3x3 (v1.5): 4.09, 7.80 and 11.51 G"
TEN = "with 10 crops"
R18, R34 = {"depth": 18}, {"depth": 34}


def vgg(name: str, variant: str, parameters: str, error: str, **more: Any) -> Row:
    """A row of VGG's Tables 1 to 3; errors at one scale, S = Q = 256, dense."""
    return Row(name, "LitVGG", {"variant": variant}, 224, parameters, error=error, **more)


def resnet(name: str, error: str, multiply_adds: str, note: str = "", **arguments: Any) -> Row:
    """A row of the ResNet paper's Tables 1 to 3."""
    source = "ours, torchvision's keys" if "shortcut" not in arguments or arguments["shortcut"] == "B" else "ours"
    return Row(name, "LitResNet", arguments, 224, "", multiply_adds, error, source, note)


def cifar_resnet(depth: int, parameters: str, error: str, name: str = "resnet", **arguments: Any) -> Row:
    """A row of the ResNet paper's Table 6."""
    return Row(f"cifar_{name}{depth}", "LitResNet", {"depth": depth, **arguments}, 32, parameters, error=error)


ROWS = [
    vgg("vgg_a", "A", "133M", "29.6 / 10.4 %", source="ours, torchvision's keys"),
    vgg("vgg_a_lrn", "A-LRN", "133M", "29.7 / 10.5 %"),
    vgg("vgg_b", "B", "133M", "28.7 / 9.9 %", source="ours, torchvision's keys"),
    vgg("vgg_c", "C", "134M", "28.1 / 9.4 %"),
    vgg(
        "vgg_d",
        "D",
        "138M",
        "27.0 / 8.8 %",
        source="ours, torchvision's keys",
        multiply_adds="15.3G",
        note="the 15.3 G are the ResNet paper's (section 3.3); its own filters give 15.47 G",
    ),
    vgg("vgg_e", "E", "144M", "27.3 / 9.0 %", source="ours, torchvision's keys", multiply_adds="19.6G"),
    *(
        Row(
            f"vgg_{letter.lower()}_bn",
            "LitVGG",
            {"variant": letter, "batch_norm": True},
            source="ours, torchvision's keys",
        )
        for letter in "ABDE"
    ),
    Row(
        "googlenet_paper",
        "LitGoogLeNet",
        {"variant": "paper"},
        parameters="6.8M",
        multiply_adds="1.5G",
        error="- / 10.07 % (1 model, 1 crop)",
        note="Table 1 adds up to 6.80 M weights and 1.50 G, but three of its rows do not follow from their own "
        "filters: conv1 (2.7 K and 34 M printed, 9.4 K and 118 M from 7x7 filters on 224 px), 4c (463 K, 509 K) and 5a "
        "(54 M, 51 M); with these, and biases, it is 7.00 M and 1.58 G",
    ),
    Row("googlenet_batch_norm", "LitGoogLeNet", {"variant": "batch_norm"}),
    Row("googlenet_torchvision", "LitGoogLeNet", {"variant": "torchvision"}, source="torchvision"),
    resnet("resnet18_a", f"27.88 % {TEN}", "1.8G", depth=18, shortcut="A"),
    resnet("resnet18_b", "", "1.8G", depth=18),
    resnet("resnet18_c", "", "", depth=18, shortcut="C"),
    resnet("resnet34_a", f"25.03 / 7.76 % {TEN}", "3.6G", depth=34, shortcut="A"),
    resnet(
        "resnet34_b",
        f"24.52 / 7.46 % {TEN}",
        "3.6G",
        "the paper's 3.6 G is that of option A; projections add 0.02 G",
        depth=34,
        shortcut="B",
    ),
    resnet("resnet34_c", f"24.19 / 7.40 % {TEN}", "", depth=34, shortcut="C"),
    resnet("plain18", f"27.94 % {TEN}", "1.8G", depth=18, shortcut="none"),
    resnet("plain34", f"28.54 / 10.02 % {TEN}", "3.6G", depth=34, shortcut="none"),
    resnet(
        "resnet50",
        f"22.85 / 6.71 % {TEN}",
        "3.8G",
        "the paper cuts its 3.86 G off; " + STRIDE,
        depth=50,
        stride_in_1x1=True,
    ),
    resnet("resnet101", f"21.75 / 6.05 % {TEN}", "7.6G", depth=101, stride_in_1x1=True),
    resnet("resnet152", f"21.43 / 5.71 % {TEN}", "11.3G", depth=152, stride_in_1x1=True),
    *(
        Row(
            f"resnet{depth}_v1.5",
            "LitResNet",
            {"depth": depth},
            multiply_adds=count,
            source="ours, torchvision's keys",
            note=STRIDE,
        )
        for depth, count in ((50, "3.8G"), (101, "7.6G"), (152, "11.3G"))
    ),
    Row("resnet50_gn", "LitResNet", {"depth": 50, "norm": "group", "zero_init_last": True}, error="24.1 % (1 crop)"),
    Row(
        "densenet121", "LitDenseNet", {"depth": 121}, error="25.02 / 7.71 % (1 crop)", source="ours, torchvision's keys"
    ),
    Row(
        "densenet169", "LitDenseNet", {"depth": 169}, error="23.80 / 6.85 % (1 crop)", source="ours, torchvision's keys"
    ),
    Row(
        "densenet201", "LitDenseNet", {"depth": 201}, error="22.58 / 6.34 % (1 crop)", source="ours, torchvision's keys"
    ),
    Row(
        "densenet264", "LitDenseNet", {"depth": 264}, error="22.15 / 6.12 % (1 crop)", source="ours, torchvision's keys"
    ),
    Row(
        "densenet161",
        "LitDenseNet",
        {"depth": 161},
        error="22.2 % (the authors' repository)",
        source="ours, torchvision's keys",
    ),
    Row(
        "inception_v3",
        "LitInceptionV3",
        size=299,
        parameters="25M",
        multiply_adds="4.8G",
        error="21.2 / 5.6 % (1 crop, 48,238 images)",
        source="torchvision",
        note="the released network, not the paper's Table 1 (its fourth convolution is a 1x1 of 80 channels); the "
        "paper says 'less than 25 million' parameters",
    ),
    Row("inception_v4", "LitInceptionV4", size=299, error="20.0 / 5.0 % (1 crop, 48,238 images)", source="timm"),
    Row(
        "inception_resnet_v2",
        "LitInceptionResNetV2",
        size=299,
        parameters="55.8M",
        multiply_adds="13.2G",
        error="19.9 / 4.9 % (1 crop, 48,238 images)",
        source="timm",
    ),
    Row(
        "nasnet_a_large",
        "LitNASNet",
        {"variant": "large"},
        331,
        "88.9M",
        "23.8G",
        "17.3 / 3.8 %",
        source="ours, timm's keys",
        note="the paper's 88.9 M is 0.15 M more than its authors' released network has",
    ),
    Row("nasnet_a_mobile", "LitNASNet", {"variant": "mobile"}, 224, "5.3M", "564M", "26.0 / 8.4 %"),
    Row("cifar_vgg16", "LitVGG", {"head": "cifar"}, 32),
    Row("cifar_resnet18", "LitResNet", {"depth": 18, "stem": "cifar"}, 32),
    Row("cifar_googlenet", "LitGoogLeNet", {"stem": "cifar"}, 32),
    Row("cifar_inception_v3", "LitInceptionV3", {"stem": "cifar"}, 32, source="torchvision, stem ours"),
    *(
        cifar_resnet(depth, parameters, f"{error} %")
        for depth, parameters, error in (
            (20, "0.27M", "8.75"),
            (32, "0.46M", "7.51"),
            (44, "0.66M", "7.17"),
            (56, "0.85M", "6.97"),
            (110, "1.7M", "6.43 (best of 5; mean 6.61)"),
            (1202, "19.4M", "7.93"),
        )
    ),
    cifar_resnet(20, "0.27M", "", "plain", shortcut="none"),
    cifar_resnet(56, "0.85M", "", "plain", shortcut="none"),
    *(
        Row(
            f"cifar_densenet_{kind}{depth}_{growth}",
            "LitDenseNet",
            {"depth": depth, "growth_rate": growth, "bottleneck": bool(kind), "compression": 0.5 if kind else 1.0},
            32,
            parameters,
            error=f"{error} % (with augmentation)",
        )
        for kind, depth, growth, parameters, error in (
            ("", 40, 12, "1.0M", "5.24"),
            ("", 100, 12, "7.0M", "4.10"),
            ("", 100, 24, "27.2M", "3.74"),
            ("bc_", 100, 12, "0.8M", "4.51"),
            ("bc_", 250, 24, "15.3M", "3.62"),
            ("bc_", 190, 40, "25.6M", "3.46"),
        )
    ),
    Row("nasnet_a_cifar", "LitNASNet", {"variant": "cifar"}, 32, "3.3M", error="3.41 %"),
    *(
        Row(f"shake_shake_26_2x{width}d", "LitShakeShake", {"width": width}, 32, parameters, error=error)
        for width, parameters, error in (
            (32, "2.9M", "3.55 % (S-S-I)"),
            (64, "", "2.98 % (S-S-I)"),
            (96, "26.2M", "2.86 % (S-S-I)"),
            (112, "", "2.82 % (by the authors of AutoAugment)"),
        )
    ),
]
