"""Null where an argument needs a value is refused with the flag, and is a value where the argument takes it."""

import lightning.pytorch as pl
import pytest

from tests.conftest import DIGITS, TINY

FIT = ["fit", "--config", DIGITS, *TINY]


@pytest.mark.parametrize(
    ("flag", "needed"),
    [
        ("data.batch_size", "a whole number"),
        ("data.val_size", "a whole number"),
        ("data.protocol", "text"),
        ("model.label_smoothing", "a number"),
        ("model.depth", "one of 18, 34"),
        ("model.channels_last", "true or false"),
        ("model.optimizer.lr", "a number"),
        ("trainer.accumulate_grad_batches", "a whole number"),
        ("on_nonfinite", "one of stop, continue"),
        ("seed_everything", "true or false or a whole number"),
    ],
)
def test_null_is_refused_where_an_argument_needs_a_value(fails, flag, needed):
    assert f"error: --{flag} is null: it must be {needed}" in fails(*FIT, f"--{flag}", "null")


def test_null_in_a_file_and_in_a_callback_is_refused_with_its_place(fails, here):
    (here / "x.yaml").write_text("model: {init_args: {label_smoothing: null}}")
    assert "--model.label_smoothing is null: it must be a number" in fails(*FIT, "--config", "x.yaml")
    callback = "{class_path: callbacks.PreciseBN, init_args: {batches: null}}"
    assert "--trainer.callbacks.batches is null" in fails(*FIT, "--trainer.callbacks+", callback)


made: list[float | None] = []  # what the callbacks below were given


class Outer:
    class Waiting(pl.Callback):
        def __init__(self, seconds: float | None = None, steps: int = 1) -> None:
            made.append(seconds)


def make_waiting(seconds: float | None = None) -> pl.Callback:
    return Outer.Waiting(seconds)


@pytest.mark.parametrize("name", ["make_waiting", "Outer.Waiting"])
def test_functions_and_nested_classes_are_made_with_the_nulls_that_they_take(run, name):
    made.clear()
    run(*FIT, "--trainer.fast_dev_run", 1, "--trainer.callbacks+", f"tests.cli.test_nulls.{name}")
    assert made == [None]


def test_null_is_a_value_where_the_argument_takes_it(run):
    names = ["model.lr_scheduler", "model.weights", "trainer.callbacks", "trainer.profiler"]
    run(*FIT, "--trainer.fast_dev_run", 1, *(word for name in names for word in (f"--{name}", "null")))
