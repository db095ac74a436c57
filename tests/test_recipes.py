"""Every experiment trains as its paper says, or as its header says where it differs: the numbers, written out."""

import inspect
import re

import pytest
import yaml

import lit_models
from callbacks import StepLRDecay
from reports.architectures import ROWS
from reports.zoo import configs_of
from tests.conftest import HOME

BASE = yaml.safe_load((HOME / "configs" / "base.yaml").read_text())["trainer"]
PATHS = {
    f"{folder}/{path.stem}": path
    for folder in ("imagenet", "cifar10")
    for path in (HOME / "configs" / folder).glob("*.yaml")
}
# Arguments of a family that are of the recipe and not of the architecture
OF_THE_RECIPE = [
    "decay_norm_and_bias",
    "label_smoothing",
    "aux_weight",
    "dropout",
    "drop_path",
    "init",
    "zero_init_last",
    "lr_interval",
]


def drops(**arguments):
    """StepLRDecay with all of its arguments."""
    plain = {"step_size": None, "milestones": None, "gamma": 0.1, "interval": "epoch"}
    return {"StepLRDecay": plain | {"warmup": 0, "warmup_factor": 0.1, "warmup_shape": "linear"} | arguments}


PLATEAU = {"monitor": "val/top1_error", "factor": 0.1, "patience": 4}  # drops after five epochs without a better one
AVERAGE = {"EMAWeightAveraging": {"decay": 0.9999, "use_buffers": False}}
STATISTICS = {"BatchNormReestimation": {}}

SGD = {
    "optimizer": "torch.optim.SGD",
    "rates": {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4},
    "decay_norm_and_bias": True,
    "label_smoothing": 0.0,
    "aux_weight": None,
    "dropout": None,
    "drop_path": None,
    "init": None,
    "zero_init_last": None,
    "lr_interval": "epoch",
    "batch_size": 256,
    "val_size": None,
    "length": (90, -1),  # epochs, steps
    "clip": None,
}
NESTEROV = SGD["rates"] | {"nesterov": True}
RMSPROP = {"alpha": 0.9, "eps": 1.0, "momentum": 0.9, "nesterov": False}

# Section 3.1 of the VGG paper; Glorot's initialisation, for normalised images
VGG = SGD | {
    "rates": SGD["rates"] | {"lr": 0.01, "weight_decay": 5e-4},
    "init": "glorot",
    "length": (74, -1),
    "schedule": {"ReduceLROnPlateau": PLATEAU | {"min_lr": 1e-5}},
}
# BVLC's solver, where GoogLeNet's paper gives no number
GOOGLENET = SGD | {
    "rates": SGD["rates"] | {"lr": 0.01, "weight_decay": 2e-4},
    "aux_weight": 0.3,
    "batch_size": 32,
    "length": (250, -1),
    "schedule": drops(step_size=8, gamma=0.96) | AVERAGE,
}
# Section 3.4 of the ResNet paper, and section 4.2
RESNET = SGD | {
    "zero_init_last": False,
    "length": (-1, 600_000),
    "schedule": {"ReduceLROnPlateau": PLATEAU} | STATISTICS,
}
CIFAR_RESNET = RESNET | {
    "batch_size": 128,
    "val_size": 0,
    "length": (-1, 64_000),
    "schedule": drops(milestones=[32_000, 48_000], interval="step"),
}
WARM_RESNET = CIFAR_RESNET | {
    "schedule": drops(
        milestones=[32_000, 48_000], interval="step", warmup=400, warmup_factor=0.1, warmup_shape="constant"
    ),
}
# Section 4.2 of the DenseNet paper; no dropout with augmented images
DENSENET = SGD | {"rates": NESTEROV, "dropout": 0.0, "schedule": drops(step_size=30)}
CIFAR_DENSENET = DENSENET | {
    "batch_size": 64,
    "val_size": 0,
    "length": (300, -1),
    "schedule": drops(milestones=[150, 225]),
}
# Section 8 of Inception-v3's paper, section 4 of Inception-v4's
INCEPTION = SGD | {
    "optimizer": "timm.optim.RMSpropTF",
    "rates": RMSPROP | {"lr": 0.045, "weight_decay": 4e-5},
    "decay_norm_and_bias": False,
    "label_smoothing": 0.1,
    "batch_size": 32,
    "length": (100, -1),
    "schedule": drops(step_size=2, gamma=0.94) | AVERAGE | STATISTICS,
}
# Appendix A.7 of the NASNet paper and its authors' code
NASNET = INCEPTION | {
    "rates": RMSPROP | {"lr": 1.5, "weight_decay": 5e-5},
    "aux_weight": 0.4,
    "drop_path": 0.3,
    "batch_size": 1600,
    "length": (-1, 250_000),
    "clip": (10.0, "norm"),
    "schedule": drops(step_size=2.4, gamma=0.97) | AVERAGE | STATISTICS,
}
# Section 2 of the Shake-Shake paper
SHAKE = SGD | {
    "rates": NESTEROV | {"lr": 0.2},
    "batch_size": 128,
    "val_size": 0,
    "length": (1800, -1),
    "schedule": {"CosineAnnealingLR": {"T_max": 1800}},
}

RECIPES = {
    **{f"imagenet/vgg_{letter}": VGG for letter in ("a", "a_lrn", "b", "c", "d", "e")},
    "imagenet/vgg_d_bn": SGD | {"init": "glorot", "schedule": drops(step_size=30)},  # torchvision's
    "imagenet/googlenet": GOOGLENET,
    # BN-x5: five times 0.0015, a fifth of the decay, drops six times as often
    "imagenet/googlenet_batch_norm": GOOGLENET
    | {
        "rates": SGD["rates"] | {"lr": 0.0075, "weight_decay": 4e-5},
        "dropout": 0.0,
        "length": (60, -1),
        "schedule": drops(step_size=pytest.approx(8 / 6), gamma=0.96),
    },
    **{f"imagenet/resnet{net}": RESNET for net in ("18", "34_a", "34_b", "34_c", "50", "101", "152")},
    **{f"imagenet/plain{depth}": RESNET for depth in (18, 34)},
    "imagenet/resnet50_gn": RESNET
    | {"zero_init_last": True, "length": (100, -1), "schedule": drops(milestones=[30, 60, 90])},
    **{f"imagenet/densenet{depth}": DENSENET for depth in (121, 161, 169, 201, 264)},
    "imagenet/inception_v3": INCEPTION | {"aux_weight": 0.4, "clip": (2.0, "norm")},
    "imagenet/inception_v4": INCEPTION,
    "imagenet/inception_resnet_v2": INCEPTION,
    "imagenet/nasnet_a_large": NASNET,
    "imagenet/nasnet_a_mobile": NASNET | {"rates": RMSPROP | {"lr": 2.0, "weight_decay": 4e-5}, "drop_path": 0.0},
    **{f"cifar10/resnet{depth}": CIFAR_RESNET for depth in (20, 32, 44, 56)},
    **{f"cifar10/resnet{depth}": WARM_RESNET for depth in (110, 1202)},
    **{f"cifar10/plain{depth}": CIFAR_RESNET for depth in (20, 56)},
    **{f"cifar10/densenet_{net}": CIFAR_DENSENET for net in ("40_12", "bc_100_12", "bc_190_40", "bc_250_24")},
    "cifar10/nasnet_a_6_768": SGD
    | {
        "rates": SGD["rates"] | {"lr": 0.025, "weight_decay": 5e-4},
        "decay_norm_and_bias": False,
        "aux_weight": 0.4,
        "drop_path": 0.4,
        "batch_size": 32,
        "val_size": 0,
        "length": (600, -1),
        "clip": (5.0, "norm"),
        "schedule": {"CosineAnnealingLR": {"T_max": 600}},
    },
    **{f"cifar10/shake_shake_26_2x{width}d": SHAKE for width in (32, 64, 96)},
    # No paper has these on CIFAR-10: as their headers say
    "cifar10/vgg16": VGG
    | {
        "batch_size": 128,
        "val_size": 0,
        "length": (300, -1),
        "schedule": drops(step_size=30, gamma=0.5),
    },
    "cifar10/googlenet": GOOGLENET
    | {
        "rates": SGD["rates"] | {"lr": 0.01, "weight_decay": 5e-4},
        "batch_size": 64,
        "length": (100, -1),
        "schedule": drops(milestones=[60, 80], warmup=5, warmup_factor=0.2),
    },
    "cifar10/inception_v3": SGD
    | {
        "rates": SGD["rates"] | {"weight_decay": 5e-4},
        "label_smoothing": 0.1,
        "aux_weight": 0.4,
        "batch_size": 128,
        "length": (100, -1),
        "schedule": drops(milestones=[60, 80]),
    },
    "cifar10/resnet20_short": CIFAR_RESNET
    | {
        "rates": NESTEROV | {"lr": 0.4, "weight_decay": 5e-4},
        "lr_interval": "step",
        "val_size": None,
        "length": (10, -1),
        "schedule": {"OneCycleLR": {"max_lr": 0.4, "total_steps": None, "pct_start": 0.3}},
    },
}


def defaults(function):
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def recipe(path):
    """What an experiment sets, over base.yaml and the defaults of its family; `schedule` with all other callbacks."""
    config = yaml.safe_load(path.read_text())
    family = config["model"]["class_path"].removeprefix("lit_models.")
    model = defaults(lit_models.LitClassifier) | defaults(getattr(lit_models, family)) | config["model"]["init_args"]
    data, trainer, optimizer = config["data"]["init_args"], BASE | config["trainer"], model["optimizer"]
    assert "callbacks" not in config["trainer"]  # would replace those of base.yaml
    schedule = {}
    for part in [model["lr_scheduler"], *trainer.get("callbacks+", [])]:
        if part is not None:
            name, arguments = part["class_path"].split(".")[-1], part.get("init_args", {})
            schedule[name] = defaults(StepLRDecay) | arguments if name == "StepLRDecay" else arguments
    clip = trainer.get("gradient_clip_val")
    return {
        "optimizer": optimizer["class_path"],
        "rates": {"nesterov": False} | optimizer["init_args"],
        **{name: model.get(name) for name in OF_THE_RECIPE},
        "batch_size": data["batch_size"],
        "val_size": data.get("val_size"),
        "length": (trainer["max_epochs"], trainer.get("max_steps", -1)),
        "clip": None if clip is None else (clip, trainer.get("gradient_clip_algorithm", "norm")),
        "schedule": schedule,
    }


def test_every_experiment_has_its_recipe_here():
    assert set(PATHS) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_experiment_trains_as_its_paper_says(name):
    assert recipe(PATHS[name]) == RECIPES[name]


@pytest.mark.parametrize("row", [row for row in ROWS if row.error and configs_of(row)], ids=lambda row: row.name)
def test_headers_tell_the_published_error(row):
    for config in configs_of(row):
        header = "\n".join(line for line in (HOME / config).read_text().splitlines() if line.startswith("#"))
        told = set(re.findall(r"\d+\.\d+", header))
        for error in re.findall(r"\d+\.\d+", row.error):
            digits = len(error.split(".")[1])
            # NASNet's tables have accuracies
            assert error in told or f"{100 - float(error):.{digits}f}" in told, f"{config} does not tell {error} %"


def test_nearly_every_experiment_has_a_published_error():
    """The others are forms that no paper has."""
    told = {config for row in ROWS if row.error for config in configs_of(row)}
    silent = {name for name in PATHS if f"configs/{name}.yaml" not in told}
    assert silent == {
        "imagenet/vgg_d_bn",
        "imagenet/googlenet_batch_norm",
        "cifar10/vgg16",
        "cifar10/googlenet",
        "cifar10/inception_v3",
        "cifar10/plain20",
        "cifar10/plain56",
    }
