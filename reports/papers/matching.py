"""What the papers print of their ways of testing, to lie beside our own tests.

Errors are in percent and as printed, on ImageNet's 50,000 validation images unless a note says otherwise.
"""

import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lit_models
from datamodules.views import PROTOCOLS
from reports.papers.architectures import ROWS as ARCHITECTURES
from reports.zoo import OF_TRAINING

SUBSET = "on 48,238 of the images"  # those of the Inception papers; all 50,000 are harder by 0.2 points (top-1)
FORM = {"stem", "head"}  # arguments that fit a net to small images
Configs = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """A row of a paper.

    Args:
        nets: names in `reports.architectures`, one for each model.
        protocol: see `datamodules.views`.
        top1, top5: errors, as printed; empty where the paper prints none.
        paper, table: who prints it.
        shorter_side: of the training images, S in VGG's tables; None where the paper has one way of training.
        note: what else one should know of it.
    """

    nets: tuple[str, ...]
    protocol: str
    top1: str
    top5: str
    paper: str
    table: str = ""
    shorter_side: tuple[int, int] | None = None
    note: str = ""

    @property
    def source(self) -> str:
        side = self.shorter_side and f"S = {'-'.join(map(str, dict.fromkeys(self.shorter_side)))}"
        return ", ".join(part for part in (self.paper, self.table, side, self.note) if part)

    def is_for(self, configs: Configs, protocol: str, small: bool = False) -> bool:
        """Whether it is the row of models that were trained by these configs, and of that protocol.

        Args:
            small: take the nets' forms for small images for the nets themselves, trained in whichever way.
        """
        if len(configs) != len(self.nets) or usual(protocol) != usual(self.protocol):
            return False
        wanted = [net(row.family, row.arguments, small) for row in map(architecture, self.nets)]
        for config in configs:
            model = config["model"]
            given = net(model["class_path"].rpartition(".")[2], model["init_args"], small)
            if given not in wanted or not (small or self.shorter_side in (None, shorter_side(config))):
                return False
            wanted.remove(given)
        return True


@dataclass(frozen=True)
class Beside:
    """What a paper says beside a row of ours.

    Args:
        top1, top5: in percent, or in points; None where it says nothing.
        printed: both, as they are shown.
        source: the paper and its table.
        is_difference: whether they are differences to the paper's own base, in points.
    """

    top1: float | None
    top5: float | None
    printed: str
    source: str
    is_difference: bool

    @classmethod
    def of(cls, row: Published, first: Published | None = None) -> "Beside":
        """A row, or its difference to the first one."""
        if first is None:
            printed = " / ".join(error or "-" for error in (row.top1, row.top5))
            return cls(number(row.top1), number(row.top5), printed, row.source, False)
        top1, top5 = minus(row.top1, first.top1), minus(row.top5, first.top5)
        printed = " / ".join("-" if value is None else f"{value:+.2f}" for value in (top1, top5))
        base = first.note or (first.table if first.table != row.table else "")
        note = f", its base {base}" if base and not row.note else ""
        return cls(top1, top5, printed, row.source + note, True)


def number(printed: str) -> float | None:
    return float(printed) if printed else None


def minus(first: str, second: str) -> float | None:
    """The difference of two printed numbers, where both are."""
    return round(float(first) - float(second), 2) if first and second else None


def beside(
    predictors: Sequence[Configs], protocol: str, base: Sequence[Configs], base_protocol: str, imagenet: bool
) -> Beside | None:
    """The paper's row for a row of ours.

    Args:
        predictors: the models' configs, as checkpoints hold them: of one ensemble, or of several models of one kind
            that the row is the mean over.
        protocol: how they were tested.
        base, base_protocol: the same of the report's first row.
        imagenet: whether that was on ImageNet. On other images a paper's errors say nothing, but perhaps their
            differences to the paper's own row for `base`, of a net that was trained in the same way.
    """

    def is_row(row: Published, predictors: Sequence[Configs], protocol: str) -> bool:
        return all(row.is_for(configs, protocol, small=not imagenet) for configs in predictors)

    found = [row for row in PUBLISHED if is_row(row, predictors, protocol)]
    if imagenet:
        return Beside.of(found[0]) if found else None
    bases = [row for row in PUBLISHED if is_row(row, base, base_protocol)]
    for row, first in itertools.product(found, bases):
        if row is not first and (row.paper, row.shorter_side) == (first.paper, first.shorter_side):
            return Beside.of(row, first)
    return None


def is_imagenet(config: dict[str, Any], class_names: Sequence[str]) -> bool:
    """Whether a checkpoint's data are ImageNet's 1,000 classes."""
    data = config["data"]["class_path"].rpartition(".")[2]
    return data == "ImageNet" and len(class_names) == 1000 and class_names[0].startswith(("tench", "n01440764"))


def usual(protocol: str) -> str:
    """A protocol without lengths that it has anyway: dense@256 is dense."""
    name, _, lengths = protocol.partition("@")
    return name if lengths == "-".join(map(str, PROTOCOLS[name][0].scales)) else protocol


def architecture(name: str) -> Any:
    """A row of the zoo."""
    return next(row for row in ARCHITECTURES if row.name == name)


def net(family: str, given: dict[str, Any], small: bool) -> dict[str, Any]:
    """All that makes a net what it is: its family and arguments, with their defaults."""
    parameters = (
        inspect.signature(getattr(lit_models, family).__init__).parameters if hasattr(lit_models, family) else {}
    )
    names = parameters.keys() - OF_TRAINING - {"self", "num_classes", "kwargs", "transform_input"}
    own = {name: parameters[name].default for name in names} | {"norm": None, "activation": None}
    full = {name: given.get(name, default) for name, default in own.items() if not (small and name in FORM)}
    if "shortcut" in full:
        full["shortcut"] = full["shortcut"] or "B"  # what unset means for ImageNet
    return {"family": family, **full}


def shorter_side(config: dict[str, Any]) -> tuple[int, ...] | None:
    """The range of lengths to which the shorter side of a training image was brought."""
    given = config["data"]["init_args"].get("augmentation", {}).get("shorter_side")
    return given and tuple(given)


def googlenet() -> list[Published]:
    """arXiv 1409.4842, Table 3."""
    rows = []
    errors = {1: ("10.07", "9.15", "7.89"), 7: ("8.09", "7.62", "6.67")}
    for models, top5 in errors.items():
        note = "one of the seven is wider" if models == 7 else ""
        for protocol, error in zip(("center", "ten_crop", "crops_144"), top5, strict=True):
            rows.append(
                Published(("googlenet_paper",) * models, protocol, "", error, "GoogLeNet", "Table 3", note=note)
            )
    return rows


FIXED, WIDE, JITTERED = (256, 256), (384, 384), (256, 512)


def vgg(nets: str, table: str, side: tuple[int, int], protocol: str, top1: str, top5: str) -> Published:
    """A row of arXiv 1409.1556."""
    names = tuple(f"vgg_{letter.lower().replace('-', '_')}" for letter in nets.split("+"))
    return Published(names, protocol, top1, top5, "VGG", table, side)


def resnet(name: str, protocol: str, top1: str, top5: str, table: str) -> Published:
    """A row of arXiv 1512.03385."""
    return Published((name,), protocol, top1, top5, "ResNet", table)


FULLY = "dense_multi_scale@224-256-384-480-640"
ONE_CROP = "the authors' repository"
DENSENETS = {
    121: ("25.02", "7.71", "23.61", "6.66"),
    169: ("23.80", "6.85", "22.08", "5.92"),
    201: ("22.58", "6.34", "21.46", "5.54"),
    264: ("22.15", "6.12", "20.80", "5.29"),
}
INCEPTIONS = {
    "inception_v3": (("21.2", "5.6"), ("19.8", "4.6"), ("18.9", "4.3")),
    "inception_v4": (("20.0", "5.0"), ("18.7", "4.2"), ("17.7", "3.8")),
    "inception_resnet_v2": (("19.9", "4.9"), ("18.7", "4.1"), ("17.8", "3.7")),
}
PUBLISHED = [
    *googlenet(),
    vgg("A", "Table 3", FIXED, "dense", "29.6", "10.4"),
    vgg("A-LRN", "Table 3", FIXED, "dense", "29.7", "10.5"),
    vgg("B", "Table 3", FIXED, "dense", "28.7", "9.9"),
    vgg("C", "Table 3", FIXED, "dense", "28.1", "9.4"),
    vgg("C", "Table 3", WIDE, "dense@384", "28.1", "9.3"),
    vgg("C", "Table 3", JITTERED, "dense@384", "27.3", "8.8"),
    vgg("D", "Table 3", FIXED, "dense", "27.0", "8.8"),
    vgg("D", "Table 3", WIDE, "dense@384", "26.8", "8.7"),
    vgg("D", "Table 3", JITTERED, "dense@384", "25.6", "8.1"),
    vgg("E", "Table 3", FIXED, "dense", "27.3", "9.0"),
    vgg("E", "Table 3", WIDE, "dense@384", "26.9", "8.7"),
    vgg("E", "Table 3", JITTERED, "dense@384", "25.5", "8.0"),
    vgg("B", "Table 4", FIXED, "dense_multi_scale@224-256-288", "28.2", "9.6"),
    vgg("C", "Table 4", FIXED, "dense_multi_scale@224-256-288", "27.7", "9.2"),
    vgg("C", "Table 4", WIDE, "dense_multi_scale@352-384-416", "27.8", "9.2"),
    vgg("C", "Table 4", JITTERED, "dense_multi_scale", "26.3", "8.2"),
    vgg("D", "Table 4", FIXED, "dense_multi_scale@224-256-288", "26.6", "8.6"),
    vgg("D", "Table 4", WIDE, "dense_multi_scale@352-384-416", "26.5", "8.6"),
    vgg("D", "Table 4", JITTERED, "dense_multi_scale", "24.8", "7.5"),
    vgg("E", "Table 4", FIXED, "dense_multi_scale@224-256-288", "26.9", "8.7"),
    vgg("E", "Table 4", WIDE, "dense_multi_scale@352-384-416", "26.7", "8.6"),
    vgg("E", "Table 4", JITTERED, "dense_multi_scale", "24.8", "7.5"),
    vgg("D", "Table 5", JITTERED, "multi_crop", "24.6", "7.5"),
    vgg("D", "Table 5", JITTERED, "dense+multi_crop", "24.4", "7.2"),
    vgg("E", "Table 5", JITTERED, "multi_crop", "24.6", "7.4"),
    vgg("E", "Table 5", JITTERED, "dense+multi_crop", "24.4", "7.1"),
    vgg("D+E", "Table 6", JITTERED, "dense_multi_scale", "24.0", "7.1"),
    vgg("D+E", "Table 6", JITTERED, "multi_crop", "23.9", "7.2"),
    vgg("D+E", "Table 6", JITTERED, "dense+multi_crop", "23.7", "6.8"),
    resnet("plain18", "ten_crop", "27.94", "", "Table 2"),
    resnet("resnet18_a", "ten_crop", "27.88", "", "Table 2"),
    resnet("plain34", "ten_crop", "28.54", "10.02", "Table 3"),
    resnet("vgg_d", "ten_crop", "28.07", "9.33", "Table 3"),
    resnet("resnet34_a", "ten_crop", "25.03", "7.76", "Table 3"),
    resnet("resnet34_b", "ten_crop", "24.52", "7.46", "Table 3"),
    resnet("resnet34_c", "ten_crop", "24.19", "7.40", "Table 3"),
    resnet("resnet50", "ten_crop", "22.85", "6.71", "Table 3"),
    resnet("resnet101", "ten_crop", "21.75", "6.05", "Table 3"),
    resnet("resnet152", "ten_crop", "21.43", "5.71", "Table 3"),
    resnet("resnet34_b", FULLY, "21.84", "5.71", "Table 4"),
    resnet("resnet34_c", FULLY, "21.53", "5.60", "Table 4"),
    resnet("resnet50", FULLY, "20.74", "5.25", "Table 4"),
    resnet("resnet101", FULLY, "19.87", "4.60", "Table 4"),
    resnet("resnet152", FULLY, "19.38", "4.49", "Table 4"),
    resnet("vgg_d", "center", "28.5", "9.9", ONE_CROP),
    resnet("resnet50", "center", "24.7", "7.8", ONE_CROP),
    resnet("resnet101", "center", "23.6", "7.1", ONE_CROP),
    resnet("resnet152", "center", "23.0", "6.7", ONE_CROP),
    *(
        Published((f"densenet{depth}",), protocol, top1, top5, "DenseNet", "Table 3")
        for depth, (one, one5, ten, ten5) in DENSENETS.items()
        for protocol, top1, top5 in (("center", one, one5), ("ten_crop", ten, ten5))
    ),
    Published(("resnet50_gn",), "center", "24.1", "", "Group Normalization", "Table 1"),
    Published(("googlenet_batch_norm",), "center", "26.8", "", "Inception-v3", "Table 3", note=SUBSET),
    *(
        Published((name,), protocol, *errors, "Inception-v4", note=SUBSET if protocol == "center" else "")
        for name, rows in INCEPTIONS.items()
        for protocol, errors in zip(("center", "inception_12", "inception_144"), rows, strict=True)
    ),
    Published(("inception_v3",) * 4, "inception_144", "17.3", "3.6", "Inception-v4"),
    Published(("inception_v4", *["inception_resnet_v2"] * 3), "inception_144", "16.4", "3.1", "Inception-v4"),
]
