"""Probability ensembles of checkpoints, of one family or of several, each tested with a protocol of its own.

python -m reports.ensemble --members runs/digits/resnet20/version_0 runs/digits/resnet20/version_1 runs/digits/vgg
python -m reports.ensemble --members A B C --protocols center ten_crop ten_crop --mean geometric --weights 1 2 2
python -m reports.ensemble --members A B C D E --greedy

Predictions of earlier tests are merged; missing tests are run first, and flags of main.py, such as --data.root DIR, are
passed on to them. The result is written to runs/<dataset>/ensemble/version_N/. `--greedy` selects members on the
validation images: in each step the one that lowers the error most, up to the step with the lowest error.
"""

import argparse
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from callbacks.wandb_results import finish, log_result
from checkpointing.predictions import Predictions
from checkpointing.record import read_checkpoint
from checkpointing.run_dir import claim_version, version_folder
from cli.wandb_runs import is_logged, logged_with, open_run
from errors import UserError, pluralize
from reports import plots
from reports.command import SELECTION_NOTE, Parser, print_sections, run_label, selection_mark, write_file
from reports.evaluation import load_predictions
from reports.html_page import Figure, Part, Section, format_table, html, with_interval
from reports.metrics import LogProbs, Mean, ensemble_mean, negative_log_likelihood, summary, topk_errors
from reports.outputs import add_output_flags, check_outputs, json_text, write_outputs

MAX_SUBSETS = 100  # of each size
TITLE = "Ensemble"
PREDICTIONS = "predictions-ensemble.npz"
Content = dict[str, Any]  # of ensemble.json


class Step(NamedTuple):
    """A step of greedy selection; steps are compared by their error, then by their loss.

    Args:
        error: top-1 error, in [0, 1], of all members added so far, on the validation images.
        loss: their mean negative log-likelihood.
        member: index of the member that is added.
    """

    error: float
    loss: float
    member: int


def error_by_size(log_probs: LogProbs, labels: np.ndarray, mean: Mean = "arithmetic") -> list[dict[str, float]]:
    """Top-1 error of ensembles of 1 to M members: mean, least and most over all subsets of a size.

    Of more than `MAX_SUBSETS` subsets, that many are drawn.
    """
    generator, rows = np.random.default_rng(0), []
    for size in range(1, len(log_probs) + 1):
        subsets: Iterable[Sequence[int]] = combinations(range(len(log_probs)), size)
        if comb(len(log_probs), size) > MAX_SUBSETS:
            subsets = [generator.choice(len(log_probs), size, replace=False).tolist() for _ in range(MAX_SUBSETS)]
        ensembles = (ensemble_mean([log_probs[index] for index in subset], mean) for subset in subsets)
        errors = [float(topk_errors(ensemble, labels).mean()) for ensemble in ensembles]
        rows.append({"members": size, "top1_error": float(np.mean(errors)), "least": min(errors), "most": max(errors)})
    return rows


def select_greedily(log_probs: LogProbs, labels: np.ndarray, mean: Mean = "arithmetic") -> list[Step]:
    """Forward selection (Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004), without repeats.

    Args:
        log_probs: [N, K] of each member, on the *validation* images.
        labels: theirs.

    Returns:
        A step for every member: each adds the one that lowers the error most.
    """
    steps: list[Step] = []

    def try_member(member: int) -> Step:
        ensemble = ensemble_mean([log_probs[k] for k in (*(step.member for step in steps), member)], mean)
        return Step(float(topk_errors(ensemble, labels).mean()), negative_log_likelihood(ensemble, labels), member)

    while left := set(range(len(log_probs))) - {step.member for step in steps}:
        steps.append(min(map(try_member, left)))
    return steps


def best_members(steps: Sequence[Step]) -> list[int]:
    """Indices of the members up to the first step with the lowest error and loss, in ascending order."""
    last = min(range(len(steps)), key=lambda number: steps[number][:2])
    return sorted(step.member for step in steps[: last + 1])


def check_arguments(given: argparse.Namespace) -> None:
    """Raise UserError for protocols and weights that do not fit the members."""
    members, weights = len(given.members), given.weights
    if len(given.protocols) not in (1, members):
        raise UserError(
            f"There are {members} members and {len(given.protocols)} protocols: give one for all, or one for each in "
            "the same order."
        )
    if weights and given.greedy:
        raise UserError("--weights and --greedy both say which members count: give one of them.")
    if weights and (len(weights) != members or not (min(weights) >= 0 and 0 < sum(weights) < np.inf)):
        raise UserError(
            f"The weights {weights} are not for {members} members: give a number of at least 0 for each, not all 0."
        )


def report(given: argparse.Namespace) -> None:
    """Run missing tests, merge the predictions, print the tables and write the files."""
    check_arguments(given)
    check_outputs(given)
    protocols = given.protocols * (len(given.members) if len(given.protocols) == 1 else 1)
    pairs = list(zip(given.members, protocols, strict=True))
    members = load_predictions(pairs, flags=given.flags)
    chosen, steps, on_test = list(range(len(members))), [], False
    if given.greedy:
        validation = load_predictions(pairs, "validate", given.flags)
        steps = select_greedily([each.log_probabilities for each in validation], validation[0].labels, given.mean)
        chosen, on_test = best_members(steps), validation[0].data_hash == members[0].data_hash
    weights = given.weights or [float(index in chosen) for index in range(len(members))]
    ensemble = merge([members[index] for index in chosen], given.mean, given.weights)
    content = measure(members, weights, ensemble, given.mean)
    content |= {"greedy": [step._asdict() for step in steps], "greedy_on_test": on_test}
    content["selected_on_test"] = on_test or ensemble.selected_on_test
    sections, lead = [Section("Errors", overview(content))], conclusion(content)
    run = version_folder(Path(members[0].checkpoint))
    dataset = run.parent.parent.name if run else "mixed"  # a checkpoint outside of any run
    print_sections(sections, lead)
    folder = claim_version(given.runs / dataset / "ensemble")
    try:
        ensemble.write(folder / PREDICTIONS)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written into ({error.strerror}): choose another place with --runs."
        ) from error
    write_file(folder / "ensemble.json", json_text(content))
    write_file(folder / "ensemble.html", html(TITLE, sections, lead))
    write_outputs(given, TITLE, sections, content, lead)
    print(f"Wrote {folder / PREDICTIONS}", flush=True)
    log_to_wandb(folder, content, ensemble, given.greedy)


def log_to_wandb(folder: Path, content: Content, ensemble: Predictions, greedy: bool) -> None:
    """Log the ensemble as a W&B run of its own, in the result's folder, if W&B has logged one of its members."""
    members, projects = [], []
    for row in content["members"]:
        path = Path(row["checkpoint"])
        record = read_checkpoint(path, verify=False).record
        run_id = record.wandb_run_id if is_logged(version_folder(path), record.wandb_run_id) else None
        projects += [logged_with(record).get("project")] if run_id else []
        members.append({name: row[name] for name in ("checkpoint", "protocol", "weight")} | {"wandb_run_id": run_id})
    if not projects:
        return
    dataset = folder.parent.parent.name
    config = {"members": members, "mean": content["mean"], "greedy": greedy}
    name = f"{dataset}/ensemble/{folder.name}"
    if run := open_run(folder, project=projects[0], group=dataset, job_type="ensemble", name=name, config=config):
        row = content["ensemble"]
        metrics = {key: value for key, value in row.items() if isinstance(value, float) and key != "weight"}
        log_result(run, f"test/{ensemble.protocol}", metrics, ensemble, stands_for_run=True)
        finish(run, folder)


def merge(
    members: Sequence[Predictions], mean: Mean = "arithmetic", weights: Sequence[float] | None = None
) -> Predictions:
    """The predictions of an ensemble, for whoever takes it for a model."""
    log_probs = ensemble_mean([member.log_probabilities for member in members], mean, weights)
    hashes = "".join(sorted(member.checkpoint_hash for member in members))
    return replace(
        members[0],
        log_probabilities=log_probs,
        protocol="+".join(dict.fromkeys(member.protocol for member in members)),
        views=sum(member.views for member in members),
        checkpoint=f"{mean} mean of {pluralize(len(members), 'member')}",
        checkpoint_hash=hashlib.sha256(hashes.encode()).hexdigest(),
        complete=all(member.complete for member in members),
        selected_on_test=any(member.selected_on_test for member in members),
    )


def measure(members: Sequence[Predictions], weights: Sequence[float], ensemble: Predictions, mean: Mean) -> Content:
    """Everything about members and ensemble, for JSON."""
    rows = [
        {"checkpoint": each.checkpoint, "protocol": each.protocol, "views": each.views, "weight": weight}
        | {"selected_on_test": each.selected_on_test}
        | summary(each.log_probabilities, each.labels)
        for each, weight in zip([*members, ensemble], [*weights, sum(weights)], strict=True)
    ]
    content = {"name": ensemble.checkpoint, "mean": mean, "images": len(ensemble.labels)}
    content |= {"members": rows[:-1], "ensemble": rows[-1], "partial": not all(member.complete for member in members)}
    content["mean_of_members"] = float(np.mean([row["top1_error"] for row in rows[:-1]]))
    content["curve"] = error_by_size([member.log_probabilities for member in members], ensemble.labels, mean)
    return content


def overview(content: Content) -> list[Part]:
    """Members and ensemble, the steps of greedy selection, and the error by ensemble size."""
    all_rows = (*content["members"], content["ensemble"])
    rows = [row | {"label": run_label(row["checkpoint"]) + selection_mark(row)} for row in all_rows]
    columns = {"<model": "{label}", "<protocol": "{protocol}", "weight": "{weight:g}", "views": "{views}"}
    columns["top-1 error, %"] = with_interval("top1_error", "top1_interval")
    columns |= {"top-5 error, %": "{top5_error:.2%}"} if "top5_error" in rows[0] else {}
    columns |= {"NLL": "{nll:.4f}", "ECE": "{ece:.4f}"}
    parts: list[Part] = [
        format_table(f"Members and ensemble on {content['images']:,} images", rows, columns),
    ]
    parts += [SELECTION_NOTE] if content["ensemble"]["selected_on_test"] else []
    if content["greedy"]:
        steps = [step | rows[step["member"]] for step in content["greedy"]]
        columns = {"<added": "{label}", "<protocol": "{protocol}", "top-1 error, %": "{error:.2%}", "NLL": "{loss:.4f}"}
        parts.append(format_table("Greedy selection on the validation images, step by step", steps, columns))
    if len(content["members"]) > 1:
        title = "Error by ensemble size: mean, best and worst over all subsets (at most 100 of a size), equal weights"
        columns = {"members": "{members}", "mean": "{top1_error:.2%}", "best": "{least:.2%}", "worst": "{most:.2%}"}
        chart = plots.ensemble_size_chart(content["curve"])
        parts += [format_table(title, content["curve"], columns), Figure(title, chart)]
    return parts


def conclusion(content: Content) -> str:
    """The ensemble's error beside its members'."""
    best = min(row["top1_error"] for row in content["members"])
    text = (
        f"The ensemble has {content['ensemble']['top1_error']:.2%} top-1 error; its members have "
        f"{content['mean_of_members']:.2%} on average and {best:.2%} at best, which is known from the test images only."
    )
    if content["partial"]:
        text += " Images that could not be read are left out."
    if content["greedy_on_test"]:
        text += " Members were selected on these test images, which are the validation images too: it is optimistic."
    return text


def main(args: list[str] | None = None) -> None:
    """The command line of this report; `args` are by default those of the process."""
    parser = Parser("reports.ensemble", __doc__)
    parser.add_argument("--members", type=Path, nargs="+", default=[], metavar="RUN", help="runs or .ckpt files")
    parser.add_argument("--protocols", nargs="+", default=["center"], metavar="NAME", help="one for all or for each")
    parser.add_argument("--mean", choices=("arithmetic", "geometric"), default="arithmetic", help="of probabilities")
    parser.add_argument("--weights", type=float, nargs="+", metavar="W", help="one for each member (equal)")
    parser.add_argument("--greedy", action="store_true", help="select members on the validation images")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of the result (runs)")
    add_output_flags(parser)
    parser.run(report, args)


if __name__ == "__main__":
    main()
