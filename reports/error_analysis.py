"""Confusions, errors by class, confident errors and calibration of one row of `reports.protocols`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from checkpointing.predictions import Predictions
from errors import pluralize
from reports import metrics, plots
from reports.command import selection_mark
from reports.html_page import Figure, Image, Images, Part, Section, Table, format_table
from reports.run_images import Thumbnails, load_thumbnails

MAX_CLASSES = 30  # of a confusion matrix that is still legible
NUM_ERRORS, NUM_PAIRS, NUM_CLASSES = 10, 15, 10  # listed at most


class ErrorAnalysis:
    """One row of a report in detail.

    Args:
        row: see `reports.protocols.measure`.
        members: predictions of its models on the test images.
        validation: predictions of the same models on the validation images, to which a temperature is fitted; empty
            unless requested.
    """

    def __init__(self, row: dict[str, Any], members: Sequence[Predictions], validation: Sequence[Predictions]) -> None:
        self.row, self.test = row, members[0]
        self.log_probs = metrics.ensemble_mean([member.log_probabilities for member in members])
        self.names = self.test.class_names.tolist()
        self.predicted = self.log_probs.argmax(axis=1)
        self.confusion = confusion_matrix(self.test.labels, self.predicted, labels=range(len(self.names)))
        self.class_errors = metrics.class_errors(self.confusion)
        self.confident_rows = metrics.most_confident_errors(self.log_probs, self.test.labels, NUM_ERRORS).tolist()
        self.confident_errors = [self._error(row) for row in self.confident_rows]
        self.temperature: float | None = None
        if validation:
            ensemble = metrics.ensemble_mean([member.log_probabilities for member in validation])
            self.temperature = metrics.fit_temperature(ensemble, validation[0].labels)
            self.fitted_on_test = validation[0].data_hash == self.test.data_hash
            self.scaled = metrics.apply_temperature(self.log_probs, self.temperature)
            self.at_temperature = metrics.calibration(self.scaled, self.test.labels)

    def _error(self, index: int) -> dict[str, Any]:
        label, predicted = self.test.labels[index], self.predicted[index]
        own, highest = np.exp(self.log_probs[index, [label, predicted]]).tolist()
        image = self.test.files[index] if len(self.test.files) else int(self.test.indices[index])
        names = {"image": image, "class": self.names[label], "predicted": self.names[predicted]}
        return names | {"probability": highest, "of_the_class": own}

    def facts(self) -> dict[str, Any]:
        """Everything, for JSON."""
        facts = {name: self.row[name] for name in ("models", "protocol")} | {"classes": self.names}
        facts["class_errors"] = [None if np.isnan(error) else error for error in self.class_errors.tolist()]
        facts["confused_pairs"] = metrics.most_confused(self.confusion, NUM_PAIRS)
        facts["confident_errors"] = self.confident_errors
        if len(self.names) <= MAX_CLASSES:
            facts["confusion"] = self.confusion.tolist()
        if self.temperature is not None:
            facts |= {"temperature": self.temperature, "at_temperature": self.at_temperature}
            facts["fitted_on_test_images"] = self.fitted_on_test
        return facts

    def calibration(self, rows: Sequence[dict[str, Any]]) -> Section:
        """Calibration of all rows, and of this one at its temperature."""
        name, labels = row_label(self.row), self.test.labels
        lines = [row | {"label": row_label(row)} for row in rows]
        series = {"unchanged": metrics.reliability(self.log_probs, labels)}
        if self.temperature is not None:
            lines.append({"label": f"{name}, T = {self.temperature:.3f}"} | self.at_temperature)
            series[f"T = {self.temperature:.3f}"] = metrics.reliability(self.scaled, labels)
        title = (
            f"Expected calibration error (ECE, {metrics.BINS} bins of equal width), negative log-likelihood (NLL, "
            "nats), Brier score (summed over the classes, 0 to 2); lower is better"
        )
        columns = {"<models, protocol": "{label}", "ECE": "{ece:.4f}", "NLL": "{nll:.4f}", "Brier": "{brier:.4f}"}
        caption = f"Reliability of {name}: bins of equal width, dots sized by their number of images"
        chart = Figure(caption, plots.reliability_chart(series))
        parts: list[Part] = [format_table(title, lines, columns), *self._temperature_notes(), chart]
        return Section("Calibration", parts, folded=True)

    def _temperature_notes(self) -> list[str]:
        if self.temperature is None:
            return ["--calibrate fits a temperature on the validation images."]
        text = [
            f"Temperature scaling: log-probabilities are divided by T = {self.temperature:.3f}, which minimises the "
            "NLL of the validation images, and normalised. A T above 1 means overconfident, below 1 underconfident."
        ]
        if self.fitted_on_test:
            text.append("The validation images are the test images: the calibration at T is optimistic.")
        if not metrics.MIN_TEMPERATURE * 1.01 < self.temperature < metrics.MAX_TEMPERATURE / 1.01:
            text.append("T is at the end of its range: the NLL has no minimum, as when all images are correct.")
        return text

    def load_pictures(self, flags: Sequence[str]) -> Thumbnails:
        """Pictures of the confident errors; `flags` of main.py say where the data are."""
        return load_thumbnails(Path(self.test.checkpoint), self.test, self.confident_rows, flags=flags)

    def errors(self, pictures: Thumbnails | None = None) -> Section:
        """Confusions, errors by class and confident errors, with pictures of these if they are given."""
        heading = f"Errors of {row_label(self.row)}"
        if not self.confident_errors:
            return Section(heading, ["No errors."])
        columns = {"<file" if len(self.test.files) else "index": "{image}", "<class": "{class}"}
        columns |= {"<predicted": "{predicted}", "its probability": "{probability:.4f}"}
        columns["probability of the class"] = "{of_the_class:.4f}"
        confident = format_table("Most confident errors", self.confident_errors, columns)
        parts = [self._confusions(), self._errors_by_class(), confident]
        return Section(heading, [*parts, *(self._pictures(pictures) if pictures else ())])

    def _pictures(self, pictures: Thumbnails) -> list[Part]:
        if pictures.note:
            return [pictures.note]
        captions = [f"{error['class']}, taken for {error['predicted']}" for error in self.confident_errors]
        items = [Image(*pair) for pair in zip(pictures.pngs, captions, strict=True)]
        return [Images("The most confident errors, in the order of the table", items)]

    def _confusions(self) -> Part:
        """The confusion matrix, or the most frequent confusions of many classes."""
        if len(self.names) <= MAX_CLASSES:
            title = "Confusion matrix: number of images by class (row) and predicted class (column)"
            return Figure(title, plots.confusion_chart(self.confusion, self.names))
        pairs = metrics.most_confused(self.confusion, NUM_PAIRS)
        rows = [[self.names[label], self.names[predicted], str(count)] for label, predicted, count in pairs]
        return Table("Most frequent confusions", ["<class", "<predicted", "images"], rows)

    def _errors_by_class(self) -> Table:
        """All classes with images, or the ones with the highest errors of many."""
        images, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        shown, title = np.flatnonzero(images).tolist(), "Errors by class"
        if len(self.names) > MAX_CLASSES:
            shown = sorted(shown, key=lambda k: -self.class_errors[k])[:NUM_CLASSES]
            title = f"The {NUM_CLASSES} classes with the highest error"
        rows = [[self.names[k], str(images[k]), str(predicted[k]), f"{100 * self.class_errors[k]:.2f}"] for k in shown]
        return Table(title, ["<class", "images", "predicted", "error, %"], rows)


def row_label(row: dict[str, Any]) -> str:
    """Models and protocol of a row."""
    return f"{pluralize(row['models'], 'model')}, {row['protocol']}{selection_mark(row)}"
