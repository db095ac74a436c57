"""The architectures of the papers: how to build each with `lit_models`, and what its paper prints about it.

The rows of the papers' tables are YAML files; `read_rows` makes typed rows of them.
"""

import inspect
from argparse import ArgumentError
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

import torch
from jsonargparse import ArgumentParser
from torch import nn

from cli.yaml_files import read_yaml
from errors import UserError

# Arguments that change how a network is trained and not what is counted
TRAINING_ARGUMENTS = {
    "aux_weight",
    "bn_momentum",
    "drop_path",
    "dropout",
    "init",
    "init_from",
    "memory_efficient",
    "transform_input",
    "zero_init_last",
}
STEM_ARGUMENTS = {"stem", "head"}  # fit a network to small images
Row = TypeVar("Row")


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Args:
        name: what it is called here.
        family: class path of the LightningModule that builds it.
        arguments: of that class.
        dataset: imagenet (1,000 classes), or another folder of configs/ (10 classes).
        size: pixels per side of its native input.
        parameters: as the paper prints it, "25.6M"; empty where it prints none. Auxiliary heads do not count.
        multiply_adds: of one image, as the paper prints it, "3.8G"; empty where it prints none.
        error: what the paper reports, and how it was tested.
        source: who has the network.
        note: why the counts differ from the paper's by more than its rounding, if they do.
        paper: its short name; empty for a network that is in no paper.
        arxiv: number of the paper.
        table: where the paper prints the counts and the error.
    """

    name: str
    family: str
    arguments: dict[str, Any] = field(default_factory=dict)
    dataset: str = "imagenet"
    size: int = 224
    parameters: str = ""
    multiply_adds: str = ""
    error: str = ""
    source: str = "ours"
    note: str = ""
    paper: str = ""
    arxiv: str = ""
    table: str = ""

    @property
    def num_classes(self) -> int:
        return 1000 if self.dataset == "imagenet" else 10

    def build(self) -> nn.Module:
        """The network with its auxiliary heads, if it has any, on the meta device (counted, not computed)."""
        family = resolve_name(self.family)
        with torch.device("meta"):
            return family(self.num_classes, optimizer=partial(torch.optim.SGD, lr=0.1), **self.arguments).net

    def network_arguments(self, arguments: dict[str, Any], ignore_stem_arguments: bool = False) -> dict[str, Any]:
        """All arguments that define a network of this family, defaults filled in."""
        parameters = inspect.signature(resolve_name(self.family)).parameters
        ignored = TRAINING_ARGUMENTS | {"num_classes", "kwargs"} | (STEM_ARGUMENTS if ignore_stem_arguments else set())
        defaults = {name: parameters[name].default for name in parameters.keys() - ignored}
        defaults |= {"norm": None, "activation": None}
        network = {name: arguments.get(name, default) for name, default in defaults.items()}
        if "shortcut" in network:
            network["shortcut"] = network["shortcut"] or "B"  # the default of the ImageNet networks
        return network

    def matches_network(self, class_path: str, arguments: dict[str, Any], ignore_stem_arguments: bool = False) -> bool:
        """Whether a class builds this network with these arguments.

        Args:
            class_path: of a LightningModule.
            arguments: of the class.
            ignore_stem_arguments: compare without the arguments that fit a network to small images.
        """
        if package_and_class(class_path) != package_and_class(self.family):
            return False
        own = self.network_arguments(self.arguments, ignore_stem_arguments)
        return own == self.network_arguments(arguments, ignore_stem_arguments)


def package_and_class(class_path: str) -> tuple[str, str]:
    """First and last part of a class path: lit_models.vgg.LitVGG is the class lit_models.LitVGG."""
    return class_path.partition(".")[0], class_path.rpartition(".")[2]


def read_rows(path: Path, row_class: type[Row]) -> list[Row]:
    """The rows of a file: a list of groups, whose keys other than `rows` hold for each of their rows.

    Args:
        path: a YAML file.
        row_class: a dataclass; its fields are the keys of a row.

    Raises:
        UserError: for a row with an unknown, a missing or a mistyped key.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(row_class, "row")
    rows = []
    for group in read_yaml(path):
        for own in group["rows"]:
            values = {key: value for key, value in group.items() if key != "rows"} | own
            try:
                rows.append(parser.instantiate_classes(parser.parse_object({"row": values})).row)
            except ArgumentError as error:
                reason = " ".join(str(error).split())
                raise UserError(f"{path} has a row {values}, which is no {row_class.__name__}: {reason}") from error
    return rows


ARCHITECTURES = read_rows(Path(__file__).with_suffix(".yaml"), Architecture)
