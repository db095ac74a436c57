"""The errors that the papers print, and which of them belong beside a test of ours."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        error: top-1 / top-5 in percent, as printed; "-" where the paper prints none. A difference to another row is in
            points and has signs.
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


def find_published_row(
    predictors: Sequence[Configs], protocol: str, base: Sequence[Configs], base_protocol: str, imagenet: bool
) -> PublishedRow | None:
    """The paper's row for a row of ours; on other images than ImageNet, its differences. None if there is none.

    Args:
        predictors: the configs of the models, as checkpoints hold them: of one ensemble, or of several models of one
            kind whose mean error the row shows.
        protocol: how they were tested.
        base: the predictors of the report's first row.
        base_protocol: how these were tested.
        imagenet: whether the test was on ImageNet. On other images a paper's errors do not apply, but its differences
            to its own row for `base` may, if that network was trained in the same way.
    """
    rows = find_rows(predictors, protocol, imagenet)
    if imagenet:
        return rows[0] if rows else None
    for row, first in itertools.product(rows, find_rows(base, base_protocol, imagenet)):
        if row is not first and (row.paper, row.shorter_side) == (first.paper, first.shorter_side):
            return subtract_base(row, first)
    return None


def find_rows(predictors: Sequence[Configs], protocol: str, imagenet: bool) -> list[PublishedRow]:
    """The rows of all papers that each of the predictors belongs to; arguments as of `find_published_row`."""
    return [row for row in PUBLISHED if all(is_row_of(row, configs, protocol, imagenet) for configs in predictors)]


def is_row_of(row: PublishedRow, configs: Configs, protocol: str, imagenet: bool) -> bool:
    """Whether a paper's row is that of models with these configs and of this protocol.

    Args:
        imagenet: if false, networks in their form for small images count too, however they were trained.
    """
    if len(configs) != len(row.nets) or shorten_protocol(protocol) != shorten_protocol(row.protocol):
        return False
    unmatched = [BY_NAME[name] for name in row.nets]
    for config in configs:
        network = config["model"]["class_path"], config["model"].get("init_args") or {}
        match = next((net for net in unmatched if net.matches_network(*network, not imagenet)), None)
        if match is None or (imagenet and row.shorter_side not in (None, training_shorter_side(config))):
            return False
        unmatched.remove(match)
    return True


def subtract_base(row: PublishedRow, base: PublishedRow) -> PublishedRow:
    """The row with its errors minus those of the base, in points."""
    pairs = zip(row.errors, base.errors, strict=True)
    error = " / ".join("-" if own is None or of_base is None else f"{own - of_base:+.2f}" for own, of_base in pairs)
    base_source = base.note or (base.table if base.table != row.table else "")
    return replace(row, error=error, note=row.note or (base_source and f"its base {base_source}"))


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
