"""Models x ways of testing, as in GoogLeNet's Table 3, and what the predictions say besides: confusion, calibration.

python -m reports.protocols --checkpoints runs/digits/resnet20 runs/digits/vgg --protocols center ten_crop crops_144
python -m reports.protocols --checkpoints A B C --protocols center --html FILE --markdown FILE --json FILE --calibrate
python -m reports.protocols --draw IMAGE --protocols ten_crop crops_144 --output FILE

Tests that are missing are run first, each checkpoint's on its own data; flags of main.py, such as --data.root DIR, are
for these. Tests that lie beside a run, of a checkpoint that has not changed since, are read.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpointing.predictions import Predictions
from checkpointing.record import RECORD, read_checkpoint
from checkpointing.run_dir import find_checkpoint
from datamodules.views import PROTOCOLS
from errors import UserError
from reports import html_page, metrics
from reports.command import Parser, name_of, show
from reports.draw_crops import draw
from reports.ensemble import merge
from reports.error_analysis import Look, percent
from reports.evaluation import all_predictions, check_same_classes, check_same_set
from reports.html_page import Figure, Section, Table
from reports.papers.matching import find_published_row, is_imagenet
from reports.plots import cost_chart

TITLE = "Models and ways of testing"


def measure(members: Sequence[Predictions], predictors: Iterable[np.ndarray], models: int) -> dict[str, Any]:
    """A row of the table: the mean over predictors that are tested in one way.

    Args:
        members: the models.
        predictors: log-probabilities [N, K]: of each model, or of all of them together.
        models: in each predictor.

    Returns:
        The row, for JSON but for `misses`: for each k, the share of the predictors that miss each image, [N].
    """
    labels, classes = members[0].labels, len(members[0].class_names)
    places = [k for k in (1, 5) if k < classes]
    each, missed = [], []
    for scores in predictors:
        missed.append([metrics.misses(scores, labels, k) for k in places])
        errors = {f"top{k}_error": float(misses.mean()) for k, misses in zip(places, missed[-1], strict=True)}
        each.append(errors | metrics.calibration(scores, labels))
    views = [member.views for member in members]
    row: dict[str, Any] = {"models": models, "protocol": members[0].protocol, "views": views[0]}
    row["cost"] = round(models * sum(views) / len(views))
    row |= {name: float(np.mean([result[name] for result in each])) for name in each[0]}
    row["misses"] = dict(zip(places, np.mean(missed, axis=0), strict=True))
    for k, misses in row["misses"].items():
        row[f"top{k}_interval"] = metrics.interval(misses)
        row[f"top{k}_range"] = [pick(result[f"top{k}_error"] for result in each) for pick in (min, max)]
    return row | {"checkpoints": [member.checkpoint for member in members], "each": each}


def compare(row: dict[str, Any], base: dict[int, np.ndarray]) -> None:
    """Add to a row its differences to another one's misses, image by image; its own are taken out."""
    for k, misses in row.pop("misses").items():
        row[f"top{k}_difference"] = float((misses - base[k]).mean())
        row[f"top{k}_difference_interval"] = metrics.interval(misses - base[k])


def all_rows(tests: dict[str, list[Predictions]], configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table: one model by every protocol, then all of them together; the first row is the base.

    Args:
        tests: for each protocol, what each model says.
        configs: of the models, as their checkpoints hold them.
    """
    count = len(configs)
    rows = [measure(members, (member.normalised() for member in members), 1) for members in tests.values()]
    if count > 1:
        rows += [measure(members, [merge(members)], count) for members in tests.values()]
    base = rows[0]["misses"]
    first = next(iter(tests.values()))[0]
    imagenet = all(is_imagenet(config, first.class_names.tolist()) for config in configs)
    alone = [[config] for config in configs]
    for row in rows:
        compare(row, base)
        predictors = [configs] if row["models"] > 1 else alone
        paper = find_published_row(predictors, row["protocol"], alone, first.protocol, imagenet)
        row["paper"] = paper and vars(paper)
    return rows


def with_interval(row: dict[str, Any], key: str, form: str = ".2f") -> str:
    """A cell such as 2.78 [1.11, 4.44], in percent."""
    interval = row[f"{key.removesuffix('_error')}_interval"]
    return f"{percent(row[key], form)} [{', '.join(percent(end, form) for end in interval)}]"


def main_table(rows: list[dict[str, Any]]) -> Table:
    """GoogLeNet's Table 3, without columns that are empty."""
    columns = {
        "models": [str(row["models"]) for row in rows],
        "<protocol": [row["protocol"] for row in rows],
        "views": [str(row["views"]) for row in rows],
        "cost": [str(row["cost"]) for row in rows],
    }
    for k in (1, 5):
        if f"top{k}_error" not in rows[0]:
            continue
        columns[f"top-{k} error, %"] = [with_interval(row, f"top{k}_error") for row in rows]
        if k == 1:
            ends = [map(percent, row["top1_range"]) if row["each"][1:] else () for row in rows]
            columns["each model"] = [" to ".join(pair) for pair in ends]
        differences = [with_interval(row, f"top{k}_difference", "+.2f") for row in rows]
        columns[f"top-{k} to base"] = ["base", *differences[1:]]
    papers = [row["paper"] for row in rows]
    name = "<the paper: to its base" if any(paper and paper["is_difference"] for paper in papers) else "<the paper"
    columns[name] = ["{printed} ({source})".format(**paper) if paper else "" for paper in papers]
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return Table("Errors and what they cost", list(shown), list(zip(*shown.values(), strict=True)))


def explanation(rows: list[dict[str, Any]], test: Predictions) -> list[str]:
    """What the table's columns are."""
    images, models = len(test.labels), len(rows[0]["checkpoints"])
    several = f" 1 model is the mean over the {models}, {models} models are the mean of their probabilities."
    text = [
        f"{images:,} images of {len(test.class_names):,} classes.{several if models > 1 else ''} Cost is forward "
        "passes for an image. In brackets, 95 % of the means of images that are drawn anew (bootstrap): what other "
        "images of their kind may change, and nothing of other training runs. Differences to the first row are of the "
        "same images, in points. Where two classes are as good as equal, rounding to 16 bits may have moved an image.",
    ]
    intervals = [row[key] for row in rows for key in ("top1_interval", "top5_interval") if key in row]
    if any(low == high for low, high in intervals):
        text.append(
            "Where there is no mistake (or nothing else) there is nothing to draw, and the interval is one number: "
            f"no mistake in {images:,} images agrees with an error of up to {percent(3 / images)} %."
        )
    if not test.complete:
        text.append("Images of the set that could not be read are left out.")
    return text


def each_model(rows: list[dict[str, Any]]) -> Table:
    """Top-1 and top-5 error of each model by each protocol."""
    alone = [row for row in rows if row["models"] == 1]
    keys = [key for key in ("top1_error", "top5_error") if key in rows[0]]
    lines = [
        [name_of(path), *(" / ".join(percent(row["each"][number][key]) for key in keys) for row in alone)]
        for number, path in enumerate(alone[0]["checkpoints"])
    ]
    title = f"Each model alone: {' / '.join(key.replace('top', 'top-').replace('_', ' ') for key in keys)}, %"
    return Table(title, ["<model", *(row["protocol"] for row in alone)], lines)


def report(given: argparse.Namespace, flags: Sequence[str]) -> None:
    """Run what is missing, and write everything."""
    outputs = {name: path for name in ("html", "markdown", "json") if (path := getattr(given, name))}
    for path in outputs.values():
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path} cannot be written: there is no folder {path.absolute().parent}.")
    files = [find_checkpoint(path.expanduser(), "test") for path in given.checkpoints]
    records = [read_checkpoint(file)[RECORD] for file in files]
    for file, record in zip(files, records, strict=True):  # before hours of tests
        check_same_classes(f"{file} and {files[0]}", records[0]["class_names"], record["class_names"])
    protocols = list(dict.fromkeys(given.protocols))
    found = all_predictions([(path, name) for name in protocols for path in files], "test", flags)
    check_same_set(found)
    tests = {name: found[number * len(files) :][: len(files)] for number, name in enumerate(protocols)}
    rows = all_rows(tests, [record["config"] for record in records])
    best = min((row for row in rows if row["models"] == len(files)), key=lambda row: (row["top1_error"], row["cost"]))
    look = Look.at(best, tests[best["protocol"]], given.calibrate, flags)
    sections = [Section("Models x views", overview(rows, look.test)), *look.sections(rows)]
    facts = {"images": len(look.test.labels), "data_hash": look.test.data_hash}
    written = {
        "html": lambda: html_page.html(TITLE, sections),
        "markdown": lambda: html_page.markdown(TITLE, sections),
        "json": lambda: json.dumps(facts | {"rows": rows, "closer_look": look.facts()}, indent=2) + "\n",
    }
    show(sections)
    for name, path in outputs.items():
        try:
            path.write_text(written[name]())
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): name another file.") from error
        print(f"Wrote {path}")


def overview(rows: list[dict[str, Any]], test: Predictions) -> list[str | Table | Figure]:
    """The first section."""
    parts: list[str | Table | Figure] = [main_table(rows), *explanation(rows, test)]
    parts += [each_model(rows)] if rows[0]["each"][1:] else []
    return parts + ([cost_chart(rows)] if len(rows) > 1 else [])


def main(args: list[str] | None = None) -> None:
    parser = Parser("reports.protocols", __doc__)
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=[], metavar="RUN", help="runs or .ckpt files")
    parser.add_argument("--protocols", nargs="+", default=["center"], metavar="NAME", help=f"of {', '.join(PROTOCOLS)}")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    parser.add_argument("--calibrate", action="store_true", help="fit a temperature on the validation images")
    parser.add_argument("--draw", type=Path, metavar="IMAGE", help="draw what the protocols look at instead")
    parser.add_argument("--size", type=int, default=224, help="for --draw: pixels per side of the net's input (224)")
    parser.add_argument("--output", type=Path, default=Path("views.png"), metavar="FILE", help="for --draw (views.png)")
    parser.run(lambda given, flags: draw_views(given) if given.draw else report(given, flags), args)


def draw_views(given: argparse.Namespace) -> None:
    """What `--draw` asks for."""
    draw(given.draw, given.protocols, given.size, given.output)


if __name__ == "__main__":
    main()
