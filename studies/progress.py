"""What a study says while it runs: a line for each result, with the time that is left."""

from collections import defaultdict
from collections.abc import Sequence

from studies.results import Row
from studies.runner import Runner
from studies.study import Study
from studies.units import format_value, is_curve, measure_name

MINUTE, HOUR = 60, 3600


class ProgressLines:
    """Prints a line for each result.

    Args:
        runner: of the study.
        begun: its stored rows when it began.
        processes: that make results at the same time.
    """

    def __init__(self, runner: Runner, begun: Sequence[Row], processes: int = 1) -> None:
        self.runner, self.study, self.processes = runner, runner.study, processes
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for row in begun:
            self.add(row)

    def add(self, row: Row) -> None:
        """Take note of the time of a row."""
        self.seconds[row.arm].append(row.seconds)

    def print(self, row: Row) -> None:
        """Print the line of a new row."""
        self.add(row)
        missing = [recipe.arm.name for recipe, _ in self.runner.missing()]
        total = len(self.study.arms) * self.runner.seeds
        left = f"; about {format_seconds(self.estimate(missing))} left" if missing else ""
        label = f"[{total - len(missing)} of {total}] {row.arm}, seed {row.seed}"
        print(f"{label}: {describe(self.study, row)}, {format_seconds(row.seconds)}{left}", flush=True)

    def estimate(self, arms: Sequence[str]) -> float:
        """Seconds that results of these arms take: as those of their arm, or else as all."""
        everything = [value for values in self.seconds.values() for value in values]
        times = [self.seconds.get(arm) or everything for arm in arms]
        return sum(sum(values) / len(values) for values in times) / self.processes


def describe(study: Study, row: Row) -> str:
    """The first number of a row that is measured, in words."""
    if row.state == "diverged":
        return "diverged"
    name = next((each for each in study.measures if not is_curve(each)), None)
    value = row.measures[name] if name else None
    return f"{measure_name(name)} {format_value(name, value)}" if name and isinstance(value, int | float) else "done"


def format_seconds(seconds: float) -> str:
    """A duration in words: 8 s, 4 min, 2 h 10 min."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    hours, rest = divmod(round(seconds / MINUTE), MINUTE)
    return f"{hours} h {rest} min"
