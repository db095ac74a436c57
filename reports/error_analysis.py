"""What predictions say besides their error: who is taken for whom, which mistakes are sure, calibration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from checkpointing.predictions import Predictions
from reports import metrics
from reports.ensemble import merge
from reports.evaluation import all_predictions
from reports.html_page import Figure, Section, Table
from reports.plots import confusion_chart, reliability_chart

MOST_CLASSES = 30  # of a confusion matrix that can still be looked at
MISTAKES, PAIRS, CLASSES = 10, 15, 10  # how many are listed
Parts = list[str | Table | Figure]


@dataclass
class Look:
    """One row of a report, looked at closely.

    Args:
        row: see `reports.protocols.measure`.
        test: of one of its members: labels, names and places of the images.
        scores: log-probabilities of all its members together, [N, K] float32.
        temperature: fitted on the validation images; None where that is not asked for.
        same_images: whether these were the test's.
    """

    row: dict[str, Any]
    test: Predictions
    scores: np.ndarray
    temperature: float | None = None
    same_images: bool = False

    @classmethod
    def at(cls, row: dict[str, Any], members: list[Predictions], calibrate: bool, flags: Sequence[str]) -> "Look":
        """Look at the ensemble of these members; for its temperature, validations that are missing are run."""
        look = cls(row, members[0], merge(members))
        if calibrate:
            wanted = [(Path(member.checkpoint), member.protocol) for member in members]
            validation = all_predictions(wanted, "validate", flags)
            look.temperature = metrics.fit_temperature(merge(validation), validation[0].labels)
            look.same_images = validation[0].data_hash == members[0].data_hash
        return look

    @cached_property
    def cooled(self) -> np.ndarray:
        """The scores at the temperature."""
        assert self.temperature is not None
        return metrics.at_temperature(self.scores, self.temperature)

    @cached_property
    def guesses(self) -> np.ndarray:
        return self.scores.argmax(axis=1)

    @cached_property
    def confusion(self) -> np.ndarray:
        return metrics.confusion(self.guesses, self.test.labels, len(self.names))

    @property
    def names(self) -> list[str]:
        return self.test.class_names.tolist()

    def sections(self, rows: list[dict[str, Any]]) -> list[Section]:
        """Calibration of all rows, and what else there is to say of this one."""
        heading = f"Mistakes: {who(self.row)}"
        return [Section("Calibration", self._calibration(rows)), Section(heading, self._mistakes())]

    def facts(self) -> dict[str, Any]:
        """The same of this row, for JSON."""
        errors = metrics.class_errors(self.confusion)
        facts = {
            "models": self.row["models"],
            "protocol": self.row["protocol"],
            "classes": self.names,
            "class_errors": [None if math.isnan(error) else float(error) for error in errors],
            "confused_pairs": metrics.confused_pairs(self.confusion, PAIRS),
            "confident_mistakes": [self._mistake(image) for image in self._surest],
        }
        if len(self.names) <= MOST_CLASSES:
            facts["confusion"] = self.confusion.tolist()
        if self.temperature is not None:
            facts["temperature"] = self.temperature
            facts["at_temperature"] = metrics.calibration(self.cooled, self.test.labels)
            facts["fitted_on_test_images"] = self.same_images
        return facts

    @cached_property
    def _surest(self) -> np.ndarray:
        return metrics.confident_mistakes(self.scores, self.test.labels, MISTAKES)

    def _mistake(self, image: int) -> dict[str, Any]:
        label, guess = self.test.labels[image], self.guesses[image]
        where = self.test.files[image] if len(self.test.files) else int(self.test.places[image])
        chances = np.exp(self.scores[image])
        names = {"image": where, "class": self.names[label], "guess": self.names[guess]}
        return names | {"probability": float(chances[guess]), "of_the_class": float(chances[label])}

    def _calibration(self, rows: list[dict[str, Any]]) -> Parts:
        labels = self.test.labels
        lines = [(who(row), row) for row in rows]
        after = None
        if self.temperature is not None:
            lines.append((f"{who(self.row)}, at T = {self.temperature:.3f}", metrics.calibration(self.cooled, labels)))
            after = metrics.reliability(self.cooled, labels)
        title = f"Expected calibration error (ECE, {metrics.BINS} bins of equal width), negative log-likelihood (NLL, "
        title += "nats), Brier score (summed over classes, 0 to 2); smaller is better"
        keys = ("ece", "nll", "brier")
        table = [[name, *(f"{values[key]:.4f}" for key in keys)] for name, values in lines]
        before = metrics.reliability(self.scores, labels)
        chart = reliability_chart(before, after, self.temperature)
        chart.title += f": {who(self.row)}"
        return [Table(title, ["<", "ECE", "NLL", "Brier"], table), *self._of_temperature(), chart]

    def _of_temperature(self) -> list[str]:
        if self.temperature is None:
            return ["--calibrate fits a temperature on the validation images."]
        text = [
            f"T = {self.temperature:.3f} divides the log-probabilities, which are then normalised again; at that "
            "temperature the validation images are likeliest. Above 1 the predictions are too sure, below 1 not enough."
        ]
        if self.same_images:
            text.append("The validation images are those of the test: what the temperature gains on them is too much.")
        if not metrics.COLDEST * 1.01 < self.temperature < metrics.HOTTEST / 1.01:
            text.append(
                "It is at the end of its range: on images that are all right, or all alike, there is no best one."
            )
        return text

    def _mistakes(self) -> Parts:
        surest = [self._mistake(image) for image in self._surest]
        if not surest:
            return ["No image is taken for another class."]
        images = "<file" if len(self.test.files) else "place in the set"
        table = Table(
            "The mistakes that were made with the highest probability",
            [images, "<class", "<taken for", "probability", "of the class"],
            [
                [str(m["image"]), m["class"], m["guess"], f"{m['probability']:.4f}", f"{m['of_the_class']:.4f}"]
                for m in surest
            ],
        )
        if len(self.names) <= MOST_CLASSES:
            return [confusion_chart(self.confusion, self.names), self._of_classes(), table]
        pairs = metrics.confused_pairs(self.confusion, PAIRS)
        confused = [[self.names[label], self.names[guess], str(count)] for label, guess, count in pairs]
        columns = ["<class", "<taken for", "images"]
        return [Table("Classes that are confused most often", columns, confused), self._of_classes(), table]

    def _of_classes(self) -> Table:
        """Every class, or, of many, those with the highest error."""
        errors, images = metrics.class_errors(self.confusion), self.confusion.sum(axis=1)
        filled = [k for k in range(len(self.names)) if images[k]]
        many = len(self.names) > MOST_CLASSES
        shown = sorted(filled, key=lambda k: -errors[k])[:CLASSES] if many else filled
        guessed = self.confusion.sum(axis=0)
        lines = [[self.names[k], str(images[k]), str(guessed[k]), percent(errors[k])] for k in shown]
        title = f"The {CLASSES} classes with the highest error" if many else "Errors of each class"
        return Table(title, ["<class", "images", "taken for it", "error, %"], lines)


def percent(value: float, form: str = ".2f") -> str:
    """A share as percent."""
    return format(100 * value, form)


def who(row: dict[str, Any]) -> str:
    """What a row is called."""
    models = f"{row['models']} models together" if row["models"] > 1 else "1 model"
    return f"{models}, {row['protocol']}"
