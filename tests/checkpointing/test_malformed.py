"""Checkpoints whose content is of the wrong kind are refused in one sentence, on whatever verb reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpointing.content import LIGHTNING_VERSION, SAVER, check_averages, check_savers, find_mismatch
from checkpointing.record import read_checkpoint, read_plain_file
from datamodules.photos import check_preprocessing
from errors import UserError
from lit_models import LitResNet
from tests.conftest import DIGITS, TINY, file_times

# Where in the file a value is replaced, by what, and a part of the sentence
EVERY_VERB: list[tuple[str, Any, str]] = [
    ("epoch", "a", "epoch is a str (a) and should be a int"),
    ("epoch", -1, "epoch is a int (-1)"),
    ("global_step", 2.5, "global_step is a float (2.5)"),
    ("global_step", True, "global_step is a bool"),
    ("state_dict", [1, 2], "state_dict is a list"),
    ("state_dict.net.fc.bias", 3, "its weight net.fc.bias is a int and no tensor"),
    ("pytorch-lightning_version", 5, "pytorch-lightning_version is a int"),
    ("pytorch-lightning_version", "x", "pytorch-lightning_version is a str (x) and should be of another form"),
    ("pytorch-lightning_version", "1.5.0", "should be of another form"),
    ("lit_classics", [1], "its content is a list"),
    ("lit_classics.class_names", 5, "class_names is a int"),
    ("lit_classics.class_names", [1, 2], "class_names.0 is a int"),
    ("lit_classics.preprocessing", "x", "preprocessing is a str"),
    ("lit_classics.averaged_from", None, "averaged_from is a NoneType"),
    ("lit_classics.config", [], "config is a list"),
    ("lit_classics.config.model", 7, "model is a int"),
    ("lit_classics.config.seed_everything", None, "changed.ckpt is None: it must be between 0 and"),
    ("lit_classics.config.seed_everything", -1, "seed_everything in "),
    ("lit_classics.config.seed_everything", 2**32, "changed.ckpt is 4294967296"),
    ("lit_classics.config.seed_everything", "a", "changed.ckpt is a"),
    ("lit_classics.config.seed_everything", 0.5, "changed.ckpt is 0.5"),
    ("lit_classics.config.model.init_args.depth", "x", "--model.depth is x"),
    ("lit_classics.config", {"model": {"class_path": "", "init_args": {}}, "data": {"class_path": ""}}, "is missing"),
]
FIT: list[tuple[str, Any, str]] = [
    ("loops", {}, "loops.fit_loop is missing"),
    ("loops.fit_loop", [3], "loops.fit_loop is a list"),
    ("loops.fit_loop.epoch_progress.current.processed", "a", "processed is a str (a)"),
    ("loops.fit_loop.epoch_progress.total", None, "total is a NoneType"),
    ("loops.fit_loop.epoch_loop.batch_progress.is_last_batch", 1, "is_last_batch is a int"),
    ("loops.fit_loop.epoch_loop.automatic_optimization.optim_progress", {}, "optimizer is missing"),
    ("callbacks", [], "callbacks is a list"),
    ("lr_schedulers", 3, "lr_schedulers is a int"),
    ("lit_classics.config.trainer", False, "trainer is a bool"),
    ("lit_classics.config.trainer", {}, "trainer.callbacks is missing"),
    ("lit_classics.config.trainer.max_steps", "x", "--trainer.max_steps is x"),
    ("lit_classics.config.data.init_args.size", "x", "--data.size is x"),
    ("optimizer_states", {}, "optimizer_states is a dict"),
    ("optimizer_states", [], "the state of 0 optimizers for 1"),
    ("optimizer_states.0.state", {}, "no momentum or other state of SGD after 12 steps"),
    ("optimizer_state_counts", [3], "and held another number"),
    ("optimizer_state_counts", ["a"], "0 is a str (a)"),
    ("optimizer_states.0.state.0", {}, "parameter 0 has no momentum_buffer"),
    ("optimizer_states.0.state.0.momentum_buffer", torch.ones(2, 2), "momentum_buffer of parameter 0 is"),
    ("optimizer_states.0.param_groups", [], "0 parameter groups for 1"),
    ("optimizer_states.0.param_groups.0.lr", "a", "lr is a str (a)"),
    ("optimizer_states.0.param_groups.0.params", [0, 1], "has 2 parameters for"),
    ("resume.frozen", 3, "frozen is a int"),
    ("resume", 0, "its content is a int"),
    ("resume", None, "its content is a NoneType"),
    ("resume", {}, "frozen is missing"),
    ("callbacks", {"X": 5}, "X is a int"),
    ("callbacks", {5: {}}, "its content is a int (5)"),
    ("callbacks", {"Mine": {"best_k_models": {}}}, "monitor is missing"),
]
PREDICT: list[tuple[str, Any, str]] = [
    ("lit_classics.preprocessing", {"crop": 16}, "preprocessing.resize is missing"),
    ("lit_classics.preprocessing.mean", [0.5], "mean has 1 values for 3 channels"),
    ("lit_classics.preprocessing.std", ["a"] * 3, "std.0 is a str"),
    ("lit_classics.preprocessing.crop", 0, "crop is 0"),
]
# State that only a training reads
LEFT_OUT: list[tuple[str, Any]] = [
    ("loops", None),
    ("loops", []),
    ("loops.test_loop", 3),
    ("loops.test_loop.batch_progress", ""),
    ("loops.test_loop.batch_progress.total", 7),
    ("optimizer_states", "x"),
]


def replace(content: Any, place: str, value: Any) -> None:
    """Replace a value; names may hold dots."""
    for key in [key for key in content if place == str(key)] if isinstance(content, dict) else []:
        content[key] = value
        return
    for key in content if isinstance(content, dict) else range(len(content)):
        if place == str(key):
            content[key] = value
            return
        if place.startswith(f"{key}."):
            replace(content[key], place[len(str(key)) + 1 :], value)
            return
    raise KeyError(place)


def change(good: Path, folder: Path, place: str, value: Any) -> Path:
    content = torch.load(good, weights_only=True)
    replace(content, place, value)
    torch.save(content, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def check(fails: Callable[..., str], verb: str, tiny_run: Path, changes: list[tuple[str, Any, str]]) -> None:
    folder = tiny_run / "checkpoints"
    before = file_times(tiny_run) | {folder / "changed.ckpt": 0}
    for place, value, sentence in changes:
        path = change(folder / "last.ckpt", folder, place, value)
        said = fails(verb, "--ckpt_path", path, *(["--trainer.max_epochs", 4] if verb == "fit" else []))
        assert sentence in said and "changed.ckpt" in said, said
    assert file_times(tiny_run) | {folder / "changed.ckpt": 0} == before


def test_a_dozen_values_of_another_kind_are_refused(fails, tiny_run):
    check(fails, "test", tiny_run, EVERY_VERB[::3])
    check(fails, "fit", tiny_run, FIT[::4])


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_values_of_another_kind_are_refused(fails, tiny_run, verb):
    check(fails, verb, tiny_run, EVERY_VERB + (FIT if verb == "fit" else []))


def test_evaluation_does_not_read_the_state_of_the_training(run, tiny_run):
    folder = tiny_run / "checkpoints"
    for place, value in LEFT_OUT:
        path = change(folder / "last.ckpt", folder, place, value)
        run("test", "--ckpt_path", path)
        (tiny_run / "test-changed-center.json").unlink()


@pytest.mark.parametrize(
    ("value", "example", "found"),
    [
        ({"a": 1, "b": 2}, {"a": 0}, None),
        ({"b": 2}, {"a": 0}, "a is missing"),
        ({"a": [1, 2]}, {"a": [0]}, None),
        ({"a": (1, "b")}, {"a": [0]}, "a.1 is a str (b) and should be a int"),
        ({"a": None}, {"a": 0}, "a is a NoneType and should be a int"),
        ({"a": 3}, {"a": None}, None),
        ({"a": 3}, {"a": 0.5}, None),
        ({"a": 0.5}, {"a": 3}, "a is a float (0.5) and should be a int"),
        ({"a": True}, {"a": 3}, "a is a bool (True) and should be a int"),
        ({"a": -1}, {"a": -1}, None),
        ({"a": torch.ones(2)}, {"a": torch.ones(3)}, "a is a Tensor [2] and should be a Tensor [3]"),
        ({"a": 2**63}, {"a": 0}, "a is a int of many digits and should be a int"),
        ({"a": 10**9999}, {"a": 0.5}, "a is a int of many digits and should be a float"),
        ({10**9999: 0, "a": 3}, {"a": ""}, "a is a int (3) and should be a str"),
        ([], {}, "its content is a list and should be a dict"),
        ({"a": "2.6.6"}, {"a": LIGHTNING_VERSION}, None),
        ({"a": "2.10.0rc1"}, {"a": LIGHTNING_VERSION}, None),
        ({"a": "3.0.dev20261001+cpu"}, {"a": LIGHTNING_VERSION}, None),
        ({"a": "2.x"}, {"a": LIGHTNING_VERSION}, "a is a str (2.x) and should be of another form"),
        ({"a": ""}, {"a": LIGHTNING_VERSION}, "a is a str () and should be of another form"),
        ({"a": 2.6}, {"a": LIGHTNING_VERSION}, "a is a float (2.6) and should be a str"),
    ],
)
def test_mismatches(value, example, found):
    assert find_mismatch(value, example) == found


# One number, or none, that stands for more than any memory holds
HUGE = [
    torch.zeros(1).expand(2**42),
    torch.sparse_coo_tensor([[0]], [1.0], [2**42], check_invariants=True),
    torch.empty(2**42, device="meta"),
]
PLACES = [
    "state_dict.net.bn1.weight",
    "callbacks.Mine",
    "optimizer_states.0.state.0.momentum_buffer",
    "resume.monitored.val/loss",
    "lr_schedulers",
    "hyper_parameters",
]
# Values of averaged weights and of scores that are of another shape or kind
OF_ANOTHER_SHAPE: list[tuple[str, Any, str]] = [
    ("current_model_state.net.bn1.weight", torch.ones(3), "net.bn1.weight is a Tensor [3]"),
    ("current_model_state", {}, "current_model_state.net.conv1.weight is missing"),
    ("averaging_state", {}, "n_averaged is missing"),
    ("averaging_state.n_averaged", torch.ones(2), "n_averaged is a Tensor [2]"),
    ("callbacks.ModelCheckpoint.best_model_score", torch.ones(2), "best_model_score is a Tensor [2]"),
    ("callbacks.ModelCheckpoint.best_k_models", {"a": torch.ones(2)}, "best_k_models.a is a Tensor [2]"),
    ("callbacks.ModelCheckpoint.best_k_models", {"a": "x"}, "best_k_models.a is a str (x)"),
]


def test_a_tensor_larger_than_its_file_is_refused_wherever_it_is(tiny_run):
    path = tiny_run / "checkpoints" / "last.ckpt"
    changed = path.with_name("changed.ckpt")
    for number, place in enumerate(PLACES):
        content = torch.load(path, weights_only=True)
        content["callbacks"]["Mine"] = 0
        tensor = HUGE[number % len(HUGE)]
        replace(content, place, tensor if "." in place else [(tensor,)])
        torch.save(content, changed)
        with pytest.raises(UserError, match=f"changed.ckpt is not loaded: {place}.*larger than the file"):
            read_checkpoint(changed)
        with pytest.raises(UserError, match="larger than the file"):
            LitResNet.load_from_checkpoint(changed)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(16, device="meta"),
        torch.ones(16).to_sparse(),
        torch.quantize_per_tensor(torch.ones(16), 0.1, 0, torch.quint8),
    ],
)
def test_a_tensor_without_an_array_of_numbers_is_refused(tmp_path, tensor):
    torch.save({"net.bn1.weight": tensor}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth is not loaded: net.bn1.weight is a tensor without an array of numbers"):
        read_plain_file(tmp_path / "w.pth")


def test_averaged_weights_and_scores_of_another_shape_are_refused(tiny_run):
    path = tiny_run / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    saver = next(state for name, state in content["callbacks"].items() if name.startswith("ModelCheckpoint"))
    content |= {"current_model_state": dict(content["state_dict"]), "averaging_state": {"n_averaged": torch.tensor(1)}}
    content["callbacks"] = {"ModelCheckpoint": saver}
    torch.save(content, path)
    read_checkpoint(path)
    for place, value, sentence in OF_ANOTHER_SHAPE:
        with pytest.raises(UserError) as error:
            read_checkpoint(change(path, path.parent, place, value))
        assert sentence in str(error.value)


@pytest.mark.parametrize(("place", "value", "sentence"), PREDICT)
def test_a_preprocessing_of_another_kind_is_refused(fails, tiny_run, place, value, sentence):
    folder = tiny_run / "checkpoints"
    path = change(folder / "last.ckpt", folder, place, value)
    assert sentence in fails("predict", "--ckpt_path", path, "--data.paths", "nowhere.jpg")


@pytest.mark.parametrize("interpolation", ["__class__", 7, None, ["bilinear"]])
def test_an_interpolation_that_there_is_none_of_is_refused(interpolation):
    channels = [0.5] * 3
    settings = {"resize": 8, "crop": 8, "mean": channels, "std": channels, "interpolation": interpolation}
    with pytest.raises(UserError, match="and should be one of bilinear"):
        check_preprocessing(settings)


def test_other_state_of_an_average_and_scores_of_eight_bits_are_refused():
    weights = {"a": torch.ones(2)}
    good = {"state_dict": weights, "current_model_state": weights, "averaging_state": {"n_averaged": torch.tensor(3)}}
    check_averages(good, "x.ckpt")
    for change in (
        {"current_model_state": {}},
        {"current_model_state": {"a": torch.ones(3)}},
        {"current_model_state": {"a": torch.ones(2).to(torch.float8_e4m3fn)}},
        {"averaging_state": {}},
        {"averaging_state": {"n_averaged": torch.ones(2)}},
        {"averaging_state": {"n_averaged": torch.tensor(3), "more": torch.tensor(3)}},
    ):
        with pytest.raises(UserError, match="not as `main.py fit` writes"):
            check_averages(good | change, "x.ckpt")
    for missing in ("current_model_state", "averaging_state"):
        with pytest.raises(UserError, match=f"{missing} is missing"):
            check_averages({name: value for name, value in good.items() if name != missing}, "x.ckpt")
    score = torch.tensor(0.5).to(torch.float8_e4m3fn)
    saver = SAVER | {"best_k_models": {"a.ckpt": score}}
    with pytest.raises(UserError, match="of torch.float8_e4m3fn"):
        check_savers({"ModelCheckpoint": saver}, "x.ckpt")


def test_a_callback_of_test_is_refused_in_fit(fails, here):
    path = "callbacks.prediction_writer.PredictionWriter"
    said = fails("fit", "--config", DIGITS, *TINY, "--trainer.callbacks+", path)
    assert "PredictionWriter writes the predictions of test and validate" in said
    assert not list(Path("runs").rglob("*"))
