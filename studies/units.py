"""How the measures of a study are named and written for readers, and what guessing would give."""

import math
import re

WORDS = {
    "top1_error": "error",
    "top5_error": "top-5 error",
    "loss": "loss",
    "parameters": "number of parameters",
    "aux_parameters": "number of auxiliary parameters",
    "multiply_adds": "number of multiply-adds",
    "fc_share": "share of the parameters in fully connected layers",
}
GRADIENTS = {
    "gradient_flow/first": "gradient norm of the first layer at the first step",
    "gradient_flow/first_over_last": "gradient norm of the first layer over that of the last one at the first step",
    "gradient_flow/profile": "gradient norm by layer at the first step",
    "gradient_flow/profile_at_end": "gradient norm by layer at the last measured step",
}
SEARCHES = {
    "search/val_accuracy": "validation accuracy of the best cell",
    "search/test_accuracy": "test accuracy of the best cell by validation",
}
STAGES = {"train": "training", "val": "validation", "test": "test"}
EXACT = ("parameters", "aux_parameters", "multiply_adds", "fc_share")  # equal for all seeds
CURVE = "curve:"
EVALUATIONS_APART = 10  # the values of a search's curve
ERROR = re.compile(r"top(\d+)_error")
HUGE = 1e5


def measure_name(measure: str) -> str:
    """A measure in words: "test error", "training loss at the end of epoch 3"."""
    if measure in GRADIENTS:
        return GRADIENTS[measure]
    name, _, epoch = measure.removeprefix(CURVE).partition("@")
    if name in SEARCHES:
        return f"{SEARCHES[name]}{' so far' if is_curve(measure) else ''}"
    stage, slash, rest = name.partition("/")
    known = WORDS.get(rest if slash else name)
    words = (
        f"{STAGES[stage]} {known}" if known and slash and stage in STAGES else known if known and not slash else name
    )
    if not epoch:
        return words
    return f"{words} at the end of epoch {epoch}" if epoch.isdigit() else f"{words} ({epoch})"


def is_curve(measure: str) -> bool:
    """Whether a measure is a list of values, one for each epoch, or for some of the evaluations of a search."""
    return measure.startswith(CURVE)


def list_axis(measure: str) -> tuple[str, int]:
    """What the places of a list are, and how far they are apart: epochs, evaluations or layers."""
    if not is_curve(measure):
        return "layer, from the input", 1
    return ("evaluations", EVALUATIONS_APART) if measure.removeprefix(CURVE) in SEARCHES else ("epoch", 1)


def error_k(measure: str) -> int | None:
    """The k of a top-k error rate; None for any other measure."""
    found = ERROR.search(measure.rpartition("/")[2])
    return int(found[1]) if found else None


def is_error(measure: str) -> bool:
    """Whether a measure is an error rate, in [0, 1]."""
    return error_k(measure) is not None


def is_share(measure: str) -> bool:
    """Whether a measure is written in percent."""
    return is_error(measure) or measure.endswith(("_share", "_accuracy"))


def guessing_value(measure: str, num_classes: int) -> float | None:
    """What guessing among equally frequent classes gives: 1 - k/K, ln K; None for measures without such a value."""
    if num_classes < 1 or "@" in measure or is_curve(measure):
        return None
    if (k := error_k(measure)) is not None:
        return max(0.0, 1 - k / num_classes)
    return math.log(num_classes) if measure.rpartition("/")[2] == "loss" else None


def format_value(measure: str, value: float | None) -> str:
    """A value with its unit: 1.61 %, 0.0296, 269,722."""
    if value is None or not math.isfinite(value):
        return "none"
    if is_share(measure):
        return f"{100 * value:.2f} %"
    return format_number(value)


def format_difference(measure: str, value: float) -> str:
    """A difference without a sign: 2.83 points, 0.012."""
    if is_share(measure):
        return f"{100 * value:.2f} points"
    return format_number(value)


def format_margin(measure: str, value: float) -> str:
    """A difference that somebody chose: 1 point, 0.5 points, 0.012."""
    if is_share(measure):
        number = f"{100 * value:.3g}"
        return f"{number} point{'' if number == '1' else 's'}"
    return format_number(value)


def format_number(value: float) -> str:
    """A number with at least three digits: 1.58, 4,440,000."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= HUGE:
        return f"{float(f'{value:.4g}'):,.0f}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:#.3g}" if abs(value) < 99.95 else f"{value:,.0f}"
