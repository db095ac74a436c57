"""A real run for the tests of what reads runs."""

import os
from pathlib import Path

import pytest

from cli.command_line import run_cli
from tests.conftest import DIGITS, TINY


@pytest.fixture(scope="session")
def real_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder runs/ with one tiny run that was tested: 3 epochs of 4 batches, logged by W&B offline.

    No test may change it.
    """
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB__SERVICE_WAIT", "600")
        patch.setenv("WANDB_INIT_TIMEOUT", "600")
        run_cli(["fit", "--config", DIGITS, *TINY])
        run_cli(["test", "--ckpt_path", os.path.join("runs", "digits", "resnet20")])
    return folder / "runs"
