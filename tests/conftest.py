"""Fixtures: the real command line in an empty directory, and CIFAR-10's layout with a handful of images."""

import math
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.utilities import rank_zero_only

import errors
from cli.command_line import run_cli

# The nets of the tests are small: on a busy machine two threads of one test wait for each other most of the time
torch.set_num_threads(1)
# Where one loader process was killed, torch waits for each of the others until it ends them: 5 s, in a later test
for module in (torch.utils.data._utils, torch.utils.data._utils.worker):
    module.MP_STATUS_CHECK_INTERVAL = 0.5

PREPROCESSING = {"resize": 8, "crop": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
HOME = Path(errors.__file__).parent
DIGITS = str(HOME / "configs" / "digits" / "resnet20.yaml")
# A run of 3 epochs of 4 batches that takes two seconds
TINY = ["--data", "datamodules.Synthetic", "--data.classes", "6", "--data.size", "16", "--data.train_size", "32"]
TINY += [
    "--trainer.precision",
    "32-true",
    "--data.val_size",
    "8",
    "--data.test_size",
    "11",
    "--data.batch_size",
    "8",
    "--trainer.max_epochs",
    "3",
]
TINY += ["--trainer.log_every_n_steps", "1"]

# The end of an experiment's `callbacks+:` that keeps the checkpoint of every step
STEP_CHECKPOINTS = """
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: "step-{step}", every_n_train_steps: 1, save_top_k: -1, auto_insert_metric_name: false}
"""

Run = Callable[..., None]


@pytest.fixture(autouse=True)
def timeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of any speed: no progress line after 30 s, no end of the search for unreadable files after 10 s."""
    monkeypatch.setattr("callbacks.progress.SECONDS_BETWEEN_LINES", math.inf)
    monkeypatch.setattr("datamodules.skipped_files.SECONDS_TO_SEARCH", math.inf)
    monkeypatch.setattr("cli.rank_variables.SECONDS_FOR_FIRST", 0)
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "600")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "600")


@pytest.fixture(autouse=True)
def first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts as the only process: Lightning keeps the rank that an earlier one was given."""
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory (its name has a space) to type commands in, W&B off for speed."""
    folder = tmp_path / "some where"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return folder


@pytest.fixture
def run(here: Path) -> Run:
    """Type a command: run("fit", "--config", ...)."""
    return lambda *args: run_cli([str(arg) for arg in args])


@pytest.fixture
def fails(run: Run, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type a command that must fail, and return its one sentence."""

    def type_it(*args: object) -> str:
        with pytest.raises(SystemExit) as stop:
            run(*args)
        printed = capsys.readouterr().err
        text = stop.value.code if isinstance(stop.value.code, str) else printed
        assert stop.value.code not in (0, None)
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, text
        assert "Traceback" not in printed
        return lines[0]

    return type_it


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder runs/ of one finished tiny run without W&B; no test may change it."""
    return train_once(tmp_path_factory)


def train_once(tmp_path_factory: pytest.TempPathFactory, *flags: object) -> Path:
    """Train a tiny run of digits' experiment, without W&B, in a folder of its own, and return its folder runs/."""
    folder = tmp_path_factory.mktemp("some where")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "disabled")
        run_cli(["fit", "--config", DIGITS, *TINY, *map(str, flags)])
    return folder / "runs"


@pytest.fixture
def tiny_run(here: Path, tiny_runs: Path) -> Path:
    """A finished tiny run, in the working directory."""
    shutil.copytree(tiny_runs, here / "runs")
    return Path("runs/digits/resnet20/version_0")


@pytest.fixture(scope="session")
def logged_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a tiny run that W&B has logged offline and that was tested; no test may change it.

    It has averaged its last two checkpoints, logged gradient norms and made its checkpoints artifacts.
    """
    folder = tmp_path_factory.mktemp("some where")
    overlays = [f"--config={HOME}/configs/overlays/{name}.yaml" for name in ("gradient_flow", "average_last")]
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        patch.setenv("WANDB__SERVICE_WAIT", "600")
        patch.setenv("WANDB_INIT_TIMEOUT", "600")
        flags = ["--trainer.callbacks.count", "2", "--trainer.logger.log_model", "true"]
        run_cli(["fit", "--config", DIGITS, *overlays, *flags, *TINY])
        run_cli(["test", "--ckpt_path", "runs/digits/resnet20"])
    return folder / "runs/digits/resnet20/version_0"


def file_times(folder: Path) -> dict[Path, int]:
    """When the files of a folder were last written, but for locks: filelock before 4.2.11 touches one that it asks."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture
def new_wandb() -> Iterator[None]:
    """W&B's settings read anew, as in a process of its own, and again behind it."""
    wandb.teardown()
    yield
    wandb.teardown()


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make a folder the working directory of a user who has set nothing for W&B."""
    patch.chdir(folder)
    for name in ("WANDB_MODE", "WANDB_ENTITY", "WANDB_DATA_DIR"):
        patch.delenv(name, raising=False)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A root with cifar-10-batches-py of 5 x 40 training and 20 test images."""
    return write_synthetic_cifar(tmp_path / "cifar data")


def write_synthetic_cifar(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sizes = {**{f"data_batch_{k}": 40 for k in range(1, 6)}, "test_batch": 20}
    for name, size in sizes.items():
        data = rng.integers(0, 256, (size, 3072), dtype=np.uint8)
        # protocol 2 and latin1 strings, as the official files
        content = {"data": data, "labels": [i % 10 for i in range(size)], "batch_label": name}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return root
