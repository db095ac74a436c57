"""Every experiment trains as its paper says, or as its header says where it differs: the numbers, written out."""

import inspect
import re

import pytest
import yaml

import lit_models
from callbacks import StepLRDecay
from datamodules.augment import Augmentation
from reports.papers.architectures import ARCHITECTURES
from reports.zoo import configs_of, read_experiments
from tests.conftest import HOME

BASE = yaml.safe_load((HOME / "configs" / "base.yaml").read_text())["trainer"]
CONFIGS = HOME / "configs"
PATHS = {
    str(path.relative_to(CONFIGS).with_suffix("")): path
    for folder in ("imagenet", "cifar10", "photos")
    for path in (CONFIGS / folder).rglob("*.yaml")
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
    "loss",
    "freeze_batch_norm",
]
# What the images of ImageNet are like, where an experiment does not say
IMAGES = {"size": 224, "eval_size": None, "resize": None, "interpolation": "bilinear"}


def drops(**arguments):
    """StepLRDecay with all of its arguments."""
    plain = {"step_size": None, "milestones": None, "gamma": 0.1, "interval": "epoch"}
    return {"StepLRDecay": plain | {"warmup": 0, "warmup_factor": 0.1, "warmup_shape": "linear"} | arguments}


def cycle(rate, share, **arguments):
    """OneCycleLR over the whole run, without the cycle of the momentum."""
    return {
        "OneCycleLR": {"max_lr": rate, "total_steps": None, "pct_start": share, "cycle_momentum": False} | arguments
    }


PLATEAU = {"monitor": "val/top1_error", "factor": 0.1, "patience": 4}  # drops after five epochs without a better one
AVERAGE = {"EMAWeightAveraging": {"decay": 0.9999, "use_buffers": False}}
STATISTICS = {"PreciseBN": {}}

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
    "loss": "cross_entropy",
    "freeze_batch_norm": False,
    "batch_size": 256,
    "images": {},
    "augmentation": {},
    "val_size": None,
    "length": (90, -1),  # epochs, steps
    "clip": None,
}
NESTEROV = SGD["rates"] | {"nesterov": True}
RMSPROP = {"alpha": 0.9, "eps": 1.0, "momentum": 0.9, "nesterov": False}

FB_RESNET = {"colour": 0.4, "lighting": 0.1}  # fb.resnet.torch, beside its area crops

# Section 3.1 of the VGG paper; Glorot's initialisation, for normalised images
VGG = SGD | {
    "augmentation": {"shorter_side": [256, 256], "lighting": 0.1},
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
    "augmentation": {"colour": 0.4},
    "length": (250, -1),
    "schedule": drops(step_size=8, gamma=0.96) | AVERAGE,
}
# Section 3.4 of the ResNet paper, and section 4.2
RESNET = SGD | {
    "augmentation": {"shorter_side": [256, 480], "lighting": 0.1},
    "zero_init_last": False,
    "length": (-1, 600_000),
    "schedule": {"ReduceLROnPlateau": PLATEAU} | STATISTICS,
}
CIFAR_RESNET = RESNET | {
    "augmentation": {},
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
DENSENET = SGD | {
    "rates": NESTEROV,
    "dropout": 0.0,
    "augmentation": FB_RESNET,
    "schedule": drops(step_size=30),
}
CIFAR_DENSENET = DENSENET | {
    "augmentation": {},
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
    "images": {"size": 299},
    "augmentation": {"colour": 0.4},
    "length": (100, -1),
    "schedule": drops(step_size=2, gamma=0.94) | AVERAGE | STATISTICS,
}
# Appendix A.7 of the NASNet paper and its authors' code
NASNET = INCEPTION | {
    "rates": RMSPROP | {"lr": 1.5, "weight_decay": 5e-5},
    "aux_weight": 0.4,
    "drop_path": 0.3,
    "batch_size": 1600,
    "images": {"size": 331},
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
# Table 2 of "ResNet strikes back", arXiv 2110.00476
A3 = SGD | {
    "optimizer": "timm.optim.Lamb",
    "rates": {"lr": 8e-3, "weight_decay": 0.02, "nesterov": False},
    "decay_norm_and_bias": False,
    "lr_interval": "step",
    "loss": "binary_cross_entropy",
    "batch_size": 2048,
    "images": {"size": 160, "eval_size": 224, "resize": 236, "interpolation": "bicubic"},
    "augmentation": {"rand": 9, "mixup": 0.1, "cutmix": 1.0},
    "length": (100, -1),
    "schedule": cycle(8e-3, 5 / 100, div_factor=1e4, final_div_factor=1),
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
        "augmentation": {"colour": 0.2},
        "length": (60, -1),
        "schedule": drops(step_size=pytest.approx(8 / 6), gamma=0.96),
    },
    **{f"imagenet/resnet{net}": RESNET for net in ("18", "34_a", "34_b", "34_c", "50", "101", "152")},
    **{f"imagenet/plain{depth}": RESNET for depth in (18, 34)},
    "imagenet/resnet50_gn": RESNET
    | {
        "zero_init_last": True,
        "augmentation": FB_RESNET,
        "length": (100, -1),
        "schedule": drops(milestones=[30, 60, 90]),
    },
    **{f"imagenet/densenet{depth}": DENSENET for depth in (121, 161, 169, 201, 264)},
    "imagenet/inception_v3": INCEPTION | {"aux_weight": 0.4, "clip": (2.0, "norm")},
    "imagenet/inception_v4": INCEPTION,
    "imagenet/inception_resnet_v1": INCEPTION,
    "imagenet/inception_resnet_v2": INCEPTION,
    "imagenet/nasnet_a_large": NASNET,
    "imagenet/nasnet_a_mobile": NASNET
    | {"rates": RMSPROP | {"lr": 2.0, "weight_decay": 4e-5}, "drop_path": 0.0, "images": {}},
    # torchvision's second recipe, its train.py's decay of the average worked out: 1 - 2e-5 * 1024 * 32 / 600
    "imagenet/modern/resnet50_tv2": SGD
    | {
        "rates": SGD["rates"] | {"lr": 0.5, "weight_decay": 2e-5},
        "decay_norm_and_bias": False,
        "label_smoothing": 0.1,
        "zero_init_last": False,
        "lr_interval": "step",
        "batch_size": 1024,
        "images": {"size": 176, "eval_size": 224, "resize": 232},
        "augmentation": {"trivial": True, "erasing": 0.1, "mixup": 0.2, "cutmix": 1.0, "repeats": 4},
        "length": (600, -1),
        "schedule": cycle(0.5, pytest.approx(5 / 600, rel=1e-3), div_factor=100)
        | {
            "EMAWeightAveraging": {
                "decay": pytest.approx(1 - 2e-5 * 1024 * 32 / 600, abs=1e-5),
                "update_every_n_steps": 32,
                "use_buffers": False,
            },
            "PreciseBN": {"batches": 50},
        },
    },
    # rn50_16_epochs.yaml of libffcv/ffcv-imagenet
    "imagenet/modern/resnet50_ffcv": SGD
    | {
        "rates": SGD["rates"] | {"lr": 1.7},
        "decay_norm_and_bias": False,
        "label_smoothing": 0.1,
        "zero_init_last": False,
        "lr_interval": "step",
        "batch_size": 8 * 512,
        "images": {"size": 192, "eval_size": 256},
        "augmentation": {"growing": [160, 11, 13]},
        "length": (16, -1),
        "schedule": cycle(1.7, 2 / 16, anneal_strategy="linear", div_factor=1e4),
    },
    "imagenet/modern/resnet50_a3": A3 | {"zero_init_last": True},
    "imagenet/modern/vgg16_bn_a3": A3 | {"init": "glorot", "images": {"resize": 236, "interpolation": "bicubic"}},
    "imagenet/modern/googlenet_bn_a3": A3 | {"aux_weight": 0.0, "dropout": 0.0},
    "imagenet/modern/densenet121_a3": A3 | {"dropout": 0.0},
    "imagenet/modern/inception_v3_a3": A3
    | {"aux_weight": 0.0, "images": A3["images"] | {"size": 214, "eval_size": 299, "resize": 315}},
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
        "augmentation": {},
        "val_size": 0,
        "length": (300, -1),
        "schedule": drops(step_size=30, gamma=0.5),
    },
    "cifar10/googlenet": GOOGLENET
    | {
        "rates": SGD["rates"] | {"lr": 0.01, "weight_decay": 5e-4},
        "batch_size": 64,
        "augmentation": {},
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
    "cifar10/resnet18_fast": CIFAR_RESNET
    | {
        "rates": NESTEROV | {"lr": 0.4, "weight_decay": 5e-4},
        "label_smoothing": 0.1,
        "lr_interval": "step",
        "batch_size": 512,
        "length": (18, -1),
        "schedule": cycle(0.4, 0.3),
    },
    "photos/resnet18": SGD
    | {
        "rates": SGD["rates"] | {"lr": 0.01},
        "label_smoothing": 0.1,
        "zero_init_last": False,
        "lr_interval": "step",
        "freeze_batch_norm": True,
        "batch_size": 32,
        "augmentation": {"area": [0.35, 1.0], "trivial": True},
        "length": (20, -1),
        "schedule": cycle(0.01, 0.15),
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
        "images": {name: data[name] for name, plain in IMAGES.items() if data.get(name, plain) != plain},
        "augmentation": data.get("augmentation", {}),
        "val_size": data.get("val_size"),
        "length": (trainer["max_epochs"], trainer.get("max_steps", -1)),
        "clip": None if clip is None else (clip, trainer.get("gradient_clip_algorithm", "norm")),
        "schedule": schedule,
    }


def test_every_recipe_here_is_an_experiment():
    """An experiment of one's own needs no entry."""
    assert len(RECIPES) >= 58 and RECIPES.keys() <= PATHS.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_experiment_trains_as_its_paper_says(name):
    assert recipe(PATHS[name]) == RECIPES[name]


@pytest.mark.parametrize("name", RECIPES)
def test_augmentation_is_one_that_exists(name):
    images = IMAGES | RECIPES[name]["images"]
    Augmentation(**RECIPES[name]["augmentation"]).check(images["size"])


EXPERIMENTS = read_experiments()
PUBLISHED = [row for row in ARCHITECTURES if row.error and configs_of(row, EXPERIMENTS)]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)
def test_headers_tell_the_published_error(row):
    for config in configs_of(row, EXPERIMENTS):
        if "/modern/" in config:
            continue  # another recipe's error
        header = "\n".join(line for line in (HOME / config).read_text().splitlines() if line.startswith("#"))
        told = set(re.findall(r"\d+\.\d+", header))
        for error in re.findall(r"\d+\.\d+", row.error):
            digits = len(error.split(".")[1])
            # NASNet's tables have accuracies
            assert error in told or f"{100 - float(error):.{digits}f}" in told, f"{config} does not tell {error} %"


def test_nearly_every_experiment_has_a_published_error():
    """The others are forms that no paper has, and fine-tuning."""
    told = {config for row in PUBLISHED for config in configs_of(row, EXPERIMENTS)}
    silent = {name for name in RECIPES if f"configs/{name}.yaml" not in told and "/modern/" not in name}
    assert silent == {
        "imagenet/vgg_d_bn",
        "imagenet/googlenet_batch_norm",
        "cifar10/vgg16",
        "cifar10/googlenet",
        "cifar10/inception_v3",
        "cifar10/plain20",
        "cifar10/plain56",
        "cifar10/resnet18_fast",
        "photos/resnet18",
    }


def test_modern_recipes_tell_their_accuracy_or_that_there_is_none():
    for path in (CONFIGS / "imagenet" / "modern").glob("*.yaml"):
        header = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
        assert ("never retrained with such a recipe" in header) != ("Reported" in header), path
