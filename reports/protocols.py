"""Table of models x protocols, as GoogLeNet's Table 3, with confusions and calibration.

python -m reports.protocols --checkpoints runs/digits/resnet20 runs/digits/vgg --protocols center ten_crop crops_144
python -m reports.protocols --checkpoints A B C --protocols center --html FILE --latex FILE --json FILE --calibrate
python -m reports.protocols --draw IMAGE --protocols ten_crop crops_144 --output FILE

Predictions of earlier tests are read if the checkpoint has not changed since. Missing tests are run first, each
checkpoint on its own data; flags of main.py, such as --data.root DIR, are passed on to them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpointing.predictions import Predictions
from checkpointing.record import read_checkpoint
from checkpointing.run_dir import find_checkpoint
from datamodules.views import PROTOCOLS
from errors import expand_home, pluralize
from reports import metrics, plots
from reports.command import SELECTION_NOTE, Parser, print_sections, run_label, selection_mark
from reports.draw_crops import draw
from reports.error_analysis import ErrorAnalysis
from reports.evaluation import check_same_classes, is_finite, load_predictions
from reports.html_page import Figure, Part, Section, Table, format_table, with_interval
from reports.metrics import LogProbs
from reports.outputs import add_output_flags, check_outputs, write_outputs
from reports.papers.published import find_published_row, is_imagenet

TITLE = "Models and protocols"
Row = dict[str, Any]
Diverged = dict[str, str]  # checkpoint and reason of a model that has no errors
PredictionsByProtocol = dict[str, list[Predictions]]  # by protocol, of each model


def measure(members: Sequence[Predictions], predictors: LogProbs, base: LogProbs) -> Row:
    """A row of the table: the mean over predictors that are tested with one protocol.

    Args:
        members: the predictions of the models.
        predictors: [N, K] of each predictor: of each model, or of their ensemble alone.
        base: [N, K] of each predictor of the first row, for the differences to it, paired by image.

    Returns:
        The row, for JSON.
    """
    labels, models = members[0].labels, len(members) // len(predictors)
    each = [metrics.summary(log_probs, labels) for log_probs in predictors]
    views = [member.views for member in members]
    row: Row = {"models": models, "protocol": members[0].protocol, "views": views[0]}
    row["selected_on_test"] = any(member.selected_on_test for member in members)
    row["cost"] = round(models * sum(views) / len(views))
    row |= {name: float(np.mean([result[name] for result in each])) for name in each[0]}
    for k in metrics.reported_k(len(members[0].class_names)):
        errors = metrics.mean_topk_errors(predictors, labels, k)
        differences = errors - metrics.mean_topk_errors(base, labels, k)
        row[f"top{k}_interval"] = metrics.error_interval(errors)
        row[f"top{k}_range"] = [pick(result[f"top{k}_error"] for result in each) for pick in (min, max)]
        row[f"top{k}_difference"] = float(differences.mean())
        row[f"top{k}_difference_interval"] = metrics.bootstrap_interval(differences)
    return row | {"checkpoints": [member.checkpoint for member in members], "each": each}


def all_rows(tests: PredictionsByProtocol, configs: list[dict[str, Any]]) -> list[Row]:
    """The table: single models with every protocol, then their ensembles; the first row is the base of differences.

    Args:
        tests: for each protocol, the predictions of each model.
        configs: of the models, as in their checkpoints.
    """
    singles = [[member.log_probabilities for member in members] for members in tests.values()]
    rows = [measure(*pair, base=singles[0]) for pair in zip(tests.values(), singles, strict=True)]
    if len(configs) > 1:
        ensembles = [[metrics.ensemble_mean(log_probs)] for log_probs in singles]
        rows += [measure(*pair, base=singles[0]) for pair in zip(tests.values(), ensembles, strict=True)]
    add_papers(rows, configs, next(iter(tests.values()))[0])
    return rows


def add_papers(rows: list[Row], configs: list[dict[str, Any]], test: Predictions) -> None:
    """Add what the papers print of these models and protocols."""
    imagenet = all(is_imagenet(config, test.class_names.tolist()) for config in configs)
    single = [[config] for config in configs]
    for row in rows:
        predictors = [configs] if row["models"] > 1 else single
        paper = find_published_row(predictors, row["protocol"], single, rows[0]["protocol"], imagenet)
        row["paper"] = paper and {
            **dict(zip(("top1", "top5"), paper.errors, strict=True)),
            "printed": paper.error,
            "source": paper.source,
            "is_difference": not imagenet,
        }


def main_table(rows: list[Row]) -> Table:
    """GoogLeNet's Table 3."""
    columns = {"models": "{models}", "<protocol": "{protocol}{mark}", "views": "{views}", "cost": "{cost}"}
    for k in (k for k in (1, 5) if f"top{k}_error" in rows[0]):
        columns[f"top-{k} error, %"] = with_interval(f"top{k}_error", f"top{k}_interval")
        if k == 1 and len(rows[0]["each"]) > 1:
            columns["each model, %"] = "{range}"
        columns[f"top-{k} to base, %"] = with_interval(f"top{k}_difference", f"top{k}_difference_interval", "+.2%")
    if papers := [row["paper"] for row in rows if row["paper"]]:
        columns["<paper, to its base" if papers[0]["is_difference"] else "<paper"] = "{printed}"
    lines = []
    for row in rows:
        printed = "{printed} ({source})".format(**row["paper"]) if row["paper"] else ""
        best_to_worst = "{:.2%} to {:.2%}".format(*row["top1_range"]) if row["models"] == 1 else ""
        lines.append(row | {"range": best_to_worst, "printed": printed, "mark": selection_mark(row)})
    return format_table("Errors and their cost", lines, columns)


def explanation(rows: list[Row], test: Predictions) -> list[str]:
    """Paragraphs on the columns of the table."""
    images, models = len(test.labels), len(rows[0]["checkpoints"])
    several = f' "1 model": average error of the {models} single models. "{models} models": their ensemble.'
    text = [
        f"{images:,} images of {len(test.class_names):,} classes. Cost: forward passes per image."
        f"{several if models > 1 else ''} Brackets: 95 % bootstrap interval over the test images. It does not include "
        "the variation between training runs. Differences to the base, the first row, are paired by image."
    ]
    if any(row.get(key) == 0 for row in rows for key in ("top1_error", "top5_error")):
        bound = 100 * metrics.upper_bound_without_errors(images)
        text.append(f"No errors observed; 95 % upper bound {bound:.2f} %. Brackets of 0 errors: Wilson interval.")
    if any(row["selected_on_test"] for row in rows):
        text.append(SELECTION_NOTE)
    if not test.complete:
        text.append("Images that could not be read are left out.")
    return text


def table_of_models(rows: list[Row], diverged: list[Diverged]) -> Table:
    """Errors of each model with each protocol, or the reason why it has none.

    Args:
        rows: those of single models; empty if all have diverged.
        diverged: see `load_test_predictions`.
    """
    keys = [key for key in ("top1_error", "top5_error") if rows and key in rows[0]]
    lines = [
        [run_label(path), *(" / ".join(f"{100 * row['each'][index][key]:.2f}" for key in keys) for row in rows)]
        for index, path in enumerate(rows[0]["checkpoints"] if rows else [])
    ]
    columns = ["<model", *(row["protocol"] + selection_mark(row) for row in rows)]
    if diverged:
        columns.append("<state")
        lines = [[*line, ""] for line in lines]
        lines += [[run_label(each["checkpoint"]), *("" for _ in rows), each["reason"]] for each in diverged]
    title = "Top-1 / top-5 error of each model, %" if len(keys) > 1 else "Top-1 error of each model, %"
    return Table(title, columns, lines)


def overview(rows: list[Row], test: Predictions, diverged: list[Diverged]) -> Section:
    """The table, its explanation and its chart."""
    parts: list[Part] = [main_table(rows), *explanation(rows, test)]
    several = len(rows[0]["each"]) > 1
    if several or diverged:
        parts.append(table_of_models([row for row in rows if row["models"] == 1], diverged))
    if diverged:
        parts.append(f"{pluralize(len(diverged), 'model')} diverged: left out of all means, ensembles and figures.")
    if len(rows) > 1:
        title = "Error against cost, with 95 % intervals" + ("; dashes: each model" if several else "")
        parts.append(Figure(title, plots.cost_chart(rows)))
    return Section("Models x protocols", parts)


def conclusion(rows: list[Row]) -> str:
    """The lowest error, whose it is, and what it costs."""
    best = min(rows, key=lambda row: (row["top1_error"], row["cost"]))
    low, high = best["top1_interval"]
    error = f"{best['top1_error']:.2%} top-1 error (95% interval {low:.2%} to {high:.2%}) with {best['protocol']}"
    models = len(best["checkpoints"])
    if best["models"] > 1:
        text = f"The ensemble of {models} models has the lowest error: {error}"
    elif models > 1:
        text = f"The {models} single models have the lowest error, on average: {error}"
    else:
        text = f"{run_label(best['checkpoints'][0])} has {error}"
    text += f", at {best['cost']:,} forward {'pass' if best['cost'] == 1 else 'passes'} per image."
    if best["selected_on_test"]:
        text += " Its checkpoint was chosen by its error on these images, so this is optimistic."
    return text


def report(given: argparse.Namespace) -> None:
    """Run missing tests, print the tables and write the files; or draw views."""
    if given.draw:
        return draw(given.draw, given.protocols, given.size, given.output)
    check_outputs(given)
    tests, configs, diverged = load_test_predictions(given)
    facts: dict[str, Any] = {"diverged": diverged}
    if configs:
        rows = all_rows(tests, configs)
        analysis = analyse_best(rows, tests, given.calibrate, given.flags)
        facts = {"images": len(analysis.test.labels), "data_hash": analysis.test.data_hash, "rows": rows}
        facts |= {"diverged": diverged, "error_analysis": analysis.facts()}
        pictures = analysis.load_pictures(given.flags) if given.html else None
        sections = [overview(rows, analysis.test, diverged), analysis.errors(pictures), analysis.calibration(rows)]
        lead = conclusion(rows)
    else:
        sections, lead = [Section("Models", [table_of_models([], diverged)])], "All models have diverged."
    print_sections(sections, lead)
    write_outputs(given, TITLE, sections, facts, lead)


def load_test_predictions(
    given: argparse.Namespace,
) -> tuple[PredictionsByProtocol, list[dict[str, Any]], list[Diverged]]:
    """For each protocol the predictions of each model; the configs of the models; and the models that have diverged.

    Models whose predictions are NaN with any of the protocols are in the last list alone.
    """
    files = [find_checkpoint(expand_home(path), "test") for path in given.checkpoints]
    records = [read_checkpoint(file).record for file in files]
    for file, record in zip(files, records, strict=True):  # before hours of tests
        check_same_classes(f"{file} and {files[0]}", records[0].class_names, record.class_names)
    protocols = list(dict.fromkeys(given.protocols))
    requests = [(file, name) for name in protocols for file in files]
    found = iter(load_predictions(requests, "test", given.flags, refuse_nan=False))
    tests = {name: [next(found) for _ in files] for name in protocols}
    nan = [[name for name in protocols if not is_finite(tests[name][index])] for index in range(len(files))]
    diverged = [
        {"checkpoint": str(file.absolute()), "reason": f"diverged: its predictions are NaN ({', '.join(names)})"}
        for file, names in zip(files, nan, strict=True)
        if names
    ]
    kept = [index for index, names in enumerate(nan) if not names]
    tests = {name: [members[index] for index in kept] for name, members in tests.items()}
    return tests, [records[index].config for index in kept], diverged


def analyse_best(rows: list[Row], tests: PredictionsByProtocol, calibrate: bool, flags: Sequence[str]) -> ErrorAnalysis:
    """Analyse the row of all models with the lowest error, the cheapest one of equals."""
    of_all = [row for row in rows if row["models"] == len(row["checkpoints"])]
    best = min(of_all, key=lambda row: (row["top1_error"], row["cost"]))
    members, validation = tests[best["protocol"]], []
    if calibrate:
        pairs = [(Path(member.checkpoint), member.protocol) for member in members]
        validation = load_predictions(pairs, "validate", flags)
    return ErrorAnalysis(best, members, validation)


def main(args: list[str] | None = None) -> None:
    """The command line of this report; `args` are by default those of the process."""
    parser = Parser("reports.protocols", __doc__)
    parser.add_argument("--checkpoints", type=Path, nargs="+", default=[], metavar="RUN", help="runs or .ckpt files")
    parser.add_argument("--protocols", nargs="+", default=["center"], metavar="NAME", help=f"of {', '.join(PROTOCOLS)}")
    add_output_flags(parser)
    parser.add_argument("--calibrate", action="store_true", help="fit a temperature on the validation images")
    parser.add_argument("--draw", type=Path, metavar="IMAGE", help="only draw the views of the protocols on an image")
    parser.add_argument("--size", type=int, default=224, help="for --draw: pixels per side of the net's input (224)")
    parser.add_argument("--output", type=Path, default=Path("views.png"), metavar="FILE", help="for --draw (views.png)")
    parser.run(report, args)


if __name__ == "__main__":
    main()
