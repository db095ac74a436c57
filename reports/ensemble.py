"""Probability ensembles: what several checkpoints say together, of one family or of many, each tested in its own way.

python -m reports.ensemble --members runs/digits/resnet20/version_0 runs/digits/resnet20/version_1 runs/digits/vgg
python -m reports.ensemble --members A B C --protocols center ten_crop ten_crop --mean geometric --weights 1 2 2
python -m reports.ensemble --members A B C D E --greedy

A merge of prediction files; tests that are missing are run first. It is written to runs/<dataset>/ensemble/version_N/.
Flags of main.py, such as --data.root DIR, are for these tests. `--greedy` picks members by the validation images: the
one that helps most first, and stops where none helps.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any, Literal

import numpy as np

from checkpointing.predictions import LEAST, Predictions
from checkpointing.run_dir import claim_version, version_folder
from errors import UserError, pluralize
from reports import html_page
from reports.command import Parser, name_of, show
from reports.evaluation import all_predictions, check_same_set
from reports.html_page import Figure, Section, Table
from reports.metrics import calibration, interval, misses, negative_log_likelihood
from reports.plots import curve_chart

Mean = Literal["arithmetic", "geometric"]
IMAGES_AT_ONCE = 4096  # seven nets with 1,000 classes are then 230 MB in float64
CHOICES = 100  # of so many members that the curve is a mean over
PREDICTIONS = "predictions-ensemble.npz"


def merge(
    members: Sequence[Predictions],
    mean: Mean = "arithmetic",
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Log-probabilities [N, K] float32 of the mean of the members' probabilities, the same for every order of them.

    Args:
        members: of one set of images; one member is returned as it is.
        mean: arithmetic, of the probabilities, as the papers do; or geometric, of their logarithms, normalised again.
        weights: what each member counts, at least 0; only their ratios matter. Unset, all the same.

    Raises:
        ValueError: if there are no members, they are not of the same images, or the weights are not for them.
    """
    check_same_set(members)
    given = [1.0] * len(members) if weights is None else list(weights)
    if len(given) != len(members) or not (min(given) >= 0 and 0 < sum(given) < np.inf):
        raise UserError(
            f"The weights {given} are not for {len(members)} members: give a number of at least 0 for each, not all 0."
        )
    if len(members) == 1:
        return members[0].normalised()
    shares = np.array(given) / sum(given)
    starts = range(0, len(members[0].labels), IMAGES_AT_ONCE)
    return np.concatenate([_merged(members, shares, mean, slice(start, start + IMAGES_AT_ONCE)) for start in starts])


def _merged(members: Sequence[Predictions], shares: np.ndarray, mean: Mean, images: slice) -> np.ndarray:
    """Some rows of the result. Sums run over sorted terms, so that their rounding does not know the order either."""
    parts = [replace(member, log_probabilities=member.log_probabilities[images]).normalised() for member in members]
    scores = np.stack(parts).astype(np.float64)  # [M, n, K]
    if mean == "arithmetic":
        with np.errstate(divide="ignore"):  # a member that counts 0 has the logarithm -inf
            terms = scores + np.log(shares)[:, None, None]
        return np.logaddexp.reduce(np.sort(terms, axis=0), axis=0).astype(np.float32)
    terms = np.sort(scores * shares[:, None, None], axis=0).sum(axis=0)
    return (terms - np.logaddexp.reduce(terms, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class Pick:
    """A step of greedy selection.

    Args:
        member: its place among all members.
        error: top-1 error of all that are picked so far, in [0, 1], on the validation images.
        loss: and their mean negative log-likelihood.
    """

    member: int
    error: float
    loss: float


def together(voices: np.ndarray, mean: Mean) -> np.ndarray:
    """Log-probabilities [N, K] of the mean of members [m, N, K]: quick, where `merge` is exact to the last bit."""
    if mean == "arithmetic":
        # What no member thinks possible is as good as impossible, and has a logarithm all the same
        return np.log(np.maximum(np.exp(voices).mean(axis=0), np.finfo(np.float32).tiny))
    scores = voices.mean(axis=0)
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def curve(members: Sequence[Predictions], mean: Mean) -> list[dict[str, float]]:
    """Top-1 error of ensembles of 1 to M members: mean, least and most over all choices of so many members.

    Where there are more than `CHOICES`, so many are drawn.
    """
    voices, labels = np.stack([member.normalised() for member in members]), members[0].labels
    draw, rows = np.random.default_rng(0), []
    for size in range(1, len(members) + 1):
        if comb(len(members), size) <= CHOICES:
            groups = list(combinations(range(len(members)), size))
        else:
            groups = [tuple(draw.choice(len(members), size, replace=False)) for _ in range(CHOICES)]
        errors = [float(misses(together(voices[list(group)], mean), labels).mean()) for group in groups]
        rows.append({"members": size, "top1_error": float(np.mean(errors)), "least": min(errors), "most": max(errors)})
    return rows


def greedy(validation: Sequence[Predictions], mean: Mean) -> list[Pick]:
    """Forward selection (Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004), without repeats.

    Args:
        validation: what each member says of the *validation* images.

    Returns:
        All members, the one that helps most at each step; equal errors are told apart by the loss.
    """
    voices, labels = np.stack([member.normalised() for member in validation]), validation[0].labels
    picks: list[Pick] = []
    while left := [place for place in range(len(voices)) if place not in {pick.member for pick in picks}]:
        tried = []
        for place in left:
            scores = together(voices[[*(pick.member for pick in picks), place]], mean)
            tried.append(Pick(place, float(misses(scores, labels).mean()), negative_log_likelihood(scores, labels)))
        picks.append(min(tried, key=lambda pick: (pick.error, pick.loss)))
    return picks


def best_prefix(picks: Sequence[Pick]) -> list[int]:
    """The members up to the step with the lowest error, and loss among equal errors, in ascending order."""
    steps = range(len(picks))
    last = min(steps, key=lambda step: (picks[step].error, picks[step].loss))
    return sorted(pick.member for pick in picks[: last + 1])


def paired(members: Sequence[Path], protocols: Sequence[str]) -> list[tuple[Path, str]]:
    """Members with their protocols: one for all of them, or one for each."""
    if len(protocols) not in (1, len(members)):
        raise UserError(
            f"There are {len(members)} members and {len(protocols)} protocols: give one for all, or one for each in "
            "the same order."
        )
    return list(zip(members, list(protocols) * (len(members) if len(protocols) == 1 else 1), strict=True))


def report(given: argparse.Namespace, flags: Sequence[str]) -> None:
    """Test what is missing, merge, print and write."""
    if given.weights and given.greedy:
        raise UserError("--weights and --greedy both say which members count: give one of them.")
    if given.weights and len(given.weights) != len(given.members):
        raise UserError(f"There are {len(given.members)} members and {len(given.weights)} weights: give one for each.")
    pairs = paired(given.members, given.protocols)
    members = all_predictions(pairs, flags=flags)
    check_same_set(members)
    picks, chosen, on_test = [], list(range(len(members))), False
    if given.greedy:
        validation = all_predictions(pairs, "validate", flags)
        check_same_set(validation)
        on_test = validation[0].data_hash == members[0].data_hash
        picks = greedy(validation, given.mean)
        chosen = best_prefix(picks)
    scores = merge([members[place] for place in chosen], given.mean, given.weights)
    content = measured(members, chosen, picks, scores, given) | {"picked_on_test_images": on_test}
    sections = [Section("Members and ensemble", tables(content, members))]
    folder = claim_version(given.runs / (given.run_name or f"{dataset_of(members)}/ensemble"))
    together_as(members, chosen, scores, content["name"]).write(folder / PREDICTIONS)
    (folder / "ensemble.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "ensemble.html").write_text(html_page.html("Ensemble", sections))
    show(sections)
    print(f"Wrote {folder}: ensemble.html, ensemble.json and {PREDICTIONS}", flush=True)


def measured(
    members: Sequence[Predictions], chosen: list[int], picks: list[Pick], scores: np.ndarray, given: argparse.Namespace
) -> dict[str, Any]:
    """Everything that was found, for JSON."""
    labels = members[0].labels
    weights = given.weights or [1.0 if place in chosen else 0.0 for place in range(len(members))]
    rows = [
        {"checkpoint": member.checkpoint, "protocol": member.protocol, "views": member.views, "weight": weight}
        | results(member.normalised(), labels)
        for member, weight in zip(members, weights, strict=True)
    ]
    return {
        "name": f"{given.mean} mean of {pluralize(len(chosen), 'member')}",
        "mean": given.mean,
        "images": len(labels),
        "partial": not all(member.complete for member in members),
        "members": rows,
        "ensemble": {"views": sum(members[place].views for place in chosen)} | results(scores, labels),
        "mean_of_members": float(np.mean([row["top1_error"] for row in rows])),
        "curve": curve(members, given.mean),
        "greedy": [vars(pick) for pick in picks],
    }


def results(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Errors, in [0, 1], and calibration."""
    errors = {f"top{k}_error": misses(scores, labels, k) for k in (1, 5) if k < scores.shape[1]}
    found: dict[str, Any] = {name: float(each.mean()) for name, each in errors.items()}
    return found | {"top1_interval": interval(errors["top1_error"])} | calibration(scores, labels)


def tables(content: dict[str, Any], members: Sequence[Predictions]) -> list[str | Table | Figure]:
    """The members above their ensemble, what greedy selection did, and the curve."""
    lines = [
        [name_of(row["checkpoint"]), row["protocol"], format(row["weight"], "g"), *cells(row)]
        for row in content["members"]
    ]
    lines.append([content["name"], "", "", *cells(content["ensemble"])])
    names = ["<", "<protocol", "weight", "views", "top-1 error, %", "95 % interval", "top-5 error, %", "NLL", "ECE"]
    parts: list[str | Table | Figure] = [Table(f"On {content['images']:,} images", names, lines), verdict(content)]
    if content["greedy"]:
        steps = [
            [str(step), name_of(members[pick["member"]].checkpoint), f"{pick['error']:.2%}", f"{pick['loss']:.4f}"]
            for step, pick in enumerate(content["greedy"], 1)
        ]
        parts.append(
            Table("Greedy selection on the validation images", ["members", "<picked", "top-1 error", "loss"], steps)
        )
    if len(members) > 1:
        lines = [
            [str(row["members"]), *(f"{row[key]:.2%}" for key in ("top1_error", "least", "most"))]
            for row in content["curve"]
        ]
        parts += [
            Table(
                "Of 1 to all members, all counting alike, over the choices of so many",
                ["members", "top-1 error", "least", "most"],
                lines,
            )
        ]
        parts.append(curve_chart(content["curve"]))
    return parts


def cells(row: dict[str, Any]) -> list[str]:
    """Views, errors and calibration of a member or an ensemble."""
    low, high = row["top1_interval"]
    top5 = f"{100 * row['top5_error']:.2f}" if "top5_error" in row else ""
    errors = [f"{100 * row['top1_error']:.2f}", f"{100 * low:.2f} to {100 * high:.2f}", top5]
    return [str(row["views"]), *errors, f"{row['nll']:.4f}", f"{row['ece']:.4f}"]


def verdict(content: dict[str, Any]) -> str:
    """What the ensemble is worth."""
    own, mean = content["ensemble"]["top1_error"], content["mean_of_members"]
    best = min(row["top1_error"] for row in content["members"])
    part = " Images that could not be read are left out." if content["partial"] else ""
    if content["picked_on_test_images"]:
        part += (
            " These members were picked on the very images of the test, which this data set has for validation too: "
            "the error of the ensemble is too good."
        )
    return (
        f"The ensemble has {own:.2%} top-1 error; its members have {mean:.2%} on average, and the best of them, which "
        f"only the test tells, {best:.2%}.{part}"
    )


def together_as(members: Sequence[Predictions], chosen: list[int], scores: np.ndarray, name: str) -> Predictions:
    """The ensemble's own predictions, for whoever takes it for a model."""
    inside = [members[place] for place in chosen]
    return replace(
        inside[0],
        log_probabilities=np.maximum(scores, LEAST).astype(np.float16),
        protocol="+".join(dict.fromkeys(member.protocol for member in inside)),
        views=sum(member.views for member in inside),
        checkpoint=name,
        checkpoint_hash=hashlib.sha256(
            "".join(sorted(member.checkpoint_hash for member in inside)).encode()
        ).hexdigest(),
        complete=all(member.complete for member in inside),
    )


def dataset_of(members: Sequence[Predictions]) -> str:
    """The dataset's folder among the runs: that of the first member; "mixed" for a file that lies in no run."""
    folder = version_folder(Path(members[0].checkpoint))
    return folder.parent.parent.name if folder else "mixed"


def main(args: list[str] | None = None) -> None:
    parser = Parser("reports.ensemble", __doc__)
    parser.add_argument("--members", type=Path, nargs="+", default=[], metavar="RUN", help="runs or .ckpt files")
    parser.add_argument(
        "--protocols", nargs="+", default=["center"], metavar="NAME", help="one for all, or one for each"
    )
    parser.add_argument(
        "--mean", choices=("arithmetic", "geometric"), default="arithmetic", help="of the probabilities"
    )
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="what each member counts; unset, all alike"
    )
    parser.add_argument("--greedy", action="store_true", help="pick members by the validation images")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where it is written (runs)")
    parser.add_argument("--run_name", metavar="A/B", help="unset, <dataset>/ensemble")
    parser.run(report, args)


if __name__ == "__main__":
    main()
