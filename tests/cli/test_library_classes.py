"""Callbacks and loggers of Lightning: each works, or is refused in one sentence before the first batch."""

from pathlib import Path

import pytest
import yaml

from cli.failures import explain_failure
from tests.conftest import DIGITS, TINY

FIT = ["fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 1, "--trainer.limit_train_batches", 1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LearningRateFinder", "would have to change --model.optimizer.lr"),
        ("BatchSizeFinder", "would have to change --data.batch_size"),
        ("BackboneFinetuning", "freezes a model's `backbone`, and LitResNet has none"),
    ],
)
def test_callbacks_that_need_what_is_not_there_are_refused(fails, name, said):
    assert f"{name} {said}" in fails(*FIT, "--trainer.callbacks+", name)
    assert not [*Path("runs").glob("*")]


def test_a_timer_is_recorded(run, fails):
    in_keys = "{class_path: Timer, init_args: {duration: {minutes: 5}}}"
    said = fails(*FIT, "--trainer.callbacks+", in_keys)
    assert "duration is {'minutes': 5}: write it as days, hours, minutes and seconds, such as 00:00:05:00." in said
    run(*FIT, "--trainer.callbacks+", '{class_path: Timer, init_args: {duration: "00:00:05:00"}}')
    config = yaml.safe_load(Path("runs/digits/resnet20/version_0/config.yaml").read_text())
    arguments = config["trainer"]["callbacks"][-1]["init_args"]
    assert arguments["interval"] == "step" and arguments["duration"] == "00:00:05:00"


def test_a_package_that_lightning_misses_is_one_sentence():
    code = compile("def f(): raise ModuleNotFoundError('`psutil` is not installed.')", "x", "exec")
    spaces = [{"__name__": name} for name in ("lightning.pytorch.callbacks.x", "lit_models.x")]
    said = []
    for space in spaces:
        exec(code, space)
        with pytest.raises(ModuleNotFoundError) as caught:
            space["f"]()
        said.append(explain_failure(caught.value))
    assert said == ["`psutil` is not installed.", None]
