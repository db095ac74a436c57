"""The families under test: every LightningModule in a file of lit_models, exported or not, in a form for small images.

A family of your own is tested with the arguments of its first experiment under configs/.
"""

import importlib
import inspect
import pkgutil
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import lit_models
from lit_models import LitClassifier
from tests.conftest import HOME

# Smaller than the experiments, so that the tests are fast
SMALL = {
    "LitVGG": {"variant": "A", "head": "cifar"},
    "LitGoogLeNet": {"stem": "cifar"},
    "LitGridReduction": {"width": 8, "depth": 1},
    "LitInceptionResNetV1": {"stem": "cifar", "width": 0.125, "blocks": [1, 1, 1]},
    "LitKernelStacks": {"width": 8},
    "LitResNet": {"depth": 20},
    "LitDenseNet": {"depth": 22},
    "LitInceptionV3": {"stem": "cifar"},
    "LitInceptionV4": {"stem": "cifar"},
    "LitInceptionResNetV2": {"stem": "cifar"},
    "LitNASBench201": {"repeats": 1},
    "LitNASNet": {"variant": "cifar", "repeats": 1, "filters": 8},
    "LitShakeShake": {"width": 32},
}
SLOW = {"LitInceptionV3", "LitInceptionV4", "LitInceptionResNetV2"}


def find_families() -> list[type[LitClassifier]]:
    """The LightningModules that are defined in the files of lit_models."""
    names = [f"lit_models.{module.name}" for module in pkgutil.iter_modules(lit_models.__path__)]
    members = [(name, member) for name in names for member in vars(importlib.import_module(name)).values()]
    return [
        member
        for name, member in members
        if isinstance(member, type) and issubclass(member, LitClassifier) and member.__module__ == name
        if member is not LitClassifier
    ]


def experiment_arguments(family: type[LitClassifier]) -> dict[str, Any]:
    """The family's own arguments in its first experiment."""
    paths = {f"lit_models.{family.__name__}", f"{family.__module__}.{family.__name__}"}
    for path in sorted((HOME / "configs").rglob("*.yaml")):
        model = yaml.safe_load(path.read_text()).get("model", {})
        if model.get("class_path") in paths:
            own = inspect.signature(family.__init__).parameters
            return {name: value for name, value in model.get("init_args", {}).items() if name in own}
    raise LookupError(f"No experiment under configs/ has the class_path {' or '.join(sorted(paths))}: add one.")


def small_arguments(family: type[LitClassifier]) -> dict[str, Any]:
    return SMALL[family.__name__] if family.__name__ in SMALL else experiment_arguments(family)


def smallest_training_size(model: LitClassifier) -> int:
    """Pixels per side of the smallest images on which a net can be trained."""
    limits = model.input_size
    return limits.smallest if limits.training is None else limits.training[0]


def make_images(model: LitClassifier, count: int) -> torch.Tensor:
    """Noise of 32 px, or of the smallest size on which a net can be trained if that is larger."""
    side = max(32, smallest_training_size(model))
    return torch.randn(count, 3, side, side)


def parametrize_families(*slow: str, only: set[str] | None = None) -> pytest.MarkDecorator:
    """A test's arguments `family` and `arguments`, for all families; those in `SLOW` and `slow` are marked as slow."""
    return pytest.mark.parametrize(
        ("family", "arguments"),
        [
            pytest.param(
                family,
                small_arguments(family),
                id=family.__name__,
                marks=[pytest.mark.slow] if family.__name__ in SLOW.union(slow) else [],
            )
            for family in find_families()
            if only is None or family.__name__ in only
        ],
    )


def scramble(net):
    """Random weights and statistics under which every layer counts, and no dropout."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net
