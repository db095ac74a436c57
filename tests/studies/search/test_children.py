"""The reward of a training: ordinary runs, each cell once, resumed after a kill."""

import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from errors import UserError
from studies.search.__main__ import main
from studies.search.children import CACHE, Child, TrainReward
from studies.search.rewards import Outcome
from studies.search.spaces import NASNetSpace
from tests.conftest import HOME, TINY, file_times
from tests.killing import start

CHILD = str(HOME / "configs" / "digits" / "nasnet_child.yaml")
FLAGS = [f"{name}={value}" for name, value in zip(TINY[::2], TINY[1::2], strict=True) if "max_epochs" not in name]
FLAGS += ["--trainer.max_epochs=1", "--model.repeats=1"]
SPACE = NASNetSpace(1)
CELL = (0, 1, 0, 6, 0, 1, 7, 1)  # identity and pooling
MIRRORED = (1, 0, 6, 0, 0, 1, 7, 1)


def rewards(folder="search", flags=(), processes=1):
    return TrainReward(SPACE, [f"--config={CHILD}", *FLAGS, *flags], Path(folder), processes)


def test_equal_cells_are_trained_once(here, monkeypatch):
    trained = []
    monkeypatch.setattr(Child, "train", lambda child: trained.append(child) or Outcome(0.8, 0.7))
    reward = rewards()
    assert reward.evaluate([CELL, MIRRORED]) == [Outcome(0.8, 0.7)] * 2 == reward.evaluate([MIRRORED, CELL])
    assert rewards().evaluate([MIRRORED]) == [Outcome(0.8, 0.7)]
    (child,) = trained
    assert '--model.normal_cell={"rows": [["identity", 0, "avg_3x3", 1]]}' in child.fit


@pytest.mark.slow
def test_a_reward_is_the_accuracy_of_a_run(here):
    reward = rewards()
    first, second = reward.evaluate([CELL, MIRRORED])
    assert first == second and 0 <= first.validation <= 1
    (run,) = here.glob("search/children/*/version_*")
    tested = json.loads((run / "test-last-center.json").read_bytes())["metrics"]["test/top1_error"]
    assert first.test == 1 - tested
    rows = [line for line in (run / "metrics.csv").read_text().splitlines() if line]
    column = rows[0].split(",").index("val/top1_error")
    values = [float(value) for row in rows[1:] if (value := row.split(",")[column])]
    assert first.validation == pytest.approx(1 - values[-1])
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["normal_cell"] == {"rows": [["identity", 0, "avg_3x3", 1]]}
    times = file_times(here)
    assert rewards().evaluate([MIRRORED]) == [first]
    assert file_times(here) == times


def test_children_of_another_experiment_are_refused(here):
    reward = rewards()
    reward.known[CELL] = Outcome(0.5, 0.4)
    reward._write_known()
    assert rewards().known == {CELL: Outcome(0.5, 0.4)}
    with pytest.raises(UserError, match=r"search holds children of another experiment \(model.filters 8, not 9"):
        rewards(flags=["--model.filters=9"])
    (here / "search" / CACHE).write_text("{}")
    with pytest.raises(UserError, match="holds no children of a search"):
        rewards()


def test_an_experiment_of_another_family_is_refused(here):
    with pytest.raises(
        UserError, match="The experiment trains lit_models.LitResNet, and the cells are for lit_models.Lit"
    ):
        TrainReward(SPACE, [f"--config={HOME}/configs/digits/resnet20.yaml"], Path("search"))


def test_what_main_refuses_is_said_before_anything_is_trained(here):
    with pytest.raises(UserError, match="filters"):
        rewards(flags=["--model.filter=9"])
    assert not list(here.iterdir())


def search(*flags):
    main(["--reward", "train", "--config", CHILD, *FLAGS, "--rows", "1", "--batch_size", "2", *flags])


@pytest.mark.slow
def test_a_search_trains_children_and_writes_a_config_that_trains(run, here, capsys):
    search("--method", "reinforce", "random", "--evaluations", "4", "--html", "page.html")
    said = capsys.readouterr().out
    assert "reinforce, seed 0: 4/4" in said and "random, seed 0: best of 4 cells" in said
    run("fit", "--config", "runs/search/digits-nasnet_child/best.yaml", *FLAGS)
    assert "train/loss" in capsys.readouterr().out


@pytest.mark.slow
def test_the_number_of_processes_changes_no_number(here):
    cells = [CELL, (0, 0, 1, 0, 1, 1, 0, 9), (0, 0, 2, 3, 1, 1, 0, 9)]
    assert rewards("one").evaluate(cells) == rewards("two", processes=2).evaluate(cells)


@pytest.mark.slow
def test_a_child_that_diverges_is_worth_nothing(here):
    flags = ["--model.optimizer.lr=1e30", "--model.lr_scheduler.max_lr=1e30"]
    assert rewards(flags=flags).evaluate([CELL]) == [Outcome(0.0, 0.0)]
    assert rewards(flags=flags).evaluate([CELL]) == [Outcome(0.0, 0.0)]


def search_and_die(folder, children):
    """A search whose process is killed when so many children are trained."""
    os.chdir(folder)
    os.environ["WANDB_MODE"] = "disabled"
    write, written = TrainReward._write_known, 0

    def write_and_die(self):
        nonlocal written
        write(self)
        written += 1
        if written == children:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainReward._write_known = write_and_die
    search("--method", "evolution", "--evaluations", "6", "--json", "search.json")


@pytest.mark.slow
def test_a_search_that_was_killed_trains_nothing_twice(here):
    whole, killed = here / "whole", here / "killed"
    for folder, deaths in ((whole, [0]), (killed, [1, 3, 0])):
        folder.mkdir()
        for children in deaths:
            process = start(search_and_die, folder, children)
            process.join()
            assert process.exitcode == (-signal.SIGKILL if children else 0)
    assert (whole / "search.json").read_text() == (killed / "search.json").read_text()
    runs = {path.relative_to(folder) for folder in (whole, killed) for path in folder.glob("runs/**/version_*")}
    assert all(path.name == "version_0" for path in runs)
    assert len(list(whole.glob("runs/**/version_*"))) == len(list(killed.glob("runs/**/version_*")))
