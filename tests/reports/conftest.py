"""A real run for the tests of what reads runs."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_runs(logged_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder runs/ with one tiny run that was tested: 3 epochs of 4 batches, logged by W&B offline.

    No test may change it.
    """
    run = tmp_path_factory.mktemp("real") / "runs/digits/resnet20/version_0"
    shutil.copytree(logged_run, run, symlinks=True)
    for path in (run / "checkpoints").iterdir():
        if path.stem not in ("best", "last"):
            path.unlink()
    return run.parents[2]
