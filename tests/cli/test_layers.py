"""One rule for every verb: base.yaml < the checkpoint's config < the --config files < flags."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cli.config_files import Layer
from cli.early_checks import take_flag
from cli.layers import check_run_name, check_seed, name_run, put_classes_first, reuse_callbacks
from datamodules.splits import stratified_split
from errors import UserError
from tests.conftest import DIGITS, HOME, Run

FIT = ["fit", "--config", DIGITS]
EMA = str(HOME / "configs/overlays/ema.yaml")
PRECISE_BN = "callbacks.PreciseBN"
DATA = "class_path: datamodules.Synthetic, init_args: {classes: 6, size: 16, train_size: 8, val_size: 4, batch_size: 4}"
EXPERIMENT = f"""
model:
  class_path: lit_models.LitResNet
  init_args: {{depth: 20, optimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.1}}}}}}
data: {{{DATA}}}
trainer:
  max_epochs: 1
  precision: 32-true
  callbacks+: [{{class_path: callbacks.StepLRDecay, init_args: {{milestones: [1]}}}}]
"""


@pytest.fixture
def config_of(run: Run, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """The config that a command results in."""

    def print_config(*args: object) -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run(*args, "--print_config")
        assert stop.value.code == 0
        return yaml.safe_load(capsys.readouterr().out)

    return print_config


@pytest.fixture
def notes(run: Run, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """What is said of the layers of a fit, which is then refused."""

    def fit(*args: object) -> list[str]:
        with pytest.raises(SystemExit, match="num_classes is given as 7"):
            run("fit", *args, "--model.num_classes", 7)
        return [line.removeprefix("note: ") for line in capsys.readouterr().err.splitlines() if line.startswith("note")]

    return fit


@pytest.fixture
def own(here: Path) -> Path:
    """An experiment of one's own."""
    path = here / "mine" / "net.yaml"
    path.parent.mkdir()
    path.write_text(EXPERIMENT)
    return path


def callback_names(config: dict[str, Any]) -> list[str]:
    return [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]]


BASE_CALLBACKS = ["Throughput", "LearningRateMonitor", "ModelCheckpoint", "ModelCheckpoint"]


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (["--trainer.max_epochs", "7"], []),
        (["--trainer.max_epochs=7"], []),
        ([], ["--trainer.max_epochs", "7"]),
        (["--trainer.max_epochs=8"], ["--trainer.max_epochs=7"]),
    ],
)
@pytest.mark.parametrize("config", [["--config", DIGITS], [f"--config={DIGITS}"], ["-c", DIGITS]])
def test_a_flag_wins_wherever_it_stands(config_of, before, behind, config):
    assert config_of("fit", *before, *config, *behind)["trainer"]["max_epochs"] == 7


def test_a_flag_wins_in_front_of_the_verb_and_between_files(config_of, here):
    Path("longer.yaml").write_text("trainer: {max_epochs: 30}")
    for command in (
        ["--trainer.max_epochs", 7, *FIT, "--config", "longer.yaml"],
        [*FIT, "--trainer.max_epochs", 7, "--config", "longer.yaml"],
        ["--config", DIGITS, "fit", "--trainer.max_epochs", 7, "--config", "longer.yaml"],
    ):
        assert config_of(*command)["trainer"]["max_epochs"] == 7
    assert config_of(*FIT, "--config", "longer.yaml")["trainer"]["max_epochs"] == 30


def test_flags_of_classes_and_lists_win_in_front_of_the_files(config_of):
    flags = ["--model.depth=56", "--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", 0.01]
    config = config_of("fit", *flags, f"--trainer.callbacks+={PRECISE_BN}", "--config", DIGITS, "--config", EMA)
    assert config["model"]["init_args"]["depth"] == 56
    assert config["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.Adam"
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.01
    appended = ["StepLRDecay", "EMAWeightAveraging", "PreciseBN", "PreciseBN"]
    assert callback_names(config) == BASE_CALLBACKS + appended
    config = config_of("fit", "--trainer.callbacks.milestones", "[3]", "--config", DIGITS)
    assert config["trainer"]["callbacks"][-1]["init_args"]["milestones"] == [3]


def test_values_that_look_like_flags_are_left_alone():
    words = ["--data.mean", "-0.5", "--run_name", "a b", "--config=x.yaml", "--data.paths", "[-1, --c]", "-c", "y.yaml"]
    found, rest = take_flag(words, "--config", "-c")
    assert found == ["x.yaml", "y.yaml"] and rest == [*words[:4], *words[5:7]]


def test_a_flag_without_its_value_is_refused(fails):
    for flag in ("--config", "--ckpt_path"):
        assert f"{flag} needs a value" in fails(*FIT, flag)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "trainer: {max_epochs: 3}\nmodel: {init_args: {depth: 20}}\ntrainer: {precision: auto}",
            "line 3: trainer is given",
        ),
        ("trainer:\n  max_epochs: 3\n  max_epochs: 3", "line 3: max_epochs is given twice"),
        ("trainer.max_epochs: 3\ntrainer: {max_epochs: 4}", "trainer.max_epochs is given twice"),
        ("trainer: {callbacks: [A], callbacks+: [B]}", "trainer.callbacks is given twice"),
        ("model: {class_path: A, init_args: {depth: 20}, depth: 32}", "model.depth is given twice"),
        ("trainer:\n", "trainer is empty"),
        ("model: null", "model is empty"),
        ("model: [a, b]", "model is ['a', 'b']"),
        ("model: {init_args: null}", "init_args is empty"),
        ("trainer: {callbacks+: [{class_path: A, init_args: 3}]}", "init_args is 3"),
        ("- trainer: {}", "holds no keys"),
        ("trainer", "holds no keys"),
        ("ckpt_path: last.ckpt", "ckpt_path is last.ckpt, but it is read from the command line"),
        ("config: other.yaml", "config is other.yaml, but it is read from the command line"),
        ("trainer: {max_epochs: x}", "--trainer.max_epochs is x: it must be a whole number."),
        ("treiner: {max_epochs: 3}", "There is no argument --treiner.max_epochs here."),
        ("run_name: no", "--run_name is False: it must be text."),
        (
            "trainer: {max_epoch: 3}",
            "There is no argument --trainer.max_epoch here. Did you mean --trainer.max_epochs?",
        ),
        (
            "model: {init_args: {optimizer: {class_path: torch.optim.SDG}}}",
            "there is no class torch.optim.SDG for it. Did",
        ),
        ("trainer: nowhere", "trainer is nowhere: give it keys"),
        ("data: nowhere", "--data: there is no class nowhere"),
    ],
)
def test_a_mistake_in_a_file_is_said_with_its_name(fails, here, text, said):
    Path("own.yaml").write_text(text)
    message = fails(*FIT, "--config", "own.yaml")
    assert message.startswith("error: own.yaml") and said in message


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "a/../../x", "a//b", "a/b/", "./a", "..", ".", "/"])
def test_a_run_lies_below_the_folder_of_runs(fails, here, name):
    assert f"The name of the run is '{name}', but its folder should lie below runs" in fails(*FIT, "--run_name", name)
    Path("own.yaml").write_text(f"run_name: {name}")
    assert "should lie below runs" in fails(*FIT, "--config", "own.yaml")
    assert not [path for path in here.rglob("*") if path.name != "own.yaml"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("d/e/x.yaml", "e/x"),
        ("x.yaml", "some where/x"),
        ("../x.yaml", "{parent}/x"),
        ("d/../f/x.yaml", "f/x"),
        ("/d/x.yaml", "d/x"),
    ],
)
def test_a_run_is_named_after_the_folder_and_the_file_of_its_config(here, given, name):
    assert name_run([Layer(given, {}, "")]) == name.format(parent=here.parent.name)


def test_a_config_right_below_the_root_names_no_run():
    with pytest.raises(UserError, match="give --run_name"):
        check_run_name(name_run([Layer("/x.yaml", {}, "")]), Path("runs"))
    with pytest.raises(UserError, match="give --run_name"):
        check_run_name("a/\0", Path("runs"))


@pytest.mark.parametrize("seed", [-5, -1, 2**32, 10**30])
def test_a_seed_that_numpy_does_not_take_is_refused(fails, seed):
    assert f"seed_everything is {seed}: it must be between 0 and 4,294,967,295." in fails(
        *FIT, "--seed_everything", seed
    )
    for taken in (0, 2**32 - 1, True, False):
        check_seed(taken)
    with pytest.raises(UserError, match="split_seed is -1: it must be at least 0"):
        stratified_split(np.zeros(4), 2, -1)


def test_a_mistake_in_a_flag_is_not_blamed_on_a_file(fails, here):
    Path("own.yaml").write_text("trainer: {max_epochs: 3}")
    for flags in (["--trainer.max_epochs", "x"], ["--trainer.max_epochs=x"], ["--treiner", "x"]):
        assert "own.yaml" not in fails(*FIT, "--config", "own.yaml", *flags)


def test_a_flag_given_twice_is_said(notes):
    said = ["--trainer.max_epochs is given twice: 5 counts, and 3 does not."]
    assert notes("--trainer.max_epochs", 3, "--config", DIGITS, "--trainer.max_epochs=5") == said
    assert notes(*FIT[1:], "--trainer.max_epochs", 3, "--trainer.max_epochs", 3) == []
    twice = ["--trainer.callbacks+=callbacks.PreciseBN", "--trainer.callbacks+=callbacks.PreciseBN"]
    assert notes(*FIT[1:], *twice) == []
    said = notes(*FIT[1:], "--model.init_args.depth", 20, "--model.depth", 32)
    assert said == ["--model.depth is given twice: 32 counts, and 20 does not."]
    whole = "{class_path: lit_models.LitResNet, init_args: {depth: 20}}"
    assert notes(*FIT[1:], "--model.depth", 32, "--model", whole) == said
    said = notes(*FIT[1:], "--trainer.gradient_clip_val", 4, "--trainer.gradient_clip_val=null")
    assert said == ["--trainer.gradient_clip_val is given twice: null counts, and 4 does not."]


def test_callbacks_that_are_replaced_are_said(notes, here):
    lost = "Throughput, LearningRateMonitor, ModelCheckpoint, ModelCheckpoint, StepLRDecay"
    said = f"--trainer.callbacks {PRECISE_BN} replaces {lost}: write trainer.callbacks+ to add to them instead."
    assert notes(*FIT[1:], "--trainer.callbacks", PRECISE_BN) == [said]
    assert notes("--trainer.callbacks", PRECISE_BN, *FIT[1:]) == [said]
    Path("own.yaml").write_text(f"trainer: {{callbacks: [{{class_path: {PRECISE_BN}}}]}}")
    assert notes(*FIT[1:], "--config", "own.yaml") == [said.replace(f"--trainer.callbacks {PRECISE_BN}", "own.yaml")]
    Path("own.yaml").write_text("trainer: {logger: [{class_path: callbacks.RunLogger, init_args: {save_dir: runs}}]}")
    said = "own.yaml replaces WandbLogger: write trainer.logger+ to add to them instead."
    assert notes(*FIT[1:], "--config", "own.yaml") == [said]


def test_callbacks_that_are_added_or_switched_off_are_not_said(notes):
    assert notes(*FIT[1:], "--config", EMA, f"--trainer.callbacks+={PRECISE_BN}") == []
    assert notes(*FIT[1:], "--trainer.logger", "false") == []


@pytest.mark.parametrize("none", ["null", "[]"])
def test_callbacks_that_are_removed_are_said(notes, here, none):
    lost = "removes Throughput, LearningRateMonitor, ModelCheckpoint, ModelCheckpoint, StepLRDecay: leave it out"
    assert notes(*FIT[1:], "--trainer.callbacks", none) == [f"--trainer.callbacks {none} {lost} to keep them."]
    Path("own.yaml").write_text(f"trainer: {{callbacks: {none}}}")
    assert notes(*FIT[1:], "--config", "own.yaml") == [f"own.yaml {lost} to keep them."]


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (["--model.depth", 32, "--model", "lit_models.LitShakeShake"], "model.depth"),
        (["--model.init_args", "{depth: 32}", "--model=lit_models.LitShakeShake"], "model.depth"),
        (["--model.optimizer.momentum", 0.5, "--model.optimizer", "torch.optim.Adam"], "model.optimizer.momentum"),
        (["--model.optimizer.nesterov=true", "--model.optimizer=torch.optim.Adam"], "model.optimizer.nesterov"),
        (["--data.shift", 1, "--data", "datamodules.Synthetic"], "data.shift"),
    ],
)
def test_a_flag_before_its_class_is_one_of_that_class(fails, flags, missing):
    assert f"There is no argument --{missing} here." in fails(*FIT, *flags)


def test_flags_of_a_class_stand_behind_it():
    words = ["--model.optimizer.lr", "1", "--data.size=8", "--model.init_args.optimizer", "Adam", "--model", "A"]
    words += ["--trainer.callbacks+", "B", "--trainer.callbacks.x", "1", "--trainer.callbacks+", "C", "--data=D"]
    ordered = ["--model", "A", "--model.init_args.optimizer", "Adam", "--model.optimizer.lr", "1", "--data=D"]
    assert put_classes_first(words) == [*ordered, "--data.size=8", *words[7:13]]
    kept = ["--trainer.max_epochs", "3", "--trainer", "{max_epochs: 2}", "--trainer.callbacks.x", "1"]
    assert put_classes_first([*kept, "--trainer.callbacks+", "B"]) == [*kept, "--trainer.callbacks+", "B"]


def test_another_optimizer_that_keeps_arguments_is_said(notes, here):
    said = " keeps lr 0.1, weight_decay 0.0005 of SGD: set them too if others are meant."
    Path("own.yaml").write_text("model: {init_args: {optimizer: {class_path: torch.optim.Adam}}}")
    assert notes(*FIT[1:], "--model.optimizer", "torch.optim.Adam") == ["--model.optimizer torch.optim.Adam" + said]
    assert notes(*FIT[1:], "--config", "own.yaml") == ["own.yaml" + said]
    flags = ["--model.optimizer", "Adam", "--model.optimizer.lr", 0.01]
    assert notes(*FIT[1:], *flags) == [
        "--model.optimizer Adam keeps weight_decay 0.0005 of SGD: set them too if others are meant."
    ]
    assert notes(*FIT[1:], *flags, "--model.optimizer.weight_decay", 0) == []
    assert notes(*FIT[1:], "--model.optimizer", "torch.optim.SGD") == []


def test_ordinary_layering_is_not_said(notes, here):
    Path("own.yaml").write_text("trainer: {max_epochs: 3}\nmodel: {init_args: {depth: 32}}")
    assert notes(*FIT[1:], "--config", "own.yaml", "--trainer.max_epochs", 4, "--data", "datamodules.Synthetic") == []


def test_the_experiments_file_beside_its_checkpoint_gives_the_same_run(run, own, config_of, capsys):
    run("fit", "--config", own, "--config", EMA, "--trainer.gradient_clip_val", ".inf")
    record = torch.load("runs/mine/net/version_0/checkpoints/last.ckpt", weights_only=True)["lit_classics"]["config"]
    alone = config_of("fit", "--ckpt_path", "runs/mine/net")
    assert callback_names(alone) == [*BASE_CALLBACKS, "StepLRDecay", "EMAWeightAveraging", "PreciseBN"]
    assert {**alone["trainer"], "logger": None} == {
        **record["trainer"],
        "logger": None,
    }  # its folders are filled in anew
    for files in (["--config", own], ["--config", own, "--config", EMA], ["--config", EMA]):
        assert config_of("fit", *files, "--ckpt_path", "runs/mine/net") == alone
    Path("overlay.yaml").write_text(
        "trainer: {max_epochs: 2, callbacks+: [{class_path: callbacks.StepLRDecay, init_args: {milestones: [2]}}]}"
    )
    capsys.readouterr()
    run("fit", "--ckpt_path", "runs/mine/net", "--config", "overlay.yaml")
    said = "note: The run goes on with trainer.max_epochs 2 instead of 1 (overlay.yaml), another StepLRDecay."
    assert said in capsys.readouterr().err
    record = torch.load("runs/mine/net/version_0/checkpoints/last.ckpt", weights_only=True)["lit_classics"]["config"]
    decays = [c["init_args"]["milestones"] for c in record["trainer"]["callbacks"] if "StepLR" in c["class_path"]]
    assert decays == [[2]] and record["trainer"]["gradient_clip_val"] == float("inf")


def test_which_callbacks_of_a_file_a_resumed_run_has_already():
    """Equal ones, and those without other arguments, are left out; others of one name replace, the rest is appended."""

    def saver(filename: str, **arguments: Any) -> dict[str, Any]:
        return {"class_path": "ModelCheckpoint", "init_args": {"filename": filename, **arguments}}

    run = [saver("best", mode="min"), saver("last"), {"class_path": "callbacks.PreciseBN"}]
    added = [saver("step"), saver("best"), saver("last", mode="max"), PRECISE_BN]
    content = {"trainer": {"callbacks+": added}}
    [file] = reuse_callbacks(run, [Layer("own.yaml", content, "")])
    assert file.content == yaml.safe_load(file.text) == {"trainer": {"callbacks+": [saver("step")]}}
    assert run == [saver("best", mode="min"), saver("last", mode="max"), {"class_path": "callbacks.PreciseBN"}]
    for added in (None, [{"init_args": {"x": 1}}], [{"class_path": 3}]):  # the parser refuses what is no class
        reuse_callbacks(run, [Layer("own.yaml", {"trainer": {"callbacks+": added}}, "")])
        assert len(run) == 3


def test_a_file_that_replaces_the_callbacks_of_a_resumed_run_may_name_them_again(run, own, config_of):
    run("fit", "--config", own)
    Path("only.yaml").write_text(f"trainer: {{callbacks: [{{class_path: {PRECISE_BN}}}]}}")
    config = config_of("fit", "--ckpt_path", "runs/mine/net", "--config", "only.yaml", "--config", own)
    assert callback_names(config) == ["PreciseBN", "StepLRDecay"]


def test_several_data_paths_add_up(run, tiny_run, capsys):
    for name in ("a.png", "b.png", "c.png"):
        Image.effect_noise((30, 30), 50).convert("RGB").save(name)
    Path("images.yaml").write_text("data: {init_args: {paths: [c.png]}}")
    flags = ["--data.paths", "a.png", "--data.paths=[b.png, c.png]"]
    for command, count in (
        (flags, 3),
        ([*flags, "--data.paths", "a.png"], 4),
        ([flags[2], "--config", "images.yaml"], 2),
    ):
        run("predict", "--ckpt_path", tiny_run, *command)
        printed = capsys.readouterr()
        assert f": {count} images." in printed.out and "note: " not in printed.err
