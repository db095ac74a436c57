"""Files that stand for a part of a config, such as `model: resnet.yaml`: read as strictly as the config itself."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkpointing.import_policy import names_given
from cli.config_files import insert_files, read_config, read_flags
from cli.yaml_files import write_yaml
from errors import UserError
from tests.conftest import DIGITS, TINY, Run

MODEL = "class_path: lit_models.LitResNet\ninit_args:\n  depth: 20\n  optimizer: o.yaml\n"
PARTS = {
    "c.yaml": "model: parts/m.yaml\ndata: parts/d.yaml\ntrainer: parts/t.yaml\n",
    "parts/m.yaml": MODEL,
    "parts/o.yaml": "class_path: torch.optim.SGD\ninit_args: {lr: 0.1}\n",
    "parts/d.yaml": "class_path: datamodules.Synthetic\ninit_args: {classes: 6, size: 16}\n",
    "parts/t.yaml": "max_epochs: 1\ncallbacks+: [p.yaml]\n",
    "parts/p.yaml": "class_path: callbacks.PreciseBN\n",
}
WHOLE = {
    "model": {
        "class_path": "lit_models.LitResNet",
        "init_args": {"depth": 20, "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}},
    },
    "data": {"class_path": "datamodules.Synthetic", "init_args": {"classes": 6, "size": 16}},
    "trainer": {"max_epochs": 1, "callbacks+": [{"class_path": "callbacks.PreciseBN"}]},
}


@pytest.fixture
def parts(here: Path) -> Callable[..., Path]:
    """Write the parts of a config, some of them changed, into a folder below the working directory."""

    def write(changed: dict[str, str | bytes] | None = None) -> Path:
        for name, content in {**PARTS, **(changed or {})}.items():
            path = here / "conf" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Path("conf/c.yaml")

    return write


@pytest.fixture
def printed(run: Run, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[dict[str, Any], list[str]]]:
    """The config that `fit --print_config` prints, and the lines on stderr."""

    def type_it(*args: object) -> tuple[dict[str, Any], list[str]]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run("fit", *args, "--print_config")
        assert stop.value.code == 0
        out, err = capsys.readouterr()
        return yaml.safe_load(out), err.splitlines()

    return type_it


def test_files_stand_for_what_they_hold_relative_to_the_file_that_names_them(parts, here):
    layer = read_config(str(parts()))
    assert layer.content == WHOLE == yaml.safe_load(layer.text)
    assert layer.files["model.optimizer"] == "conf/parts/o.yaml" == layer.file_of("model.optimizer.lr")
    assert layer.file_of("trainer.callbacks") == "conf/parts/t.yaml" and layer.file_of("run_name") == "conf/c.yaml"
    assert {"torch.optim.SGD", "callbacks.PreciseBN"} <= {*names_given([f"--config={layer.text}"])}
    text = f"{{model: conf/parts/m.yaml, data: {here}/conf/parts/d.yaml}}"
    assert read_config(text).content == {"model": WHOLE["model"], "data": WHOLE["data"]}


def test_a_config_without_other_files_stays_as_it_is(here):
    Path("labels.yaml").write_text("- cat\n- cat: 1\n  cat: 2\n")  # a key twice, in a file that is no part
    Path("c.yaml").write_text("data: {init_args: {names: labels.yaml, root: no.yaml}}  # mine\nmodel: a.B\n")
    layer = read_config("c.yaml")
    assert layer.text == Path("c.yaml").read_text() and not layer.files


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"parts/m.yaml": MODEL + "init_args: {}"}, "conf/parts/m.yaml, line 5: init_args is given twice, first in"),
        ({"parts/d.yaml": "class_path: A\ninit_args: {a: 1, a: 2}"}, "conf/parts/d.yaml, line 2: a is given twice"),
        ({"parts/t.yaml": "max_epochs: 3\nmax_epochs: 4"}, "conf/parts/t.yaml, line 2: max_epochs is given twice"),
        ({"parts/t.yaml": "callbacks: []\ncallbacks+: []"}, "conf/parts/t.yaml: trainer.callbacks is given twice"),
        ({"parts/o.yaml": "lr: 1\nlr: 2"}, "conf/parts/o.yaml, line 2: lr is given twice"),
        ({"parts/p.yaml": "class_path: A\ninit_args: {a: 1, a: 2}"}, "conf/parts/p.yaml, line 2: a is given twice"),
        ({"parts/m.yaml": "class_path: A\ninit_args:\n\ta: 1"}, "conf/parts/m.yaml, line 3: a tab"),
        ({"parts/m.yaml": "class_path: A\ninit_args: &a {b: *a}"}, "conf/parts/m.yaml, line 2: the anchor"),
        ({"parts/m.yaml": "!!python/object/apply:os.system [ls]"}, "conf/parts/m.yaml, line 1: the tag"),
        ({"parts/m.yaml": "[" * 3000}, "conf/parts/m.yaml is nested too deeply"),
        ({"parts/m.yaml": "class_path: Größe".encode("latin-1")}, "conf/parts/m.yaml, line 1: the byte 0xf6"),
        ({"parts/m.yaml": ""}, "conf/parts/m.yaml is empty"),
        ({"parts/t.yaml": "# nothing"}, "conf/parts/t.yaml is empty"),
        ({"parts/m.yaml": "null"}, "conf/parts/m.yaml: model is empty"),
        ({"parts/o.yaml": "3"}, "conf/parts/o.yaml: model.optimizer is 3"),
        ({"parts/d.yaml": "[a, b]"}, "conf/parts/d.yaml: data is ['a', 'b']"),
        ({"parts/t.yaml": "some text"}, "conf/parts/t.yaml: trainer is some text"),
        ({"parts/m.yaml": "class_path: A\ninit_args:"}, "conf/parts/m.yaml: init_args is empty"),
        ({"parts/t.yaml": "trainer: {max_epochs: 3}"}, "conf/parts/t.yaml holds trainer: and stands for trainer"),
        ({"parts/m.yaml": "class_path: A\ninit_args: o.yaml"}, "conf/parts/m.yaml: init_args is o.yaml"),
        ({"c.yaml": "model: no.yaml"}, "conf/c.yaml: model is no.yaml, and there is no file conf/no.yaml"),
        ({"parts/m.yaml": "{class_path: A, init_args: {optimizer: n.yml}}"}, "there is no file conf/parts/n.yml"),
        ({"c.yaml": "model: c.yaml"}, "name each other without an end (conf/c.yaml -> conf/c.yaml)"),
        ({"parts/o.yaml": "class_path: A\ninit_args: {a: ../parts/m.yaml}"}, "without an end (conf/c.yaml -> conf/"),
        ({"parts/p.yaml": "[" + "q.yaml, " * 200 + "]", "parts/q.yaml": "class_path: A"}, "without an end"),
        ({"c.yaml": "model: parts/m.yaml\nmodel.depth: 32"}, "conf/c.yaml: model.depth is given twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_with_the_name_of_the_part(parts, changed, said):
    path = parts(changed)
    with pytest.raises(UserError) as error:
        read_config(str(path))
    assert said in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_part_is_read_in_every_encoding_that_it_names(parts, encoding):
    names = ("parts/m.yaml", "parts/o.yaml", "parts/p.yaml")
    assert read_config(str(parts({name: PARTS[name].encode(encoding) for name in names}))).content == WHOLE


def test_values_of_a_part_are_what_they_are_in_a_config(parts):
    text = "{gradient_clip_val: .inf, max_time: 2001-01-01, a: 1.0e5, b: 1_0e-2, c: .nan, d: off}"
    [section] = read_config(str(parts({"c.yaml": "trainer: parts/t.yaml", "parts/t.yaml": text}))).content.values()
    assert repr([*section.values()]) == "[inf, '2001-01-01', 100000.0, 0.1, nan, False]"


def test_flags_name_files_too(parts, here):
    parts()
    flags = ["--model", "conf/parts/m.yaml", "--data.size", "-3", "--model.optimizer=conf/parts/o.yaml", "--verbose"]
    words, layers = insert_files(read_flags([*flags, "--trainer", "conf/parts/t.yaml", "--data.root", "a b"]))
    assert words[1:3] == ["--data.size", "-3"] and words[4] == "--verbose" and words[6:] == ["--data.root", "a b"]
    assert yaml.safe_load(words[0].removeprefix("--model=")) == WHOLE["model"]
    assert yaml.safe_load(words[3].removeprefix("--model.optimizer=")) == WHOLE["model"]["init_args"]["optimizer"]
    assert yaml.safe_load(words[5].removeprefix("--config=")) == {"trainer": WHOLE["trainer"]}
    assert [layer.file_of("model.optimizer") for layer in layers[:2]] == ["conf/parts/o.yaml"] * 2
    assert insert_files(read_flags(flags[2:4])) == (flags[2:4], [])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "no.yaml"], "--model is no.yaml, and there is no file no.yaml"),
        (["--model.optimizer=no.yml"], "--model.optimizer is no.yml, and there is no file no.yml"),
        (["--model.init_args", "conf/parts/o.yaml"], "--model.init_args is conf/parts/o.yaml: give it keys"),
        (["--data.init_args=[1]"], "--data.init_args is [1]: give it keys"),
        (["--trainer", "conf/c.yaml"], "conf/c.yaml holds trainer: and stands for trainer"),
    ],
)
def test_a_flag_that_names_no_part_is_said(parts, flags, said):
    parts()
    with pytest.raises(UserError) as error:
        insert_files(read_flags(flags))
    assert said in str(error.value)


def test_parts_of_a_trainer_add_to_the_callbacks_below(parts, printed):
    parts()
    inline, _ = printed("--config", DIGITS, "--config", write_yaml({"trainer": WHOLE["trainer"]}))
    assert len(inline["trainer"]["callbacks"]) == 6
    for flags in (
        ["--config", "conf/c.yaml", "--model", "lit_models.LitResNet", "--data", "datamodules.Digits"],
        ["--trainer", "conf/parts/t.yaml"],
        ["--trainer={max_epochs: 1, callbacks+: [{class_path: callbacks.PreciseBN}]}"],
    ):
        assert printed("--config", DIGITS, *flags)[0]["trainer"] == inline["trainer"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config", "conf/c.yaml"], "conf/parts/m.yaml: --model.depth is x: it must be a whole number."),
        (["--model", "conf/parts/m.yaml"], "conf/parts/m.yaml: --model.depth is x: it must be a whole number."),
        (["--trainer={max_epochs: 3}", "--trainer.max_epochs", "y"], "error: --trainer.max_epochs is y"),
        (["--trainer", "conf/parts/t.yaml"], "conf/parts/t.yaml: There is no argument --trainer.max_epoch here."),
        (["--model={init_args: {depth: y}}"], "error: --model.depth is y: it must be a whole number."),
        (["--config={trainer: {max_epochs: y}}"], "error: --trainer.max_epochs is y: it must be a whole number."),
        (["--data", "conf/parts/d.yaml"], "conf/parts/d.yaml: --data: there is no class nowhere for it."),
    ],
)
def test_a_mistake_in_a_part_is_said_with_its_name(parts, fails, flags, said):
    changed = {"parts/m.yaml": MODEL.replace("20", "x"), "parts/t.yaml": "max_epoch: 3", "parts/d.yaml": "nowhere"}
    parts({"c.yaml": "model: parts/m.yaml", **changed})
    assert said in fails("fit", "--config", DIGITS, *flags)


def test_notes_name_the_part_and_are_printed_with_the_config(parts, printed):
    parts({"parts/o.yaml": "class_path: torch.optim.Adam", "parts/t.yaml": "callbacks: p.yaml"})
    keeps = "keeps lr 0.1, weight_decay 0.0005 of SGD: set them too if others are meant."
    config, notes = printed("--config", DIGITS, "--config", "conf/c.yaml")
    assert notes[0].startswith("note: conf/parts/p.yaml replaces Throughput, LearningRateMonitor,")
    assert notes[1:] == [f"note: conf/parts/o.yaml {keeps}"]
    assert config["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.Adam"
    for flag in ("conf/parts/o.yaml", "torch.optim.Adam", "{class_path: torch.optim.Adam}"):
        assert printed("--config", DIGITS, "--model.optimizer", flag)[1] == [f"note: --model.optimizer {flag} {keeps}"]


def test_the_printed_config_is_the_same_with_and_without_notes(printed):
    flags = ["--config", DIGITS, "--trainer.logger", "false", "--data", "datamodules.CIFAR10", "--data.root", "here"]
    config, notes = printed(*flags)
    assert config["trainer"]["logger"] is False and config["data"]["init_args"]["root"] == "here" and not notes
    again, notes = printed(*flags, "--data.batch_size", 1, "--data.batch_size", 64)
    assert again == config and notes == ["note: --data.batch_size is given twice: 64 counts, and 1 does not."]


def test_a_run_of_parts_is_resumed_with_its_parts(parts, run, capsys):
    parts({"parts/d.yaml": PARTS["parts/d.yaml"].replace("16", "16, train_size: 8, val_size: 4, batch_size: 4")})
    run("fit", "--config", "conf/c.yaml", "--trainer.precision", "32-true")
    assert "__path__" not in Path("runs/conf/c/version_0/config.yaml").read_text()
    capsys.readouterr()
    run("fit", "--ckpt_path", "runs/conf/c", "--config", "conf/c.yaml", "--trainer.max_epochs", 2)
    assert "note: " not in capsys.readouterr().err
    config = yaml.safe_load(Path("runs/conf/c/version_0/config.yaml").read_text())
    assert [callback["class_path"] for callback in config["trainer"]["callbacks"]].count("callbacks.PreciseBN") == 1


def test_a_pipe_is_read_once(run, here):
    reader, writer = os.pipe()
    os.write(writer, b"class_path: lit_models.LitResNet\ninit_args: {depth: 20}\n")
    os.close(writer)
    run("fit", "--config", DIGITS, *TINY, "--model", f"/dev/fd/{reader}", "--trainer.fast_dev_run", 1)
    os.close(reader)
