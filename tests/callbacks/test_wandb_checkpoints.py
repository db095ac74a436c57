"""Checkpoints are artifacts on W&B when a user asks for it, offline too."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.conftest import DIGITS, TINY
from tests.wandb_files import of_type, parts, read_part

RUN = Path("runs/digits/resnet20/version_0")
FIT = ["fit", "--config", DIGITS, *TINY, "--trainer.logger.log_model"]
KEEP_ALL = """
trainer:
  callbacks+:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: "epoch_{epoch}", save_top_k: -1, monitor: val/loss, auto_insert_metric_name: false}
"""


def logged_checkpoints(part):
    """Aliases, metadata and files of the artifacts of a part of a run."""
    found = {}
    for each in of_type(read_part(part), "artifact"):
        (entry,) = each["manifest"]["contents"]
        assert each["type"] == "model" and each["name"] == f"model-{part.name.rpartition('-')[2]}"
        assert Path(entry["local_path"]).is_relative_to((RUN / "wandb").absolute())
        (alias,) = set(each["aliases"]) - {"latest"}
        assert entry["path"] == f"{alias}.ckpt"
        found[alias] = (json.loads(each["metadata"]), Path(entry["local_path"]).read_bytes())
    return found


def content_hashes(folder: Path) -> dict[str, str]:
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.ckpt")}


def test_best_and_last_are_logged_with_their_aliases(logged_run, monkeypatch):
    monkeypatch.chdir(logged_run.parents[3])
    logged = logged_checkpoints(parts(RUN)[0])
    assert list(logged) == ["best", "last"]
    assert logged["last"][0] == {"epoch": 2, "step": 12}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, (_, content) in logged.items()}
    assert hashes.items() < content_hashes(RUN / "checkpoints").items()  # others are not asked for


@pytest.mark.slow
def test_all_that_were_kept_are_logged_and_a_resumed_run_changes_none(run, here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    Path("keep.yaml").write_text(KEEP_ALL)
    run(*FIT, "all", "--config", "keep.yaml", "--trainer.max_epochs", 2)
    (part,) = parts(RUN)
    logged = logged_checkpoints(part)
    assert list(logged) == ["best", "epoch_0", "epoch_1", "last"]
    run("fit", "--ckpt_path", RUN, "--trainer.max_epochs", 3)
    assert logged_checkpoints(part) == logged
    (later,) = set(parts(RUN)) - {part}
    assert list(logged_checkpoints(later)) == ["best", "epoch_0", "epoch_1", "epoch_2", "last"]
