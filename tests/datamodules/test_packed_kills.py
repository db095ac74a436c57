"""A packing that is killed at any moment, alone or with its worker processes, goes on to the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import HOME
from tests.datamodules.test_imagenet import write

PACK = """
import sys
from datamodules.packed.writer import IMAGES_PER_CHUNK
IMAGES_PER_CHUNK["jpeg"] = 5
from datamodules.imagenet.__main__ import main
print("ready", flush=True)
main(sys.argv[1:])
"""


def start(source: Path, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PACK, "pack", source, target, "--workers", "2"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(list(map(str, command)), cwd=HOME, **options)
    assert process.stdout.readline() == "ready\n"
    return process


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_packing_that_is_killed_anywhere_goes_on_to_the_same_bytes(tmp_path):
    source, rng = tmp_path / "photos", random.Random(0)
    for seed, name in enumerate(("ape", "bear")):
        write(source / "train" / name, 60, seed)
        write(source / "val" / name, 20, seed + 10)
    start(source, tmp_path / "whole").wait()
    left = 4
    while True:
        process = start(source, tmp_path / "killed")
        if left:
            time.sleep(rng.uniform(0.01, 0.4))
            (os.kill if left % 2 else os.killpg)(process.pid, signal.SIGKILL)
            left -= 1
        _, error = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL or "Another process packs into" in error, error
    assert read_tree(tmp_path / "killed") == read_tree(tmp_path / "whole")
