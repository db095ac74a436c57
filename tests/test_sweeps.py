"""configs/sweeps/: W&B's agent expands each into commands that `main.py` takes as they are."""

import itertools
import re
import subprocess
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from cli.yaml_files import read_yaml
from tests.conftest import HOME, TINY, write_synthetic_cifar

SWEEPS = sorted((HOME / "configs/sweeps").glob("*.yaml"))
# What W&B documents (docs.wandb.ai, "Sweep configuration options"); its server warns of anything else
KEYS = {"program", "project", "entity", "name", "description", "method", "metric", "command", "parameters", "run_cap"}
KEYS |= {"early_terminate", "job", "image_uri"}
DISTRIBUTIONS = {"uniform", "log_uniform_values", "q_uniform", "q_log_uniform_values", "int_uniform"}


def expand(sweep: dict[str, Any], point: dict[str, Any]) -> list[str]:
    """The command of one run, as `wandb agent` makes it (`wandb.wandb_agent.Agent._command_run`)."""
    words = create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})
    words |= {"interpreter": ["python"], "program": [sweep["program"]], "env": ["/usr/bin/env"]}
    parts = (words[part[2:-1]] if part.startswith("${") else [part] for part in create_sweep_command(sweep["command"]))
    return [word for part in parts for word in part]


def grid(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    names, values = zip(*((name, each["values"]) for name, each in sweep["parameters"].items()), strict=True)
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]


def first_point(sweep: dict[str, Any]) -> dict[str, Any]:
    """A run of the sweep: the last values of a grid, the upper ends of distributions."""
    return {
        name: each["values"][-1] if "values" in each else each["max"] / 3 for name, each in sweep["parameters"].items()
    }


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_has_what_wandb_asks_for(path):
    sweep = load_sweep_config(str(path))
    assert sweep == read_yaml(path) and sweep["name"] == path.stem and sweep.keys() <= KEYS
    assert sweep["method"] in {"grid", "random", "bayes"} and (HOME / sweep["program"]).is_file()
    assert sweep["metric"] == {"name": "val/top1_error", "goal": "minimize"}
    for each in sweep["parameters"].values():
        if sweep["method"] == "grid":
            assert each.keys() == {"values"} and len(set(each["values"])) == len(each["values"]) > 1
        else:
            assert each["distribution"] in DISTRIBUTIONS and 0 < each["min"] < each["max"]
    header = path.read_text().partition("program:")[0]
    assert f"wandb sweep configs/sweeps/{path.name}" in header and "python -m reports.compare runs/" in header


@pytest.mark.parametrize(
    "path",
    [path if path.stem == "digits_lr_norm" else pytest.param(path, marks=pytest.mark.slow) for path in SWEEPS],
    ids=lambda path: path.stem,
)
def test_the_agents_command_trains(path, run, here, monkeypatch, new_wandb):
    sweep = read_yaml(path)
    point = first_point(sweep)
    env, interpreter, program, *args = expand(sweep, point)
    assert (env, interpreter, program) == ("/usr/bin/env", "python", "main.py")
    # What the agent sets
    monkeypatch.setenv("WANDB_RUN_ID", f"run{path.stem.replace('_', '')}")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abcd1234")
    monkeypatch.setenv("WANDB_DIR", str(here))
    monkeypatch.setenv("WANDB_MODE", "offline")
    tiny = TINY if "digits" in path.stem else []
    if not tiny:
        write_synthetic_cifar(here / "data")
        args[args.index("--data.root=data")] = f"--data.root={here / 'data'}"
        tiny = ["--data.val_size", 20, "--data.batch_size", 4, "--trainer.limit_train_batches", 2]
    monkeypatch.chdir(HOME)
    run(*args, *tiny, "--trainer.max_epochs", 1, "--runs", here / "runs")
    [run_dir] = (here / "runs").glob("*/*/version_0")
    assert run_dir.parent.name.startswith("sweep_")
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    flat = {"seed_everything": config["seed_everything"]}
    flat |= {f"model.{name}": value for name, value in config["model"]["init_args"].items()}
    optimizer = config["model"]["init_args"]["optimizer"]["init_args"]
    flat |= {f"model.optimizer.{name}": value for name, value in optimizer.items()}
    assert {name: flat[name] for name in point} == point
    [part] = (run_dir / "wandb").glob("offline-run-*")
    assert part.name.endswith(f"-run{path.stem.replace('_', '')}")  # the sweep waits for this run


def test_the_shell_loop_in_the_docs_is_the_same_grid():
    text = (HOME / "docs/wandb.md").read_text()
    [loop] = re.findall(r"```sh\n(for lr.*?)```", text, re.DOTALL)
    command = ["bash", "-c", f'python() {{ echo "$@"; }}\n{loop}']
    typed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    sweep = read_yaml(HOME / "configs/sweeps/digits_lr_norm.yaml")
    expected = [sorted(expand(sweep, point)[2:]) for point in grid(sweep)]
    assert sorted(sorted(line.split()) for line in typed) == sorted(expected) and len(typed) == 18


def test_sweeps_are_no_experiments():
    assert {path.stem for path in SWEEPS} == {"digits_lr_norm", "cifar10_depth", "digits_bayes"}
    assert all("model" not in read_yaml(path) for path in SWEEPS)
