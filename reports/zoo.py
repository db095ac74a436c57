"""Every architecture of the papers, counted, beside what its paper says of it.

python -m reports.zoo
python -m reports.zoo --json zoo.json
"""

import argparse
import inspect
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lit_models
from reports.papers.architectures import ROWS, Row

HOME = Path(__file__).resolve().parent.parent
# Arguments that change how a net is trained, and not what is counted
OF_TRAINING = {
    "aux_weight",
    "bn_momentum",
    "drop_path",
    "dropout",
    "init",
    "init_from",
    "memory_efficient",
    "zero_init_last",
}


def quantity(printed: str) -> tuple[float, float] | None:
    """A printed count and half a unit of its last digit: "25.6M" is 25,600,000 give or take 50,000."""
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?([MG])", printed)
    if match is None:
        return None
    unit = {"M": 1e6, "G": 1e9}[match[3]]
    digits = len(match[2] or "")
    return float(printed[:-1]) * unit, 0.5 * unit / 10**digits


def differs(counted: int, printed: str) -> bool:
    """Whether a count is not what a paper prints, by more than its rounding."""
    paper = quantity(printed)
    return paper is not None and abs(counted - paper[0]) > paper[1] * 1.000001


def count_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def count_multiply_adds(net: nn.Module, size: int) -> int:
    """Multiply-adds of convolutions and linear layers in one forward pass of one image, without biases."""
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


def measure(row: Row, configs: list[str]) -> dict[str, Any]:
    """Everything the report says of one architecture."""
    net = row.build()
    parameters, multiply_adds = count_parameters(net), count_multiply_adds(net, row.size)
    paper_parameters, paper_multiply_adds = quantity(row.parameters), quantity(row.multiply_adds)
    return {
        "name": row.name,
        "family": row.family,
        "input_size": row.size,
        "parameters": parameters,
        "aux_parameters": count_parameters(row.build(auxiliary=True)) - parameters if row.has_auxiliary else 0,
        "multiply_adds": multiply_adds,
        "paper_parameters": paper_parameters and round(paper_parameters[0]),
        "paper_multiply_adds": paper_multiply_adds and round(paper_multiply_adds[0]),
        "published_error": row.error,
        "source": row.source,
        "configs": configs,
        "note": row.note,
    }


def configs_of(row: Row) -> list[str]:
    """The experiments that train this architecture."""
    return [path for path, model, classes in experiments() if classes == row.classes and same_net(row, model)]


@cache
def experiments() -> list[tuple[str, dict[str, Any], int]]:
    """Path, model and number of classes of every experiment of ImageNet and CIFAR-10."""
    return [
        (str(path.relative_to(HOME)), yaml.safe_load(path.read_text())["model"], classes)
        for folder, classes in (("imagenet", 1000), ("cifar10", 10))
        for path in sorted((HOME / "configs" / folder).rglob("*.yaml"))
    ]


def same_net(row: Row, model: dict[str, Any]) -> bool:
    """Whether an experiment's model is this architecture: the same class and arguments, defaults filled in."""
    if model["class_path"] != f"lit_models.{row.family}":
        return False
    parameters = inspect.signature(getattr(lit_models, row.family).__init__).parameters
    own = {name: p.default for name, p in parameters.items() if name not in ("self", "num_classes", "kwargs")}
    own = {name: default for name, default in own.items() if name not in OF_TRAINING} | {"norm": None}
    wanted, given = (
        {name: arguments.get(name, default) for name, default in own.items()}
        for arguments in (row.arguments, model.get("init_args", {}))
    )
    return wanted == given


def table(measured: list[dict[str, Any]]) -> Table:
    """The terminal's table."""
    result = Table(title="Architectures, counted without auxiliary heads, and what their papers say")
    for column in ("name", "input", "parameters", "paper", "auxiliary", "multiply-adds", "paper", "source", "configs"):
        result.add_column(column, justify="left" if column in ("name", "source") else "right")
    for row in measured:
        result.add_row(
            row["name"] + (" *" if row["note"] else ""),
            str(row["input_size"]),
            f"{row['parameters']:,}",
            beside(row["parameters"], row["paper_parameters"], 1e6, "M"),
            f"{row['aux_parameters']:,}" if row["aux_parameters"] else "",
            f"{row['multiply_adds'] / 1e9:.4f} G",
            beside(row["multiply_adds"], row["paper_multiply_adds"], 1e9, "G"),
            row["source"],
            str(len(row["configs"])),
        )
    return result


def beside(counted: int, paper: int | None, unit: float, letter: str) -> str:
    """The paper's count and the difference to it."""
    return "" if paper is None else f"{paper / unit:g} {letter} ({counted / paper - 1:+.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too, as a list of objects")
    arguments = parser.parse_args()
    measured = [measure(row, configs_of(row)) for row in ROWS]
    console = Console()
    console = Console(width=max(console.width, 150)) if not console.is_terminal else console
    console.print(table(measured))
    for row in measured:
        if row["note"]:
            console.print(f"* {row['name']}: {row['note']}", highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=2) + "\n")
        console.print(f"Wrote {arguments.json}")


if __name__ == "__main__":
    main()
