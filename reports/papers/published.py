"""The errors that the papers print, and which of them belong beside a test of ours."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.views import PROTOCOLS
from reports.papers.architectures import ARCHITECTURES, read_rows

Configs = Sequence[dict[str, Any]]
BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table.

    Args:
        paper: its short name.
        arxiv: its number.
        nets: names of `Architecture`s, one for each model.
        protocol: how they were tested, see `datamodules.views`.
        error: top-1 / top-5 in percent, as printed; "-" where the paper prints none.
        table: where it is printed.
        shorter_side: range of the training images' shorter side, S in VGG's tables; None where the paper has one way of
            training.
        note: what else one should know about the row.
    """

    paper: str
    arxiv: str
    nets: list[str]
    protocol: str
    error: str
    table: str = ""
    shorter_side: tuple[int, int] | None = None
    note: str = ""

    @property
    def errors(self) -> tuple[float | None, float | None]:
        """Top-1 and top-5 as numbers."""
        top1, top5 = (None if printed == "-" else float(printed) for printed in self.error.split(" / "))
        return top1, top5

    @property
    def source(self) -> str:
        """Paper, table, training scale and note in one line."""
        side = self.shorter_side and f"S = {'-'.join(map(str, dict.fromkeys(self.shorter_side)))}"
        return ", ".join(part for part in (self.paper, self.table, side, self.note) if part)


PUBLISHED = read_rows(Path(__file__).with_name("errors.yaml"), PublishedRow)


@dataclass(frozen=True)
class PaperReference:
    """What a paper prints beside a row of ours.

    Args:
        top1: error in percent, or a difference in points; None where the paper prints none.
        top5: the same.
        printed: both, as they are shown.
        source: the paper and its table.
        is_difference: whether these are differences to the paper's own base.
    """

    top1: float | None
    top5: float | None
    printed: str
    source: str
    is_difference: bool


def find_published_row(
    predictors: Sequence[Configs], protocol: str, base: Sequence[Configs], base_protocol: str, imagenet: bool
) -> PaperReference | None:
    """The paper's row for a row of ours; None if there is none.

    Args:
        predictors: the configs of the models, as checkpoints hold them: of one ensemble, or of several models of one
            kind whose mean error the row shows.
        protocol: how they were tested.
        base: the predictors of the report's first row.
        base_protocol: how these were tested.
        imagenet: whether the test was on ImageNet. On other images a paper's errors do not apply, but its differences
            to its own row for `base` may, if that network was trained in the same way.
    """
    rows = [row for row in PUBLISHED if is_row_of_all(row, predictors, protocol, imagenet)]
    if imagenet:
        return as_error(rows[0]) if rows else None
    bases = [row for row in PUBLISHED if is_row_of_all(row, base, base_protocol, imagenet)]
    for row, first in itertools.product(rows, bases):
        if row is not first and (row.paper, row.shorter_side) == (first.paper, first.shorter_side):
            return as_difference(row, first)
    return None


def is_row_of_all(row: PublishedRow, predictors: Sequence[Configs], protocol: str, imagenet: bool) -> bool:
    return all(is_row_of(row, configs, protocol, imagenet) for configs in predictors)


def is_row_of(row: PublishedRow, configs: Configs, protocol: str, imagenet: bool) -> bool:
    """Whether a paper's row is that of models with these configs and of this protocol.

    Args:
        imagenet: if false, networks in their form for small images count too, however they were trained.
    """
    if len(configs) != len(row.nets) or shorten_protocol(protocol) != shorten_protocol(row.protocol):
        return False
    unmatched = [BY_NAME[name] for name in row.nets]
    for config in configs:
        match = next(
            (net for net in unmatched if net.matches_network(config["model"], ignore_stem_arguments=not imagenet)), None
        )
        if match is None or (imagenet and row.shorter_side not in (None, training_shorter_side(config))):
            return False
        unmatched.remove(match)
    return True


def as_error(row: PublishedRow) -> PaperReference:
    return PaperReference(*row.errors, row.error, row.source, is_difference=False)


def as_difference(row: PublishedRow, base: PublishedRow) -> PaperReference:
    """The row's errors minus those of the base, in points."""
    pairs = zip(row.errors, base.errors, strict=True)
    top1, top5 = (None if a is None or b is None else round(a - b, 2) for a, b in pairs)
    printed = " / ".join("-" if value is None else f"{value:+.2f}" for value in (top1, top5))
    base_source = base.note or (base.table if base.table != row.table else "")
    note = f", its base {base_source}" if base_source and not row.note else ""
    return PaperReference(top1, top5, printed, row.source + note, is_difference=True)


def is_imagenet(config: dict[str, Any], class_names: Sequence[str]) -> bool:
    """Whether a checkpoint was trained on ImageNet's 1,000 classes."""
    data = config["data"]["class_path"].rpartition(".")[2]
    return data == "ImageNet" and len(class_names) == 1000 and class_names[0].startswith(("tench", "n01440764"))


def shorten_protocol(protocol: str) -> str:
    """A protocol without scales that are its default: dense@256 is dense."""
    name, _, scales = protocol.partition("@")
    return name if scales == "-".join(map(str, PROTOCOLS[name][0].scales)) else protocol


def training_shorter_side(config: dict[str, Any]) -> tuple[int, int] | None:
    """The range of the shorter side of the training images."""
    side = config["data"]["init_args"].get("augmentation", {}).get("shorter_side")
    return side and tuple(side)
