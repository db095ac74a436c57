"""Where two runs differ that were tested on the same images: in which classes, and on which images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from checkpointing.predictions import Predictions
from reports import metrics
from reports.evaluation import check_same_images
from reports.html_page import Image, Images, Part, Section, Table
from reports.hypothesis_tests import ALPHA, LEVEL, McNemarTest, holm
from reports.run_images import Thumbnails

NUM_IMAGES = 12  # shown of each run's own mistakes
NUM_CLASSES = 30  # shown at most


@dataclass(frozen=True)
class ClassDifference:
    """The errors of A and B on the images of one class.

    Args:
        name: of the class.
        images: number of its images.
        a_error, b_error: error rates, in [0, 1].
        difference: error of A minus that of B.
        interval: its 99 % interval, paired by image; for this class alone, without a correction for their number.
        p_holm: p-value of McNemar's exact test on the class, after Holm's correction for all classes.
    """

    name: str
    images: int
    a_error: float
    b_error: float
    difference: float
    interval: tuple[float, float]
    p_holm: float

    @property
    def is_evidence(self) -> bool:
        """Whether the difference counts among those of all classes."""
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Disagreement:
    """An image that one run gets right and the other wrong.

    Args:
        row: of the image in the predictions.
        image: path of its file, or its index in the set.
        label: its class.
        predicted: the class that the wrong run takes it for.
        probability: the wrong run's, of that class.
        of_the_class: the right run's probability of the image's class.
    """

    row: int
    image: str
    label: str
    predicted: str
    probability: float
    of_the_class: float


def class_differences(a: Predictions, b: Predictions) -> list[ClassDifference]:
    """The `NUM_CLASSES` classes in which the errors of two runs differ most, the largest difference first.

    Each class is tested by McNemar's exact test on its own images, and Holm's correction counts all classes that have
    images, shown or not. Classes of equal differences are in the order of the labels.

    Args:
        a, b: predictions on the same images.

    Raises:
        UserError: if the images are not the same.
    """
    check_same_images([a, b])
    classes, labels = len(a.class_names), a.labels
    a_wrong, b_wrong = (metrics.topk_errors(each.log_probabilities, labels) for each in (a, b))
    images, a_errors, b_errors, a_alone, b_alone = (
        np.bincount(labels[mask], minlength=classes)
        for mask in (slice(None), a_wrong, b_wrong, a_wrong & ~b_wrong, b_wrong & ~a_wrong)
    )
    present = np.flatnonzero(images)
    tests = {k: McNemarTest(a_alone[k], b_alone[k], int(images[k])) for k in present.tolist()}
    p_holm = dict(zip(tests, holm(np.array([test.p for test in tests.values()])), strict=True))
    largest_first = sorted(tests, key=lambda k: -abs(float(tests[k].difference)))
    return [
        ClassDifference(
            str(a.class_names[k]),
            int(images[k]),
            float(a_errors[k] / images[k]),
            float(b_errors[k] / images[k]),
            float(tests[k].difference),
            tests[k].interval(),
            float(p_holm[k]),
        )
        for k in largest_first[:NUM_CLASSES]
    ]


def own_mistakes(a: Predictions, b: Predictions) -> list[Disagreement]:
    """The images that A gets wrong and B right: the surest mistakes of A first, at most `NUM_IMAGES`.

    Raises:
        UserError: if the images are not the same.
    """
    check_same_images([a, b])
    a_wrong, b_wrong = (metrics.topk_errors(each.log_probabilities, each.labels) for each in (a, b))
    rows = np.flatnonzero(a_wrong & ~b_wrong)
    confidence = a.log_probabilities[rows].max(axis=1)  # NaN comes last
    return [_describe(a, b, int(row)) for row in rows[np.argsort(-confidence, kind="stable")][:NUM_IMAGES]]


def _describe(a: Predictions, b: Predictions, row: int) -> Disagreement:
    label, predicted = int(a.labels[row]), int(a.log_probabilities[row].argmax())
    probability, of_the_class = np.exp([a.log_probabilities[row, predicted], b.log_probabilities[row, label]]).tolist()
    names = str(a.class_names[label]), str(a.class_names[predicted])
    return Disagreement(row, image_name(a, row), *names, probability, of_the_class)


def image_name(predictions: Predictions, row: int) -> str:
    """The path of an image's file, or its index in the set."""
    return str(predictions.files[row]) if len(predictions.files) else f"image {predictions.indices[row]}"


def class_table(names: tuple[str, str], differences: Sequence[ClassDifference]) -> Table:
    """The differences by class, for a report; `names` of A and B."""
    note = (
        f"Brackets: {100 * LEVEL:.0f} % interval over the images of the class, for these two checkpoints. *: p < "
        f"{ALPHA} in McNemar's exact test, after Holm's correction for all classes."
    )
    rows = [
        [
            each.name,
            str(each.images),
            f"{100 * each.a_error:.2f}",
            f"{100 * each.b_error:.2f}",
            f"{100 * each.difference:+.2f} [{100 * each.interval[0]:+.2f}, {100 * each.interval[1]:+.2f}]"
            + " *" * each.is_evidence,
        ]
        for each in differences
    ]
    columns = ["<class", "images", f"{names[0]}, %", f"{names[1]}, %", "difference, points"]
    return Table("Errors by class, the largest difference first", columns, rows, note=note)


def disagreement_section(
    names: tuple[str, str], members: tuple[Predictions, Predictions], load: Callable[[Sequence[int]], Thumbnails]
) -> Section:
    """The images that one of two runs gets right and the other wrong.

    Args:
        names: of A and B.
        members: predictions of A and B on the same images.
        load: small pictures of the images in these rows of the predictions, such as `run_images.load_thumbnails`.

    Raises:
        UserError: if the images are not the same.
    """
    (a, b), (name_a, name_b) = members, names
    of_a, of_b = own_mistakes(a, b), own_mistakes(b, a)
    pictures = load([each.row for each in (*of_a, *of_b)])
    pngs = iter(pictures.pngs)
    parts = [_mistakes(name_a, name_b, of_a, pngs), _mistakes(name_b, name_a, of_b, pngs)]
    return Section("Images on which they disagree", [*parts, *filter(None, [pictures.note])], folded=True)


def _mistakes(wrong: str, right: str, mistakes: Sequence[Disagreement], pngs: Iterator[bytes | None]) -> Part:
    """The own mistakes of a run: pictures, or a table where there are none."""
    if not mistakes:
        return f"There is no image that {wrong} gets wrong and {right} right."
    title = f"Images that {wrong} gets wrong and {right} right, the surest mistakes first"
    found = [next(pngs) for _ in mistakes]
    if any(found):
        captions = [f"{each.label}, taken for {each.predicted} ({each.probability:.0%})" for each in mistakes]
        return Images(title, [Image(*pair) for pair in zip(found, captions, strict=True)])
    rows = [
        [each.image, each.label, each.predicted, f"{each.probability:.4f}", f"{each.of_the_class:.4f}"]
        for each in mistakes
    ]
    return Table(title, ["<image", "<class", "<predicted", "its probability", f"{right}'s of the class"], rows)
