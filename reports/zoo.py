"""Every architecture of the papers, counted, beside what its paper prints; and every architecture of your own.

python -m reports.zoo
python -m reports.zoo --html zoo.html --json zoo.json --runs runs

An architecture of your own is listed once an experiment under configs/ names its class.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import lit_models
from cli.yaml_files import read_yaml
from errors import pluralize
from lit_models.counts import count_used
from reports.command import Parser, print_sections
from reports.html_page import Section, Table
from reports.outputs import add_output_flags, check_outputs, write_outputs
from reports.papers.architectures import ARCHITECTURES, Architecture
from reports.run import Run
from reports.zoo_errors import error_sections, find_errors, published_top1, read_runs

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def read_experiments() -> dict[str, Architecture]:
    """The architecture of each YAML under configs/ that names the class of its model, by path; overlays do not."""
    contents = {path.relative_to(CONFIGS): read_yaml(path) for path in sorted(CONFIGS.rglob("*.yaml"))}
    return {
        f"configs/{path.as_posix()}": experiment_architecture(path, content["model"], content.get("data", {}))
        for path, content in contents.items()
        if "class_path" in content.get("model", {})
    }


def experiment_architecture(path: Path, model: dict[str, Any], data: dict[str, Any]) -> Architecture:
    """The architecture of an experiment, named after its file.

    Args:
        path: of the YAML file, relative to configs/.
        model: its section `model`.
        data: its section `data`.
    """
    dataset = path.parts[0]
    size = data.get("init_args", {}).get("size", 224 if dataset == "imagenet" else 32)
    bare = Architecture(str(path.with_suffix("")), model["class_path"], dataset=dataset, size=size)
    note = f"in no paper's table; counted for {bare.num_classes:,} classes of {size} px"
    return replace(bare, arguments=bare.network_arguments(model.get("init_args", {})), note=note)


def trains(experiment: Architecture, row: Architecture) -> bool:
    """Whether an experiment trains the network of a row on the row's data set."""
    return experiment.dataset == row.dataset and row.matches_network(experiment.family, experiment.arguments)


def configs_of(row: Architecture, experiments: dict[str, Architecture]) -> list[str]:
    """The paths of the experiments that train this architecture."""
    return [path for path, experiment in experiments.items() if trains(experiment, row)]


def own_architectures(experiments: Iterable[Architecture]) -> list[Architecture]:
    """The architectures of experiments that are in no paper's row, each once."""
    found: list[Architecture] = []
    for experiment in experiments:
        in_paper = any(row.matches_network(experiment.family, experiment.arguments) for row in ARCHITECTURES)
        if not in_paper and not any(trains(experiment, row) for row in found):
            found.append(experiment)
    return found


def parse_count(text: str) -> int | None:
    """A printed count: "25.6M" is 25,600,000; None if the paper prints none."""
    return round(float(text[:-1]) * {"M": 1e6, "G": 1e9}[text[-1]]) if text else None


def measure(row: Architecture, experiments: dict[str, Architecture], runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that the report says about one architecture.

    Args:
        experiments: see `read_experiments`.
        runs: with tests; see `zoo_errors.read_runs`.
    """
    net, errors = row.build(), find_errors(row, runs)
    used = count_used(net, row.size)
    return {
        "name": row.name,
        "family": row.family.rpartition(".")[2],
        "dataset": row.dataset,
        "input_size": row.size,
        "parameters": used.parameters,
        "aux_parameters": sum(each.numel() for each in net.parameters()) - used.parameters,
        "multiply_adds": used.multiply_adds,
        "paper_parameters": parse_count(row.parameters),
        "paper_multiply_adds": parse_count(row.multiply_adds),
        "published_error": row.error,
        "published_top1_error": published_top1(row.error),
        "our_top1_error": float(np.mean(errors)) if errors else None,
        "our_runs": len(errors),
        "source": row.source,
        "configs": configs_of(row, experiments),
        "note": row.note,
    }


def table(measured: list[dict[str, Any]]) -> Table:
    """Counts and errors."""
    columns = ["<name", "input", "parameters", "paper", "auxiliary", "multiply-adds", "paper"]
    columns += ["<published error, top-1 / top-5", "<source", "configs"]
    with_ours = any(row["our_runs"] for row in measured)
    if with_ours:
        columns.insert(-2, "our top-1, %")
    rows = [
        [
            row["name"] + (" *" if row["note"] else ""),
            str(row["input_size"]),
            f"{row['parameters']:,}",
            paper_count_cell(row["parameters"], row["paper_parameters"], 1e6, "M"),
            f"{row['aux_parameters']:,}" if row["aux_parameters"] else "",
            f"{row['multiply_adds'] / 1e9:.4f} G",
            paper_count_cell(row["multiply_adds"], row["paper_multiply_adds"], 1e9, "G"),
            row["published_error"],
            *([our_error_cell(row)] if with_ours else []),
            row["source"],
            str(len(row["configs"])),
        ]
        for row in measured
    ]
    return Table("Architectures, counted without auxiliary heads, beside the counts of their papers", columns, rows)


def paper_count_cell(counted: int, paper: int | None, unit: float, letter: str) -> str:
    """The paper's count and our difference to it: "25.6 M (-0.2%)"."""
    return "" if paper is None else f"{paper / unit:g} {letter} ({counted / paper - 1:+.1%})"


def our_error_cell(row: Mapping[str, Any]) -> str:
    """The mean error of our runs, and their number: "8.31 (n = 5)"."""
    return f"{100 * row['our_top1_error']:.2f} (n = {row['our_runs']})" if row["our_runs"] else ""


def notes(measured: list[dict[str, Any]]) -> list[str]:
    """Why counts differ from the papers', and which families are not counted."""
    counted = {row["family"] for row in measured}
    return [
        *(f"* {row['name']}: {row['note']}" for row in measured if row["note"]),
        *(
            f"lit_models.{name} is not counted: no experiment under configs/ names it."
            for name in lit_models.__all__
            if name not in counted and name != "LitClassifier"
        ),
    ]


def conclusion(measured: list[dict[str, Any]]) -> str:
    """How many architectures there are, and for how many an error is known."""
    errors = sum(row["published_top1_error"] is not None for row in measured)
    text = f"{pluralize(len(measured), 'architecture')}, built and counted; a paper prints the top-1 error of {errors}."
    runs = sum(row["our_runs"] for row in measured)
    return f"{text} {pluralize(runs, 'run')} of ours {'is' if runs == 1 else 'are'} beside them." if runs else text


def report(given: argparse.Namespace) -> None:
    """Count, print the table and write the files."""
    check_outputs(given)
    experiments, runs = read_experiments(), read_runs(given.runs) if given.runs else []
    rows = ARCHITECTURES + own_architectures(experiments.values())
    measured = [measure(row, experiments, runs) for row in rows]
    sections = [Section("Architectures", [table(measured)]), Section("Notes", notes(measured), folded=True)]
    sections = [*error_sections(measured), *sections]
    lead = conclusion(measured)
    print_sections(sections, lead)
    write_outputs(given, "Architectures", sections, measured, lead)


def main(args: list[str] | None = None) -> None:
    """The command line of this report; `args` are by default those of the process."""
    parser = Parser("reports.zoo", __doc__, takes_main_flags=False)
    parser.add_argument("--runs", type=Path, metavar="DIR", help="show the errors of runs that were tested, too")
    add_output_flags(parser)
    parser.run(report, args)


if __name__ == "__main__":
    main()
