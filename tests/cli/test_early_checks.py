"""Mistakes that are refused before torch is imported, and what is imported for it; `test_house.py` has the rest."""

import os
import pty
import signal
import subprocess
import sys

import pytest

import main
from cli import early_checks
from cli.early_checks import check_early, take_verb
from errors import UserError
from tests.conftest import DIGITS, HOME

# Packages that take between a third of a second and several seconds to import
HEAVY = {"torch", "lightning", "torchmetrics", "torchvision", "timm", "numpy", "scipy", "matplotlib", "sklearn"}
HEAVY |= {"wandb", "pandas", "altair", "litdata", "rich"}


@pytest.mark.parametrize(
    ("module", "allowed"), [("main", set()), ("cli.early_checks", set()), ("reports.command", {"rich"})]
)
def test_an_entry_point_imports_no_heavy_package_before_it_is_needed(module, allowed):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=True).stdout
    assert sorted({name.partition(".")[0] for name in loaded.split()} & HEAVY - allowed) == []


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        ([], 2, "Give a command: fit, validate, test or predict."),
        (["fitt", "--config", DIGITS], 2, "There is no command fitt: choose from fit, validate, test, predict."),
        (["test"], 1, "test needs a trained model: give --ckpt_path"),
        (["test", "--ckpt_path", "runs/nowhere"], 1, "There is no checkpoint runs/nowhere"),
        (["fit", "--ckpt_path", ""], 1, "no config file missing.yaml"),
        (["fit"], 1, "There is no config file missing.yaml"),
        (["fit", "-c", "twice.yaml"], 1, "twice.yaml, line 2: model is given twice, first in line 1"),
        (["fit", "--config"], 1, "--config needs a value"),
    ],
)
def test_a_mistake_is_refused_before_torch_is_imported(argv, status, said, here, monkeypatch, capsys):
    (here / "twice.yaml").write_text("model: A\nmodel: B\n")
    argv = [*argv, "-c", "missing.yaml"] if argv in (["fit"], ["fit", "--ckpt_path", ""]) else argv
    monkeypatch.setattr(sys, "argv", ["main.py", *argv])
    monkeypatch.setitem(sys.modules, "cli.command_line", None)  # its import raises
    with pytest.raises(SystemExit) as stopped:
        main.main()
    text = capsys.readouterr().err + str(stopped.value.code)
    assert said in text
    assert (2 if stopped.value.code == 2 else 1) == status


@pytest.mark.parametrize(
    ("line", "verb", "rest"),
    [
        ("fit --run_name test", "fit", "--run_name test"),
        ("--run_name test fit --seed_everything 1", "fit", "--run_name test --seed_everything 1"),
        ("--data.root fit fit", "fit", "--data.root fit"),
        ("--ckpt_path test -c predict validate", "validate", "--ckpt_path test -c predict"),
        ("--trainer.callbacks+ test predict", "predict", "--trainer.callbacks+ test"),
        ("--run_name=test fit", "fit", "--run_name=test"),
        ("--trainer.max_epochs -1 fit", "fit", "--trainer.max_epochs -1"),
        ("--print_config fit --run_name test", "fit", "--print_config --run_name test"),
        ("--run_name fit", "fit", "--run_name"),
        ("fitt --run_name a", None, "fitt --run_name a"),
    ],
)
def test_the_value_of_a_flag_is_not_the_verb(line, verb, rest):
    assert take_verb(line.split()) == (verb, rest.split())


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["fit", "--help", "--config", "missing.yaml"],
        ["--print_config", "fit"],
        ["--trainer.max_epochs", "3"],
        ["fit", "--config", DIGITS, "--trainer.max_epohcs", "3"],
        ["fit", "--config", "{model: lit_models.LitResNet}"],
        ["test", "--ckpt_path", "."],
    ],
)
def test_other_command_lines_are_left_to_the_parser(argv, here):
    check_early(argv)


def test_a_config_from_a_pipe_is_not_read_early(here):
    os.mkfifo(here / "pipe")
    check_early(["fit", "--config", "pipe"])


INTERRUPTED = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "cli.command_line":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
runpy.run_path("main.py", run_name="__main__")
"""


def test_ctrl_c_during_the_imports_leaves_no_traceback():
    arguments = ["fit", "--config", DIGITS]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, *arguments], cwd=HOME, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_the_sentences_are_those_of_the_command_line(run, capsys):
    for argv in (["fitt"], [], ["test"], ["test", "--ckpt_path", "nowhere"], ["fit", "--config", "missing.yaml"]):
        said = []
        for command in (lambda argv=argv: run(*argv), lambda argv=argv: check_early(argv)):
            with pytest.raises((SystemExit, UserError)) as stopped:
                command()
            text = capsys.readouterr().err or str(stopped.value)
            said.append(text.removeprefix("error: ").strip())
        assert said[0] == said[1]


def test_a_command_that_torchrun_has_restarted_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setattr(sys, "argv", ["main.py", "fit", "--config", DIGITS])
    with pytest.raises(SystemExit, match="torchrun has restarted this command .* leave its --max_restarts at 0"):
        main.main()


def test_a_mistake_of_usage_is_said_by_the_first_process_alone(run, monkeypatch, capsys):
    """The second one waits, so that the launcher ends it once the first one has spoken."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_RANK", "1")
    waits = []
    monkeypatch.setattr("cli.rank_variables.time.sleep", lambda seconds: waits.append(capsys.readouterr().err))
    for argv in (["fitt"], ["fit", "--config", DIGITS, "--trainer.nope", "3"], ["fit", "--trainer.max_epochs", "x"]):
        with pytest.raises(SystemExit):
            run(*argv)
        assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        check_early(["fitt"])
    assert waits == [""] * 4


def test_a_terminal_is_told_at_once_that_the_command_has_begun(monkeypatch, capsys):
    early_checks.announce_start()
    assert capsys.readouterr() == ("", "")
    reader, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        early_checks.announce_start()
        assert b"Starting: loading PyTorch and Lightning" in os.read(reader, 200)
        monkeypatch.setenv("LOCAL_RANK", "1")
        early_checks.announce_start()
        monkeypatch.delenv("LOCAL_RANK")
        stream.write("end")
    assert os.read(reader, 200) == b"end"
    os.close(reader)
