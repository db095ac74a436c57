"""Published and local weights: found by name or path, and loaded into a net completely or not at all."""

import argparse
import logging
import os
import pickle
import re
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from checkpointing.content import check_tensors
from checkpointing.integrity import is_compressed
from errors import UserError, check_reachable, expand_home

log = logging.getLogger(__name__)

FILES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
NORMALISATION = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# timm's names of VGG's fully connected layers, which are convolutions there
TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
# torchvision published its DenseNets before names could not have dots: denselayer1.norm.1 is denselayer1.norm1 now
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
TRANSFORMED = ("GoogLeNet_Weights.", "Inception_V3_Weights.")  # their nets convert inputs to mean and std 0.5 first
# Where Lightning and timm, torchvision, many scripts and pytorch-cifar keep it beside other things
STATE_DICTS = ("state_dict", "model", "model_state_dict", "net")
COUNTER = "num_batches_tracked"  # of a BatchNorm; old files have none, and nothing here uses it


def load_weights(net: nn.Module, weights: str, num_classes: int, strict: bool) -> dict[str, list[float]] | None:
    """Load weights into a net, and report what does not fit.

    A classifier for another number of classes, main or auxiliary, keeps its random weights, with a warning. Any other
    difference is refused, or, if not `strict`, reported and left unchanged in the net.

    Args:
        net: its state dict has the keys of the library that published the weights.
        weights: a name of torchvision (`ResNet50_Weights.IMAGENET1K_V2`) or timm (`resnet50.a1_in1k`), which is
            downloaded; or a local file (.pth, .pt, .bin, .safetensors, or a .ckpt of this repository).
        num_classes: K of the net.
        strict: whether all weights must fit.

    Returns:
        The `mean` and `std` with which images were normalised for these weights, where that is known.

    Raises:
        UserError: if there are no such weights, or they cannot be downloaded or read, or do not fit.
    """
    saved, normalisation = read_weights(weights)
    own = net.state_dict()
    saved = rename_keys(saved, own)
    fitting, heads, report = compare_weights(net, own, saved, num_classes)
    learned = any(not name.endswith(COUNTER) for name in fitting)
    if not learned or (report and strict):
        raise UserError(
            f"The weights {weights} do not fit {type(net).__name__}: {report}. They are of another net, or of this "
            "one with other arguments: choose those"
            + (", or load what fits with --model.strict false." if learned else ".")
        )
    if report:
        log.warning("Not all of the weights %s are loaded: %s.", weights, report)
    if heads:
        classes = " or ".join(map(str, sorted({len(saved[name]) for name in heads})))
        kept = f"{', '.join(heads)} keep their random values"
        log.warning("The weights %s are for %s classes, the data have %s: %s.", weights, classes, num_classes, kept)
    net.load_state_dict(fitting, strict=False)
    return normalisation


def compare_weights(
    net: nn.Module, own: dict[str, Tensor], saved: dict[str, Tensor], num_classes: int
) -> tuple[dict[str, Tensor], list[str], str]:
    """Compare saved weights with those of a net, by name and shape, and those that fit by value.

    Args:
        net: for `num_classes` classes.
        own: its weights that are to be loaded.
        saved: with the names that they have in the net.

    Returns:
        The saved weights that fit; the names of those of a classifier for another number of classes; and a report of
        all other differences, empty where there are none.
    """
    reshaped = [name for name in own if name in saved and own[name].shape != saved[name].shape]
    heads = [name for name in reshaped if is_other_head(net, name, saved[name], num_classes)]
    fitting = {name: saved[name] for name in own if name in saved and name not in reshaped}
    broken = [name for name, value in fitting.items() if value.is_floating_point() and not value.isfinite().all()]
    differences = {
        "missing": [name for name in own if name not in saved and not name.endswith(COUNTER)],
        "unexpected": [name for name in saved if name not in own],
        "of another shape": [name for name in reshaped if name not in heads],
        "not finite": broken,
    }
    report = "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:3] + ['...'] * (len(names) > 3))})"
        for kind, names in differences.items()
        if names
    )
    return {name: value for name, value in fitting.items() if name not in broken}, heads, report


def rename_keys(saved: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights that a library published under other names, or in other shapes, to those of our nets."""
    # The same first part in front of all: module of DDP, _orig_mod of torch.compile, model of many LightningModules
    while not saved.keys() & own.keys() and len({name.partition(".")[0] for name in saved}) == 1:
        if not all("." in name for name in saved):
            break
        saved = {name.partition(".")[2]: value for name, value in saved.items()}
    saved = {OLD_DENSENET.sub(r"\1\2", name): value for name, value in saved.items()}
    for theirs, ours in TIMM_VGG.items():
        for part, start_dim in (("weight", 1), ("bias", 0)):
            if f"{theirs}.{part}" in saved and f"{ours}.{part}" in own:
                saved[f"{ours}.{part}"] = saved.pop(f"{theirs}.{part}").flatten(start_dim)
    return saved


def is_other_head(net: nn.Module, name: str, saved: Tensor, num_classes: int) -> bool:
    """Whether a saved weight or bias fits a linear layer of a net in all but the number of classes."""
    own = net.state_dict()[name]
    linear = isinstance(net.get_submodule(name.rpartition(".")[0]), nn.Linear)
    return linear and len(own) == num_classes and own.ndim == saved.ndim and own.shape[1:] == saved.shape[1:]


def read_weights(weights: str) -> tuple[dict[str, Tensor], dict[str, list[float]] | None]:
    """State dict of a file or of published weights, and the normalisation of their images, where that is known."""
    if Path(weights).suffix in FILES or "/" in weights or os.path.exists(weights):
        return read_state_dict(expand_home(weights)), None
    try:
        return torchvision_weights(weights) if "_Weights." in weights else timm_weights(weights)
    except (OSError, RuntimeError, HTTPException) as error:
        # urllib's errors are OSErrors, or HTTPExceptions where a download breaks off; huggingface_hub's are OSErrors
        # with a page of advice
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"The weights {weights} could not be downloaded ({reason}): fetch them where there is a network, and give "
            "their file with --model.weights FILE."
        ) from error


def torchvision_weights(name: str) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """Weights of torchvision by the name of their enum, such as ResNet50_Weights.IMAGENET1K_V2."""
    from torchvision.models import get_weight

    try:
        entry: Any = get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"torchvision has no weights {name}: its documentation lists them, such as ResNet50_Weights.IMAGENET1K_V2."
        ) from error
    transforms = entry.transforms()
    normalisation = {key: list(getattr(transforms, key, default)) for key, default in NORMALISATION.items()}
    if name.startswith(TRANSFORMED):
        normalisation = {"mean": [0.5] * 3, "std": [0.5] * 3}
    return entry.get_state_dict(progress=False, check_hash=True), normalisation


def timm_weights(name: str) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """Weights of timm by the name of their model and tag, such as resnet50.a1_in1k."""
    import timm

    if not timm.list_pretrained(name):
        near = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}*")[:3])
        raise UserError(
            f"There are no weights {name}: give a file, a name of timm{f' ({near})' if near else ''}, or one of "
            "torchvision, such as ResNet50_Weights.IMAGENET1K_V2."
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each of its retries takes three lines
    model = timm.create_model(name, pretrained=True)
    entry: Any = model.pretrained_cfg
    return model.state_dict(), {key: list(entry[key]) for key in NORMALISATION}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """State dict of a local file, without running code in it; of a checkpoint of this repository, its net's.

    Raises:
        UserError: if there is no such file, or it is truncated or holds anything else.
    """
    check_reachable(path)
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: give a file in it, such as {path / 'checkpoints' / 'best.ckpt'}.")
    if not os.path.isfile(path):
        raise UserError(
            f"There is no weights file {path}: give the path of a .pth, .safetensors or .ckpt file (download the file "
            "of a web address first)."
        )
    content = load_content(path)
    for name in STATE_DICTS:
        content = content.get(name, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{path} holds no state dict but {keys[:200]}: names of weights with their tensors are looked for at the "
            f"top, and under {', '.join(STATE_DICTS)}."
        )
    if not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} holds no state dict: the names of its weights are no text.")
    check_tensors(content, path)
    if any(name.startswith("net.") for name in content):  # a LightningModule of ours
        content = {name.removeprefix("net."): value for name, value in content.items() if name.startswith("net.")}
    return content


def load_content(path: Path) -> Any:
    """What torch or safetensors finds in a file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if is_compressed(path):
            raise ValueError("a compressed archive, which torch does not write")
        with torch.serialization.safe_globals([argparse.Namespace]):  # the flags of torchvision's and timm's scripts
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"{path} is not loaded: it holds {asked[1] if asked else 'more than tensors'}, and code in it might run. "
            "Where it was written, save model.state_dict() and not the model."
        ) from error
    except Exception as error:  # safetensors has an error class of its own, which is an Exception and no more
        raise UserError(f"{path} is not a weights file, or it is truncated or corrupt.") from error
