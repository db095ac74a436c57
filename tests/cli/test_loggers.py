"""W&B takes its server, folders and account from the user, and from nothing that came with a run; how its runs end."""

import threading
from pathlib import Path

import pytest
import torch
import wandb

from checkpointing.record import RECORD_KEY
from checkpointing.transaction_log import HEADER, parse_record, read_records
from cli.loggers import close_run, refuse_workspace_settings, wait_for_end
from errors import UserError
from tests.conftest import DIGITS, TINY

LONGER = ["--trainer.max_epochs", 4]


def change_logger(run_dir: Path, part: str = "init_args", **arguments: object) -> None:
    for path in run_dir.glob("checkpoints/*.ckpt"):
        content = torch.load(path, weights_only=True)
        content[RECORD_KEY]["config"]["trainer"]["logger"][1].setdefault(part, {}).update(arguments)
        torch.save(content, path)


@pytest.mark.parametrize("place", ["wandb", ".wandb"])
@pytest.mark.parametrize("below", [".", "..", "../../.."])
def test_wandb_takes_no_settings_of_a_folder_of_runs(here, monkeypatch, place, below):
    folder = Path("runs/x/w/version_0")
    folder.mkdir(parents=True)
    folder = folder / below
    (folder / place).mkdir()
    (folder / place / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\nx_files_dir = /nowhere\n")
    monkeypatch.chdir(folder)
    settings = wandb.Settings()
    settings.update_from_system_settings()
    assert (settings.base_url, settings.x_files_dir) == ("http://127.0.0.1:9", "/nowhere")  # as W&B itself does
    with pytest.raises(UserError, match=f"{place}/settings, which may have come with a run"):
        refuse_workspace_settings()


def test_such_settings_are_refused_before_wandb_reads_them(fails, here, monkeypatch):
    Path("wandb").mkdir()
    Path("wandb/settings").write_text("[default]\nbase_url = http://127.0.0.1:9\n")
    monkeypatch.setattr(wandb, "setup", lambda *_: pytest.fail("W&B has read its settings"))
    for mode in ("online", "disabled"):
        monkeypatch.setenv("WANDB_MODE", mode)
        assert "wandb/settings, which may have come with a run" in fails("fit", "--config", DIGITS, *TINY)
    assert not list(Path("runs").rglob("*"))


def test_wandb_takes_the_settings_of_the_repository(run, here, monkeypatch, new_wandb):
    Path("wandb").mkdir()
    Path("wandb/settings").write_text("[default]\nentity = me\n")
    monkeypatch.setattr("cli.loggers.HOME", Path.cwd())
    run("fit", "--config", DIGITS, *TINY, "--trainer.max_epochs", 1)


@pytest.mark.parametrize("part", ["init_args", "dict_kwargs"])
def test_a_checkpoint_names_no_account_of_wandb(fails, tiny_run, monkeypatch, part):
    change_logger(tiny_run, part, entity="stranger")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("cli.loggers.set_up_wandb", lambda _: pytest.fail("W&B is set up"))
    said = fails("fit", "--ckpt_path", tiny_run, *LONGER)
    assert "logged to stranger on W&B" in said
    assert "--trainer.logger.entity" in said


@pytest.mark.parametrize("own", ["flag", "variable"])
def test_a_run_of_ones_own_account_is_resumed(run, tiny_run, monkeypatch, own):
    change_logger(tiny_run, entity="team")
    monkeypatch.setattr("cli.loggers.choose_wandb_mode", lambda: "offline")
    monkeypatch.setenv("WANDB_MODE", "disabled")  # by the logger itself, for speed
    flag = ["--trainer.logger.entity", "team"] if own == "flag" else []
    if own == "variable":
        monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.experiment", wandb.init(mode="disabled"))
    run("fit", "--ckpt_path", tiny_run, *LONGER, *flag)
    assert torch.load(tiny_run / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 3


def test_arguments_that_wandb_refuses_are_one_sentence(fails, here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    said = fails("fit", "--config", DIGITS, *TINY, "--trainer.logger.project", "a/b:c")
    assert "W&B takes no such project: Invalid project name 'a/b:c'" in said
    assert not list(Path("runs").rglob("*"))


def test_nodes_that_nothing_leads_to_are_not_waited_for(fails, tiny_run):
    for path in tiny_run.glob("checkpoints/*.ckpt"):
        content = torch.load(path, weights_only=True)
        content[RECORD_KEY]["config"]["trainer"] |= {"num_nodes": 2, "strategy": "ddp", "accelerator": "cpu"}
        torch.save(content, path)
    assert "num_nodes is 2, and no other node is known" in fails("fit", "--ckpt_path", tiny_run, *LONGER)


def test_the_failure_of_the_type_that_was_meant_is_told(fails, here):
    Path("ema.yaml").write_text(
        "trainer:\n  callbacks+:\n    - class_path: lightning.pytorch.callbacks.EMAWeightAveraging\n"
        "      dict_kwargs: {avg_fn: torch.optim.SGD}\n"
    )
    said = fails("fit", "--config", DIGITS, "--config", "ema.yaml", *TINY)
    assert "EMAWeightAveraging cannot be made with these arguments (TypeError: " in said


@pytest.fixture
def log(tmp_path):
    """The file of a W&B run that is logged to."""
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    return Path(wandb.init(mode="offline", dir=tmp_path, settings=settings).settings.sync_file)


@pytest.mark.parametrize("failed", [False, True])
def test_a_closed_run_is_complete_on_the_disk(log, failed):
    close_run(failed)
    *_, last = read_records(log)
    assert parse_record(last, log).exit.exit_code == failed


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_closing_waits_for_what_wandb_writes_late(log, share):
    close_run(failed=False)
    content = log.read_bytes()
    there = max(len(HEADER), int(share * len(content)))
    log.write_bytes(content[:there])

    def append() -> None:
        with log.open("ab") as file:
            file.write(content[there:])

    service = threading.Timer(0.2, append)
    service.start()
    wait_for_end(log)
    assert log.read_bytes() == content
    service.join()


def test_a_run_whose_file_is_gone_is_closed(log):
    log.unlink()
    close_run(failed=False)
    assert wandb.run is None
