"""Results of `test` and `validate` land in the W&B run that the checkpoint belongs to, and nowhere else."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from checkpointing.record import RECORD_KEY
from cli.command_line import run_cli
from cli.wandb_runs import is_logged
from reports import ensemble
from reports.run_sources.offline import read_offline
from tests.conftest import HOME, enter
from tests.wandb_files import local_paths, of_type, parts, read_part, summary

AVERAGE = str(HOME / "configs/overlays/average_last.yaml")


@pytest.fixture
def run_dir(logged_run, tmp_path, monkeypatch):
    """A copy of the run, in a folder to type commands in."""
    enter(tmp_path, monkeypatch)
    return Path(shutil.copytree(logged_run, tmp_path / "runs/digits/resnet20/version_0", symlinks=True))


@pytest.fixture
def retest(run_dir):
    """Type one more command on the copy, and return the new parts of its W&B run."""

    def type_it(verb="test", *words):
        before = parts(run_dir)
        run_cli([verb, "--ckpt_path", str(run_dir), *map(str, words)])
        return [part for part in parts(run_dir) if part not in before]

    return type_it


def test_a_test_is_one_more_part_of_the_run(logged_run):
    fit, test = parts(logged_run)
    identity = torch.load(logged_run / "checkpoints/best.ckpt", weights_only=True)[RECORD_KEY]["wandb_run_id"]
    assert fit.name.endswith(identity) and test.name.endswith(identity)
    records = read_part(test)
    (begun,) = of_type(records, "run")
    assert (begun["run_id"], begun["project"], begun["resume"]) == (identity, "lit-classics", True)
    assert not begun.keys() & {"job_type", "display_name", "run_group", "entity"}  # these stay as `fit` has set them
    assert not of_type(records, "environment") + of_type(records, "stats") + of_type(records, "output_raw")
    result = json.loads((logged_run / "test-best-center.json").read_text())
    logged_values = summary(records)
    for name in ("top1_error", "top5_error", "loss"):
        assert (
            logged_values[f"test/center/{name}"] == logged_values[f"test/{name}"] == result["metrics"][f"test/{name}"]
        )
    assert logged_values["test/center/images"] == 11
    assert logged_values["test/center/data_hash"] == result["data_hash"]


@pytest.mark.slow
def test_offline_files_of_a_tested_run_are_read_as_those_of_its_training(run_dir):
    problems: list[str] = []
    tested = read_offline(run_dir, problems)
    shutil.rmtree(parts(run_dir)[1])
    trained = read_offline(run_dir, problems)
    assert tested and trained and problems == []
    assert tested.summary["test/center/images"] == 11 and "test/center/images" not in trained.summary
    assert tested._replace(summary={}) == trained._replace(summary={})


def test_tables_show_classes_confusions_and_mistakes(logged_run):
    part = parts(logged_run)[1]
    records = read_part(part)
    (row,) = [each["item"] for each in of_type(records, "history")]
    keys = ("classes", "mistakes", "confusion_table")
    assert all((part / "files" / row[f"test/center/{key}.path"]).is_file() for key in keys)
    staged = local_paths(records)
    tables = {key: json.loads(Path(staged[f"test/center/{key}.table.json"]).read_text()) for key in keys}
    wrong = round(11 * summary(records)["test/top1_error"])
    assert 0 < wrong == sum(errors for _, _, errors, _ in tables["classes"]["data"])
    assert sum(images for _, images, _, _ in tables["classes"]["data"]) == 11
    assert len(tables["confusion_table"]["data"]) == 36
    assert sum(count for actual, guess, count in tables["confusion_table"]["data"] if actual != guess) == wrong
    mistakes = [dict(zip(tables["mistakes"]["columns"], each, strict=True)) for each in tables["mistakes"]["data"]]
    assert len(mistakes) == wrong and all(each["class"] != each["predicted"] for each in mistakes)
    surest = [each["probability"] for each in mistakes]
    assert surest == sorted(surest, reverse=True)
    assert {(each["image"]["_type"], each["image"]["width"]) for each in mistakes} == {("image-file", 32)}  # enlarged
    assert {each["image"]["path"] for each in mistakes} | {f"test/center/{key}.table.json" for key in keys} == {*staged}
    assert all(Path(path).is_relative_to(logged_run / "wandb") and Path(path).is_file() for path in staged.values())


@pytest.mark.slow
def test_other_checkpoints_protocols_and_verbs_have_names_of_their_own(run_dir, retest):
    (part,) = retest("test", "--data.protocol", "ten_crop", "--ckpt_path", run_dir / "checkpoints/last.ckpt")
    names = summary(read_part(part)).keys()
    assert "test/last/ten_crop/top1_error" in names and "test/top1_error" not in names
    (part,) = retest("validate")
    names = summary(read_part(part)).keys()
    assert "val/center/top1_error" in names
    assert not names & {"val/top1_error", "val/loss"}  # the training's own


@pytest.mark.parametrize(
    "words",
    [
        ["--data.test_size", "12"],
        ["--trainer.limit_test_batches", "1"],
        pytest.param(["--trainer.fast_dev_run", "true"], marks=pytest.mark.slow),
    ],
    ids=["other images", "a part of the set", "fast_dev_run"],
)
def test_results_that_are_not_the_runs_are_not_logged(retest, words):
    assert retest("test", *words) == []


def averaging_results(run_dir):
    """What averaging.json holds, by the names that W&B has it under."""
    return {
        f"averaging/{row['label'].replace(', ', '_').replace(' ', '_')}/{name}": value
        for row in json.loads((run_dir / "averaging.json").read_text())["results"]
        for name, value in row.items()
        if name != "label"
    }


@pytest.mark.slow
def test_averaging_lands_in_its_run(run_dir, retest):
    def logged_of(part):
        return {name: value for name, value in summary(read_part(part)).items() if name.startswith("averaging/")}

    expected = averaging_results(run_dir)
    assert logged_of(parts(run_dir)[0]) == expected
    assert {"averaging/last/top1_error", "averaging/ensemble_of_the_2/loss"} < expected.keys()
    (part,) = retest("validate", "--config", AVERAGE, "--trainer.callbacks.count", "3")
    assert logged_of(part) == averaging_results(run_dir) != expected
    (part,) = retest("test", "--ckpt_path", run_dir / "checkpoints/averaged.ckpt")
    assert "test/averaged/center/top1_error" in summary(read_part(part))


@pytest.mark.slow
def test_an_ensemble_is_a_run_of_its_own(run_dir, capsys):
    members = [str(run_dir / f"checkpoints/{name}.ckpt") for name in ("best", "last")]
    ensemble.main(["--members", *members, "--weights", "1", "3"])
    folder = Path("runs/digits/ensemble/version_0")
    (part,) = parts(folder)
    assert "python -m reports.wandb_sync runs/digits/ensemble/version_0" in capsys.readouterr().out
    records = read_part(part)
    (begun,) = of_type(records, "run")
    identity = parts(run_dir)[0].name.rpartition("-")[2]
    assert begun["run_id"] != identity
    assert (begun["job_type"], begun["run_group"]) == ("ensemble", "digits")
    assert (begun["display_name"], begun["project"]) == ("digits/ensemble/version_0", "lit-classics")
    config = begun["config"]["update"]
    assert [(each["checkpoint"], each["weight"]) for each in config["members"]] == list(
        zip(members, (1, 3), strict=True)
    )
    assert {each["wandb_run_id"] for each in config["members"]} == {identity}
    row = json.loads((folder / "ensemble.json").read_text())["ensemble"]
    logged_values = summary(records)
    assert logged_values["test/top1_error"] == logged_values["test/center/top1_error"] == row["top1_error"]
    assert {"test/nll", "test/center/ece", "test/center/images"} < logged_values.keys()
    assert all(Path(path).is_relative_to(folder.absolute()) for path in local_paths(records).values())


def change_record(run_dir: Path, change) -> None:
    for path in run_dir.glob("checkpoints/*.ckpt"):
        content = torch.load(path, weights_only=True)
        change(content[RECORD_KEY])
        torch.save(content, path)


def remove_wandb(run_dir, monkeypatch):
    shutil.rmtree(run_dir / "wandb")


def disable(run_dir, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def name_path(run_dir, monkeypatch):
    change_record(run_dir, lambda record: record.update(wandb_run_id="../../x"))


@pytest.mark.parametrize("without", [remove_wandb, disable, pytest.param(name_path, marks=pytest.mark.slow)])
def test_a_run_that_wandb_has_not_logged_stays_so(run_dir, retest, capsys, monkeypatch, without):
    without(run_dir, monkeypatch)
    assert retest() == []
    assert "W&B" not in capsys.readouterr().out


def test_the_id_of_another_run_is_not_that_of_this_one(logged_run):
    identity = parts(logged_run)[0].name.rpartition("-")[2]
    assert is_logged(logged_run, identity)
    assert not any(is_logged(logged_run, other) for other in ("abcd1234", "../../x", "*", "", None))


def test_a_checkpoint_does_not_decide_who_gets_the_results(run_dir, retest, capsys, monkeypatch):
    def give_to_stranger(record):
        record["config"]["trainer"]["logger"][1]["init_args"]["entity"] = "stranger"

    change_record(run_dir, give_to_stranger)
    monkeypatch.setattr("wandb.init", lambda **_: pytest.fail("W&B is started"))
    assert retest() == []
    assert "Not logged to W&B: the run belongs to stranger there" in capsys.readouterr().out


def test_settings_that_lie_in_the_working_directory_are_not_obeyed(run_dir, retest, capsys, monkeypatch):
    Path("wandb").mkdir()
    Path("wandb/settings").write_text("[default]\nbase_url = http://127.0.0.1:9\n")
    monkeypatch.setattr("wandb.setup", lambda *_: pytest.fail("W&B has read its settings"))
    assert retest() == []
    assert "Not logged to W&B: W&B would take its server and folders from" in capsys.readouterr().out
    assert (run_dir / "test-best-center.json").is_file()


def test_a_folder_that_cannot_be_written_to_stops_no_test(run_dir, retest, capsys, monkeypatch):
    monkeypatch.setattr("cli.wandb_runs.os.access", lambda *_: False)  # root may write everywhere
    assert retest() == []
    printed = capsys.readouterr().out
    assert "Tested" in printed and "Not logged to W&B" in printed
