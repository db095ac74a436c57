"""What searches found: best-so-far curves, the comparison with random search, and the best cell."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from errors import pluralize
from reports.html_page import Figure, Part, Section, Table
from reports.significance import FEWEST_SEEDS, Comparison, Sample, compare_pairs
from studies.search.charts import mean_interval, proposals_chart, search_chart
from studies.search.search import Search
from studies.search.settings import METHODS
from studies.search.spaces import Choices, Space

WINDOW = 25  # evaluations in the moving average of what is proposed
LAST = 100  # proposals of each search whose operations are counted
Searches = Mapping[str, Sequence[Search]]  # by method


class Findings:
    """The searches of some methods, with one number of evaluations.

    Args:
        searches: of each method, one for each seed.
        images: number of validation images behind an accuracy.
        data: of the accuracies, such as "CIFAR-10".
    """

    def __init__(self, searches: Searches, images: int, data: str) -> None:
        self.searches, self.images, self.data = searches, images, data
        self.curves = {name: np.stack([each.best_so_far() for each in found]) for name, found in searches.items()}
        self.evaluations = next(iter(self.curves.values())).shape[1]
        self.seeds = min(map(len, searches.values()))
        others = [name for name in searches if name != "random"] if "random" in searches else []
        pairs = [(self._sample(name), self._sample("random")) for name in others]
        self.comparisons = compare_pairs(pairs) if self.seeds >= FEWEST_SEEDS else []

    def _sample(self, name: str) -> Sample:
        errors = 1 - self.curves[name][:, -1, 0]
        seeds = [each.seed for each in self.searches[name]]
        return Sample(name, errors.tolist(), self.images, self.data, seeds=seeds)

    @property
    def best(self) -> Search:
        """The search with the best architecture by validation."""
        return max(
            (each for found in self.searches.values() for each in found), key=lambda each: each.best[1].validation
        )

    def evaluations_to_beat(self, name: str) -> int | None:
        """Evaluations after which the method's mean is as good as random search's in the end; None if it never is."""
        goal = self.curves["random"][:, -1, 0].mean()
        reached = np.flatnonzero(self.curves[name][:, :, 0].mean(axis=0) >= goal)
        return int(reached[0]) + 1 if len(reached) else None


def verdicts(findings: Findings) -> list[str]:
    """A sentence for each comparison with random search."""
    if findings.seeds < FEWEST_SEEDS and len(findings.searches) > 1:
        return [f"Methods are compared over {FEWEST_SEEDS} seeds or more: give --seeds 20."]
    after = f"After {pluralize(findings.evaluations, 'evaluation')}, over {pluralize(findings.seeds, 'seed')}"
    return [f"{after}: {describe_comparison(each)}" for each in findings.comparisons]


def describe_comparison(each: Comparison) -> str:
    """Whether a method finds better cells than random search, with the interval of the difference in accuracy."""
    if each.interval is None or each.p_holm is None:
        return each.sentence()
    low, high = (-100 * end for end in reversed(each.interval))
    found = {
        "A is better": f"{each.a} finds better cells than random search",
        "B is better": f"{each.a} finds worse cells than random search",
    }.get(each.verdict, f"there is no evidence of a difference between {each.a} and random search")
    difference = -100 * (each.difference or 0.0)
    return (
        f"{found} (validation accuracy {difference:+.2f} points, 99 % interval {low:+.2f} to {high:+.2f}; "
        f"{'p < 0.0001' if each.p_holm < 0.0001 else f'p = {each.p_holm:.2g}'})."
    )


def summary_table(findings: Findings) -> Table:
    """Accuracies after the last evaluation, and the difference to random search."""
    columns = ["<method", "searches", "validation accuracy, %", "test accuracy, %", "mean of all proposals, %"]
    columns += ["points above random", "evaluations to random's mean"] if findings.comparisons else []
    compared = {each.a: each for each in findings.comparisons}
    rows = []
    for name, curve in findings.curves.items():
        row = [name, str(len(curve)), *(with_ends(curve[:, -1, part]) for part in (0, 1))]
        row.append(with_ends(np.array([each.rewards().mean() for each in findings.searches[name]])))
        if findings.comparisons:
            reached = findings.evaluations_to_beat(name)
            row += [
                difference_cell(compared.get(name)),
                "" if name == "random" else f"{reached:,}" if reached else "more",
            ]
        rows.append(row)
    best = int(np.argmax([curve[:, -1, 0].mean() for curve in findings.curves.values()]))
    note = "Means over the searches, each with another seed; brackets: 99 % interval of the mean."
    return Table(f"Best cell by validation after {findings.evaluations:,} evaluations", columns, rows, best, note)


def with_ends(values: np.ndarray) -> str:
    """A mean over seeds in percent with its interval, such as "84.50 [84.41, 84.59]"."""
    band = mean_interval(values)
    if len(values) < FEWEST_SEEDS:
        return f"{100 * band.mean:.2f}"
    if np.ptp(values) == 0:
        return f"{100 * band.mean:.2f} [all equal]"
    return f"{100 * band.mean:.2f} [{100 * band.low:.2f}, {100 * band.high:.2f}]"


def difference_cell(each: Comparison | None) -> str:
    """The difference to random search in points of accuracy, with its interval."""
    if each is None or each.difference is None:
        return ""
    if each.interval is None:
        return f"{-100 * each.difference:+.2f}"
    low, high = (-100 * end for end in reversed(each.interval))
    return f"{-100 * each.difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def curve_figures(findings: Findings) -> list[Part]:
    """Best-so-far validation and test accuracies, and what is proposed, against evaluations."""
    if findings.evaluations < 2:
        return []
    figures: list[Part] = []
    for part, name in enumerate(("validation", "test")):
        curves = {method: curve[:, :, part] for method, curve in findings.curves.items()}
        title = f"{name.capitalize()} accuracy of the best cell so far, by validation"
        figures.append(Figure(title, search_chart(curves, f"{name} accuracy")))
    if findings.evaluations >= 2 * WINDOW:
        proposed = {
            method: np.stack([moving_average(each.rewards()) for each in found])
            for method, found in findings.searches.items()
        }
        title = f"Validation accuracy of the proposed cells, mean of the last {WINDOW}"
        figures.append(Figure(title, search_chart(proposed, "validation accuracy")))
    return figures


def proposals_figure(findings: Findings, space: Space) -> list[Part]:
    """What each method proposed in the end, for a space all of whose decisions are of one kind."""
    kinds = {decision.kind for decision in space.decisions}
    if len(kinds) > 1 or findings.evaluations < LAST:
        return []
    shares = {
        name: count_operations([cell for each in found for cell in each.proposals[-LAST:]], space)
        for name, found in findings.searches.items()
    }
    return [Figure(f"Operations of the last {LAST} proposals of each search", proposals_chart(shares))]


def count_operations(cells: Sequence[Choices], space: Space) -> dict[str, dict[str, float]]:
    """The share of each operation at each part of the cells, of those that never occur too."""
    length, size = len(space.decisions), space.decisions[0].size
    names = [next(iter(space.describe((choice,) * length).values())) for choice in range(size)]
    described = [space.describe(cell) for cell in cells]
    return {
        part: {name: sum(each[part] == name for each in described) / len(cells) for name in names}
        for part in described[0]
    }


def moving_average(values: np.ndarray) -> np.ndarray:
    """The mean of the last `WINDOW` values; NaN before there are as many."""
    sums = np.cumsum(np.append(0.0, values))
    return np.append(np.full(WINDOW - 1, np.nan), (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW)


def best_table(findings: Findings, space: Space) -> Table:
    """The best cell of all searches."""
    choices, outcome = findings.best.best
    title = (
        f"The best cell: {100 * outcome.validation:.2f} % validation and {100 * outcome.test:.2f} % test accuracy, "
        f"found by {findings.best.method} with seed {findings.best.seed}"
    )
    return Table(title, ["<part", "<operations"], [list(item) for item in space.describe(choices).items()])


def to_sections(findings: Findings, space: Space, notes: Sequence[str]) -> list[Section]:
    """The page."""
    figures = [*curve_figures(findings), *proposals_figure(findings, space)]
    return [
        Section("Search", [*verdicts(findings)[1:], summary_table(findings), *figures]),
        Section("Best cell", [best_table(findings, space)]),
        Section("How to read this", [*notes, *method_notes(findings)]),
    ]


def method_notes(findings: Findings) -> list[str]:
    """What the methods are, with their settings."""
    return [
        f"{name}: {describe(name)} Settings: "
        + (", ".join(f"{key} {value:g}" for key, value in found[0].settings.items()) + ".")
        for name, found in findings.searches.items()
    ]


def describe(name: str) -> str:
    """The first sentence of a method's docstring."""
    return " ".join((METHODS[name].__doc__ or "").split("\n\n")[0].split())


def to_facts(findings: Findings, space: Space) -> dict[str, Any]:
    """All numbers, for JSON: of each search the settings and the evaluations that found a better cell."""
    return {
        "space": space.name,
        "data": findings.data,
        "evaluations": findings.evaluations,
        "methods": {
            name: {
                "settings": found[0].settings,
                "searches": [improvements(each) for each in found],
            }
            for name, found in findings.searches.items()
        },
        "comparisons_with_random": [each.to_plain() for each in findings.comparisons],
        "verdicts": verdicts(findings),
    }


def improvements(search: Search) -> dict[str, Any]:
    """The evaluations at which a search found a better cell, counted from 1; cells as their decisions."""
    found = np.unique(search.best_indices())
    return {
        "seed": search.seed,
        "mean_validation_of_proposals": round(float(search.rewards().mean()), 6),
        "improvements": [
            {"evaluation": int(index) + 1, "cell": " ".join(map(str, search.proposals[index]))}
            | {name: round(value, 6) for name, value in search.outcomes[index]._asdict().items()}
            for index in found
        ],
    }
