"""What a training writes for W&B, read back from the file that `wandb sync` uploads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpointing.record import RECORD_KEY
from checkpointing.run_facts import parse_run_facts, read_run_facts
from cli.command_line import run_cli
from tests.conftest import DIGITS, TINY
from tests.wandb_files import of_type, parts, read_part

Records = dict[str, list[Any]]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two epochs, resumed for a third one after it was moved."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_TAGS", "quick, small")
        patch.setenv("WANDB_NOTES", "a: trial")
        patch.setenv("WANDB_PROJECT", "from-the-environment")
        flags = ["--trainer.max_epochs", "2", "--trainer.logger.project", "mine", "--trainer.logger.group", "pairs"]
        run_cli(["fit", "--config", DIGITS, *TINY, *flags])
        patch.setenv("WANDB_MODE", "offline")  # Lightning sets it to dryrun
        patch.setenv("WANDB_TAGS", "others")
        moved = Path("elsewhere/digits/resnet20/version_0")
        moved.parent.mkdir(parents=True)
        Path("runs/digits/resnet20/version_0").rename(moved)
        run_cli(["fit", "--ckpt_path", str(moved), "--trainer.max_epochs", "3"])
        yield moved.absolute()


@pytest.fixture(scope="module")
def segments(run_dir: Path) -> list[Records]:
    """The records of the first command and of the one that resumed it."""
    return [by_type(read_part(folder)) for folder in parts(run_dir)]


def by_type(records: list[dict[str, Any]]) -> Records:
    """The contents of records, for each kind in their order."""
    return {kind: of_type(records, kind) for kind in {record["type"] for record in records}}


def merged_config(segment: Records) -> dict[str, Any]:
    """The config that W&B makes of all updates."""
    config: dict[str, Any] = {}
    for record in segment["config"]:
        config |= record["update"]
    return config


def test_a_run_names_its_group_its_job_its_tags_and_its_notes(segments):
    (run,) = segments[0]["run"]
    assert run["project"] == "mine" and run["run_group"] == "pairs" and run["job_type"] == "fit"
    assert run["tags"] == ["quick", "small"] and run["notes"] == "a: trial"
    assert run["display_name"] == "digits/resnet20/version_0"


def test_a_resumed_run_goes_on_under_its_id_and_its_names(run_dir, segments):
    content = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    ids = [segment["run"][0]["run_id"] for segment in segments]
    assert ids == [content[RECORD_KEY]["wandb_run_id"]] * 2
    kept = ("project", "run_group", "job_type", "tags", "notes", "display_name")
    assert [segments[1]["run"][0][name] for name in kept] == [segments[0]["run"][0][name] for name in kept]


def test_the_config_holds_every_argument_the_commit_and_the_facts(run_dir, segments):
    for segment, epochs in zip(segments, (2, 3), strict=True):
        config = merged_config(segment)
        assert config["model"]["init_args"]["num_classes"] == 6 and config["data"]["init_args"]["classes"] == 6
        assert config["model"]["init_args"]["optimizer"]["init_args"]["momentum"] == 0.9
        assert config["trainer"]["max_epochs"] == epochs and config["seed_everything"] == 0
        facts = parse_run_facts(config["facts"])
        assert facts is not None and facts.model.name == "LitResNet" and facts.model.parameters > 100_000
        assert facts.data.train_images == 32 and facts.sessions[-1].outcome == "finished"
        assert config["code_version"] == facts.sessions[-1].code_version
    assert facts == read_run_facts(run_dir) and len(facts.sessions) == 2


def test_metrics_of_an_epoch_are_drawn_over_epochs_and_summed_up_by_their_minimum(segments):
    for segment in segments:
        metrics = {metric.get("name"): metric for metric in segment["metric"]}
        for name in ("train/loss", "train/top1_error", "val/loss", "val/top1_error", "val/top5_error"):
            assert metrics[name]["step_metric"] == "epoch", name
            assert metrics[name]["summary"] == {"min": True, "last": True}, name


def test_each_row_carries_its_epoch_and_each_epoch_is_there_once(segments):
    rows = [record["item"] for segment in segments for record in segment["history"]]
    assert all("epoch" in row and "trainer/global_step" in row for row in rows)
    for name in ("train/loss", "val/loss", "val/top1_error"):
        assert [row["epoch"] for row in rows if name in row] == [0, 1, 2], name
    rates = [(row["epoch"], row["trainer/global_step"]) for row in rows if "lr-SGD" in row]
    assert {(0, 0), (1, 4), (2, 8)} <= {*rates} and all(epoch == step // 4 for epoch, step in rates)


def test_the_machine_is_watched_and_the_end_is_told(segments):
    for segment in segments:
        assert any("memory_percent" in stats["item"] for stats in segment["stats"])
        assert segment["exit"][0].get("exit_code", 0) == 0
