"""Curves over epochs from rows of logged values, as metrics.csv and W&B hold them."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from reports.run import Curve

MAX_POINTS = 500  # of a curve with values of single batches: a picture shows no more
EPOCH_METRIC = "train/loss"  # logged at the end of an epoch, and nowhere else
RATE = "train/images_per_s"  # logged within an epoch too, where it is of the epoch so far
NOT_MEASURED = {"step", "epoch", "trainer/global_step"}
NOT_DRAWN = "gradient_norm/"  # of W&B's rows, which are read by `checkpointing.gradient_flow`
LOSSES = (("train/loss", "training loss"), ("val/loss", "validation loss"), ("train/batch_loss", "training loss"))

Row = Mapping[str, Any]  # of one step: `step` and `epoch`, both counted from 0, and metrics; "" or None is no value


class Measured(NamedTuple):
    """What was logged in a training.

    Args:
        curves: by name.
        epochs: trained until the last row, with a fraction for one that has not ended; None without rows.
        steps: optimizer steps taken until the last row.
        ended_epochs: how many have ended.
    """

    curves: dict[str, Curve]
    epochs: float | None
    steps: int
    ended_epochs: int


class Points(NamedTuple):
    """The values of a metric: [T] each. An epoch that is not logged is NaN."""

    steps: list[int]
    epochs: list[float]
    values: list[float]


def make_curves(rows: Iterable[Row], epoch_steps: float | None = None) -> Measured:
    """Curves from rows in the order in which they were written.

    A learning rate stands where its step begins, everything else where its step ends. Steps become epochs by linear
    interpolation between the ends of epochs; an epoch that is shorter than the one before has not ended, but was cut
    off by max_steps or max_time.

    Args:
        rows: see `Row`.
        epoch_steps: optimizer steps of an epoch where it is known otherwise, for a run that has ended none.
    """
    points, ends, latest = collect(rows)
    if not points:
        return Measured({}, None, 0, 0)
    steps_taken = max(max(each.steps) for each in points.values())
    clock = EpochClock(ends, latest, epoch_steps, steps_taken)
    curves = {name: make_curve(name, each, clock) for name, each in sorted(points.items())}
    last = max(float(curve.epochs[-1]) for curve in curves.values())
    return Measured(curves, last, steps_taken, int(clock.epochs[-1] + 1e-9))


def collect(rows: Iterable[Row]) -> tuple[dict[str, Points], dict[int, int], int | None]:
    """The values of each metric, for each epoch with a last row the steps taken at its end, and the last epoch."""
    points: dict[str, Points] = {}
    ends: dict[int, int] = {}
    latest: dict[int, int] = {}  # the last step seen in each epoch
    for row in rows:
        step, epoch = to_number(row.get("step")), to_number(row.get("epoch"))
        if step is None or not 0 <= step < 2**53:
            continue
        if epoch is not None and 0 <= epoch < 2**31:
            latest[int(epoch)] = max(int(step) + 1, latest.get(int(epoch), 0))
            if to_number(row.get(EPOCH_METRIC)) is not None:
                ends[int(epoch)] = max(int(step) + 1, ends.get(int(epoch), 0))
        else:
            epoch = None
        for name, value in row.items():
            if value == "" or value is None or name in NOT_MEASURED or name.startswith(NOT_DRAWN):
                continue
            if (number := to_number(value)) is None:
                continue
            if name == RATE and row.get(EPOCH_METRIC) in ("", None):
                continue
            each = points.setdefault(name, Points([], [], []))
            each.steps.append(int(step) + (not name.startswith("lr-")))
            each.epochs.append(np.nan if epoch is None else epoch)
            each.values.append(number)
    if not ends:  # of a model that does not log it: an epoch has ended where a later one has begun
        ends = {epoch: step for epoch, step in latest.items() if epoch < max(latest)}
    return points, ends, max(latest, default=None)


def to_number(value: object) -> float | None:
    """A logged value; None for what is no number. W&B writes NaN and infinity as text, metrics.csv all numbers."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


class EpochClock:
    """Turns optimizer steps into epochs trained.

    Args:
        ends: steps taken at the end of each epoch, by its number, counted from 0.
        latest: the last of the epochs that were logged; None if none was.
        epoch_steps: optimizer steps of an epoch; None if unknown.
        steps_taken: in the whole training, which are one epoch if nothing else is known.
    """

    def __init__(
        self, ends: Mapping[int, int], latest: int | None, epoch_steps: float | None, steps_taken: int
    ) -> None:
        self.steps, self.epochs = [0.0], [0.0]
        for epoch, steps in sorted(ends.items()):
            if steps > self.steps[-1]:  # as in every file that was not changed
                self.steps.append(float(steps))
                self.epochs.append(float(epoch + 1))
        self.rate = 1 / (epoch_steps or max(steps_taken, 1))  # epochs per step
        if len(self.steps) == 1:
            return
        taken, counted = np.diff(self.steps[-2:])[0], np.diff(self.epochs[-2:])[0]
        if len(self.steps) > 2:
            self.rate = np.diff(self.epochs[-3:-1])[0] / np.diff(self.steps[-3:-1])[0]
        is_known = len(self.steps) > 2 or epoch_steps is not None
        was_cut_off = is_known and latest == max(ends) and taken * self.rate < counted - 1e-6
        if was_cut_off:
            self.epochs[-1] = self.epochs[-2] + taken * self.rate
        else:
            self.rate = counted / taken

    def convert(self, steps: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Epochs trained after so many steps, each inside the epoch that its row names, if any; all [T]."""
        found = np.interp(steps, self.steps, self.epochs)
        found = np.where(steps > self.steps[-1], self.epochs[-1] + (steps - self.steps[-1]) * self.rate, found)
        return np.where(np.isnan(epochs), found, np.clip(found, epochs, epochs + 1))


def make_curve(name: str, points: Points, clock: EpochClock) -> Curve:
    """A curve whose epochs ascend; of values at one step the last, as a resumed run repeats them."""
    steps = np.array(points.steps, dtype=float)
    epochs = clock.convert(steps, np.array(points.epochs))
    _, last = np.unique(epochs[::-1], return_index=True)
    kept = len(epochs) - 1 - last
    curve = Curve(epochs[kept], np.array(points.values)[kept])
    if name.startswith("lr-"):
        curve = keep_corners(curve)
    is_of_batches = len(curve.epochs) > 2 * clock.epochs[-1] and not name.startswith("val/")
    return thin(curve) if is_of_batches else curve


def keep_corners(curve: Curve) -> Curve:
    """The curve without the points that lie on the straight line between their neighbours."""
    x, y = curve.epochs, curve.values
    if len(x) < 3:
        return curve
    with np.errstate(invalid="ignore", over="ignore"):
        line = y[:-2] + (y[2:] - y[:-2]) * (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
        is_corner = ~(np.abs(y[1:-1] - line) <= 1e-9 * np.abs(y[1:-1]))  # of NaN too
    kept = np.concatenate([[True], is_corner, [True]])
    return Curve(x[kept], y[kept])


def thin(curve: Curve) -> Curve:
    """The curve with the least and the largest value of each of `MAX_POINTS` / 2 equal parts, and of NaN the first."""
    size = len(curve.epochs)
    if size <= MAX_POINTS:
        return curve
    kept = {0, size - 1}
    for part in np.array_split(np.arange(size), (MAX_POINTS - 2) // 2):
        values = curve.values[part]
        finite = part[np.isfinite(values)]
        if len(finite) < len(part):
            kept.add(int(part[~np.isfinite(values)][0]))
        if len(finite):
            kept |= {int(finite[np.argmin(curve.values[finite])]), int(finite[np.argmax(curve.values[finite])])}
    indices = sorted(kept)
    return Curve(curve.epochs[indices], curve.values[indices])


def find_divergence(curves: Mapping[str, Curve]) -> str:
    """The sentence on a run whose last loss is NaN or infinite; empty for any other."""
    for name, words in LOSSES:
        if name in curves and not np.isfinite(curves[name].last):
            finite = np.flatnonzero(np.isfinite(curves[name].values))
            first = finite[-1] + 1 if len(finite) else 0
            epoch = max(1, int(np.ceil(curves[name].epochs[first])))
            return f"the {words} is {curves[name].last} since epoch {epoch:,}"
    return ""
