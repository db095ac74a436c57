"""An interrupted run that is resumed ends with the same bits as one that was not."""

import csv
import shutil
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml

from checkpointing.metrics_file import read_metrics, write_metrics
from checkpointing.record import RECORD_KEY
from cli.early_checks import VERBS
from tests.conftest import DIGITS, HOME, STEP_CHECKPOINTS, TINY, Run, file_times

EXPERIMENT = """
model:
  class_path: tests.dropout_net.LitDropoutNet
  init_args:
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
data:
  class_path: tests.dropout_net.JitteredNoise
trainer:
  log_every_n_steps: 1
  callbacks+:
    - class_path: callbacks.StepLRDecay
      init_args: {milestones: [1, 1.5, 2.25]}
"""
EXPERIMENT += STEP_CHECKPOINTS


ONE_CYCLE = "torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 0.4, total_steps: null}"
CYCLE = """
model:
  class_path: tests.dropout_net.LitDropoutNet
  init_args:
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
    lr_scheduler: {class_path: ONE_CYCLE}
    lr_interval: step
data: {class_path: tests.dropout_net.JitteredNoise}
trainer:
  max_epochs: 3
  callbacks+:
"""
CYCLE = CYCLE.replace("ONE_CYCLE", ONE_CYCLE) + STEP_CHECKPOINTS


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture
def experiment(here: Path) -> Path:
    path = here / "noise" / "net.yaml"
    path.parent.mkdir()
    path.write_text(EXPERIMENT)
    return path


EPOCHS, STEPS = ["--trainer.max_epochs", "3"], ["--trainer.max_epochs", "-1", "--trainer.max_steps", "11"]


@pytest.mark.parametrize(
    ("workers", "length"),
    [
        pytest.param(0, STEPS, marks=pytest.mark.slow),
        (2, EPOCHS),
        (0, [*EPOCHS, "--trainer.precision", "64-true", "--config", HOME / "configs/overlays/ema.yaml"]),
        pytest.param(0, EPOCHS, marks=pytest.mark.slow),
        pytest.param(2, STEPS, marks=pytest.mark.slow),
    ],
)
def test_resumed_at_any_step_the_weights_are_those_of_the_whole_run(run, experiment, workers, length):
    """4 batches an epoch, the last ragged: inside an epoch, at its last batch, and at the boundary (last.ckpt)."""
    run("fit", "--config", experiment, *length, "--data.num_workers", workers)
    whole = Path("runs/noise/net/version_0")
    end = whole / "checkpoints" / "last.ckpt"
    cuts = [1, 4, 6, 8, 9] if workers == 0 else [3, 4, 6]
    for number, cut in enumerate(cuts, start=1):
        copy = Path(f"runs/noise/net/version_{number}")
        shutil.copytree(whole, copy)
        (copy / "checkpoints" / "last.ckpt").unlink()
        run("fit", "--allow", "tests", "--ckpt_path", copy / "checkpoints" / f"step-{cut}.ckpt")
        assert same(end, copy / "checkpoints" / "last.ckpt"), f"resumed from step {cut}"


@pytest.mark.parametrize("steps", [8, 11])  # at an epoch's end, inside an epoch
def test_a_run_that_max_steps_ended_goes_on_where_it_ended(run, experiment, steps):
    flags = ["--config", experiment, "--trainer.max_epochs", -1, "--trainer.max_steps"]
    run("fit", *flags, 15)
    run("fit", *flags, steps)
    run("fit", "--allow", "tests", "--ckpt_path", "runs/noise/net", "--trainer.max_steps", 15)
    ends = [Path(f"runs/noise/net/version_{n}/checkpoints/last.ckpt") for n in (0, 1)]
    assert [torch.load(end, weights_only=True)["global_step"] for end in ends] == [15, 15]
    assert same(*ends)


def test_a_run_killed_between_its_last_two_checkpoints_gets_the_second_one(run, tiny_run, capsys):
    last, best = tiny_run / "checkpoints" / "last.ckpt", tiny_run / "checkpoints" / "best.ckpt"
    shutil.copy(last, best)
    metrics = tiny_run / "metrics.csv"
    columns, whole = read_metrics(metrics)
    write_metrics(metrics, columns, [row for row in whole if row.get("epoch") != "2" or "train/loss" not in row])
    assert len(read_metrics(metrics)[1]) == len(whole) - 1  # the means of the last epoch are missing
    older = torch.load(last, weights_only=True) | {"global_step": 8}
    older["state_dict"] = {name: torch.zeros_like(value) for name, value in older["state_dict"].items()}
    torch.save(older, last)
    with pytest.raises(SystemExit) as stop:
        run("fit", "--ckpt_path", tiny_run)
    assert stop.value.code == 0 and "has finished 3 of 3 epochs" in capsys.readouterr().out
    assert last.read_bytes() == best.read_bytes()
    assert sorted(map(str, read_metrics(metrics)[1])) == sorted(map(str, whole))


def test_another_runs_last_checkpoint_beside_a_finished_one_is_left_alone(run, tiny_run, here):
    last = here / "last.ckpt"
    shutil.copy(tiny_run / "checkpoints" / "last.ckpt", here / "best.ckpt")
    content = torch.load(here / "best.ckpt", weights_only=True) | {"global_step": 8}
    content[RECORD_KEY] = content[RECORD_KEY] | {"data_hash": "another"}
    torch.save(content, last)
    before = last.read_bytes()
    with pytest.raises(SystemExit) as stop:
        run("fit", "--ckpt_path", here / "best.ckpt")
    assert stop.value.code == 0 and last.read_bytes() == before


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resumed_at_an_epochs_end_everything_goes_on(run, experiment, workers):
    flags = ["--config", experiment, "--data.num_workers", workers]
    run("fit", *flags, "--trainer.max_epochs", 3)
    run("fit", *flags, "--trainer.max_epochs", 2)
    run("fit", "--allow", "tests", "--ckpt_path", "runs/noise/net", "--trainer.max_epochs", 3)
    whole, parts = Path("runs/noise/net/version_0"), Path("runs/noise/net/version_1")
    assert not Path("runs/noise/net/version_2").exists()
    assert same(whole / "checkpoints" / "last.ckpt", parts / "checkpoints" / "last.ckpt")

    def rows(folder: Path) -> list[dict[str, str]]:
        with (folder / "metrics.csv").open() as file:
            return [{k: v for k, v in row.items() if "images_per_s" not in k} for row in csv.DictReader(file)]

    assert [r for r in rows(whole) if any(r.values())] == [r for r in rows(parts) if any(r.values())]
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"] for f in (whole, parts)]
    best = [next(s["best_model_score"] for k, s in state.items() if "top1_error" in k) for state in states]
    assert best[0] == best[1]


def test_a_moved_run_resumes_in_its_new_place_and_keeps_its_best(run, tiny_run, here, monkeypatch):
    before = torch.load(tiny_run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    best = next(state["best_model_score"] for name, state in before.items() if "top1_error" in name)
    (here / "elsewhere").mkdir()
    shutil.move("runs", "elsewhere/moved runs")
    config = (here / "elsewhere/moved runs/digits/resnet20/version_0/config.yaml").read_text()
    (here / "third").mkdir()
    monkeypatch.chdir(here / "third")
    run("fit", "--ckpt_path", "../elsewhere/moved runs/digits/resnet20", "--trainer.max_epochs", 4)
    folder = here / "elsewhere/moved runs/digits/resnet20/version_0"
    after = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    state = next(state for name, state in after["callbacks"].items() if "top1_error" in name)
    with (folder / "metrics.csv").open() as file:
        errors = [float(row["val/top1_error"]) for row in csv.DictReader(file) if row["val/top1_error"]]
    assert len(errors) == 4
    assert state["best_model_score"] == pytest.approx(min(errors)) and best == pytest.approx(min(errors[:3]))
    assert Path(state["dirpath"]).resolve() == folder / "checkpoints"
    assert after["epoch"] == 3 and (folder / "config.yaml").read_text() == config
    assert not (here / "third" / "runs").exists()


def test_resuming_from_an_earlier_checkpoint_sets_the_later_ones_aside(run, tiny_run):
    folder = tiny_run / "checkpoints"
    run("fit", "--config", DIGITS, *TINY[:-4], "--trainer.max_epochs", 1)
    shutil.copy("runs/digits/resnet20/version_1/checkpoints/last.ckpt", folder / "epoch1.ckpt")
    run("fit", "--allow", "tests", "--ckpt_path", folder / "epoch1.ckpt", "--trainer.max_epochs", 2)
    kept = torch.load(folder / "before_resuming_from_step_4" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 2 and torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 1


def test_a_run_stopped_before_its_first_epoch_ended_goes_on_from_its_newest_checkpoint(run, experiment):
    """As after a kill: step checkpoints of half an epoch, and no last.ckpt; one file was cut off in writing."""
    run("fit", "--config", experiment, "--trainer.max_epochs", 2)
    folder = Path("runs/noise/net/version_0/checkpoints")
    whole = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    for path in folder.glob("*.ckpt"):
        if path.stem not in ("step-1", "step-2"):
            path.unlink()
    (folder / "step-3.ckpt").write_bytes((folder / "step-2.ckpt").read_bytes()[:1000])
    run("fit", "--allow", "tests", "--ckpt_path", "runs/noise/net")
    again = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_finished_run_is_left_as_it_is(run, tiny_run, capsys):
    before = file_times(tiny_run)
    with pytest.raises(SystemExit) as stop:
        run("fit", "--ckpt_path", tiny_run)
    assert stop.value.code == 0
    assert "has finished 3 of 3 epochs. To train further, give a larger --trainer.max_epochs" in capsys.readouterr().out
    assert before == file_times(tiny_run)


class Stop(pl.Callback):
    """Ends a run with an error, as a full disk or Ctrl-C would, after so many batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.batches:
            raise ValueError("stopped")


def test_a_run_stopped_before_its_first_checkpoint_says_that_it_cannot_be_resumed(run, here, capsys):
    for batches, said in ((2, "Stopped before the first checkpoint"), (5, "Stopped. To go on:")):
        with pytest.raises(ValueError, match="stopped"):
            run("fit", "--config", DIGITS, *TINY, "--trainer.callbacks+=tests.checkpointing.test_resume.Stop",
                f"--trainer.callbacks.batches={batches}")  # fmt: skip
        assert said in capsys.readouterr().out
    folders = [Path(f"runs/digits/resnet20/version_{k}") for k in (0, 1)]
    assert (folders[0] / "config.yaml").is_file() and not list(folders[0].rglob("*.ckpt"))
    shutil.move(folders[0], folders[0].with_name("version_2"))  # the newest
    with pytest.raises(ValueError, match="stopped"):
        run("fit", "--allow", "tests", "--ckpt_path", "runs/digits/resnet20")
    assert "Run directory: " + str(folders[1].absolute()) in capsys.readouterr().out


def test_what_is_refused_before_it_began_is_not_called_stopped(run, tiny_run, capsys):
    with pytest.raises(SystemExit, match="last batch holds one image"):
        run("fit", "--ckpt_path", tiny_run, "--data.batch_size", 31, "--trainer.max_epochs", 4)
    assert "Stopped" not in capsys.readouterr().out


def test_resuming_with_the_experiment_named_again_adds_no_callback_twice(run, tiny_run):
    run("fit", "--config", DIGITS, *TINY[:-4], "--trainer.max_epochs", 4, "--ckpt_path", "runs/digits/resnet20")
    assert torch.load(tiny_run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 3
    record = torch.load(tiny_run / "checkpoints" / "last.ckpt", weights_only=True)["lit_classics"]
    names = [callback["class_path"] for callback in record["config"]["trainer"]["callbacks"]]
    assert names.count("callbacks.StepLRDecay") == 1
    assert yaml.safe_load((tiny_run / "config.yaml").read_text())["trainer"]["max_epochs"] == 3


def test_another_batch_size_in_the_middle_of_an_epoch_is_refused(fails, run, experiment):
    run("fit", "--config", experiment, "--trainer.max_epochs", 1)
    checkpoint = "runs/noise/net/version_0/checkpoints/step-2.ckpt"
    assert "epoch was begun with batch_size 4" in fails(
        "fit", "--allow", "tests", "--ckpt_path", checkpoint, "--data.batch_size", 3
    )
    names = {path.name for path in Path("runs/noise/net/version_0/checkpoints").iterdir()}
    assert {"last.ckpt", "best.ckpt"} <= names  # a refused resume moves nothing
    run("fit", "--allow", "tests", "--ckpt_path", "runs/noise/net", "--data.batch_size", 3, "--trainer.max_epochs", 2)
    last = torch.load("runs/noise/net/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4 + 5  # at an epoch's end the batches may change


@pytest.mark.parametrize(("flag", "value", "name"), [("lr", 0.05, "lr"), ("momentum", 0.5, "momentum")])
def test_another_optimizer_on_resuming_is_refused(fails, tiny_run, flag, value, name):
    message = fails("fit", "--ckpt_path", tiny_run, f"--model.optimizer.{flag}", value)
    assert f"optimizer's {name} is {value} here" in message and "begun with" in message


def test_another_memory_format_on_resuming_changes_no_number(run, tiny_run):
    """Momentum saved as NHWC belongs to the same weights once they lie as NCHW."""
    other = tiny_run.with_name("version_1")
    shutil.copytree(tiny_run, other)
    run("fit", "--ckpt_path", tiny_run, "--trainer.max_epochs", 4)
    run("fit", "--ckpt_path", other, "--trainer.max_epochs", 4, "--model.channels_last", "false")
    first, second = (weights(folder / "checkpoints" / "last.ckpt") for folder in (tiny_run, other))
    assert second["net.conv1.weight"].is_contiguous() and not first["net.conv1.weight"].is_contiguous()
    for name in ("net.conv1.weight", "net.fc.weight"):
        torch.testing.assert_close(first[name], second[name], atol=1e-3, rtol=0)


def test_weights_differ_between_seeds(run, here):
    for seed in (0, 1):
        run("fit", "--config", DIGITS, *TINY, "--seed_everything", seed, "--trainer.max_epochs", 1)
    assert not same(*(Path(f"runs/digits/resnet20/version_{n}/checkpoints/last.ckpt") for n in (0, 1)))


@pytest.fixture
def cycle_run(run: Run, experiment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of one cycle, 3 epochs of 4 batches."""
    experiment.write_text(CYCLE)
    run("fit", "--config", experiment)
    monkeypatch.setenv("WANDB_MODE", "offline")  # which would leave a folder behind
    return Path("runs/noise/net/version_0")


def test_another_schedule_on_resuming_is_refused(fails, cycle_run):
    said = fails("fit", "--allow", "tests", "--ckpt_path", cycle_run, "--model.lr_scheduler.max_lr", 0.1)
    assert "lr_scheduler's max_lr is 0.1 here" in said


def test_a_cycle_that_is_over_is_not_to_be_made_longer_and_its_weights_start_a_new_run(
    run, fails, cycle_run, experiment, capsys, monkeypatch
):
    before = file_times(cycle_run)
    with pytest.raises(SystemExit) as stop:
        run("fit", "--allow", "tests", "--ckpt_path", cycle_run)
    printed, last = capsys.readouterr().out, cycle_run / "checkpoints" / "last.ckpt"
    assert stop.value.code == 0 and "has finished 3 of 3 epochs. To train further, start a new run from its" in printed
    assert f"--model.weights {last}: its learning-rate schedule" in printed and "--trainer.max_epochs" not in printed
    for checkpoint in (last, cycle_run / "checkpoints" / "step-6.ckpt"):
        said = fails("fit", "--allow", "tests", "--ckpt_path", checkpoint, "--trainer.max_epochs", 4)
        assert "laid out for 12 steps and this run takes 16: it cannot be made longer" in said
    assert file_times(cycle_run) == before
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run("fit", "--config", experiment, "--model.weights", last, "--trainer.max_epochs", 1)


def test_another_batch_size_in_the_middle_of_an_epoch_of_a_cycle_is_refused(fails, cycle_run, monkeypatch):
    """The steps of a cycle are counted without making the loaders, which could not compare the batches any more."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    checkpoint = cycle_run / "checkpoints" / "step-6.ckpt"
    assert "epoch was begun with batch_size 4" in fails(
        "fit", "--allow", "tests", "--ckpt_path", checkpoint, "--data.batch_size", 5
    )


def test_a_cycle_may_end_early_and_then_go_on_to_its_end(run, cycle_run, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    whole = weights(cycle_run / "checkpoints" / "last.ckpt")
    run("fit", "--allow", "tests", "--ckpt_path", cycle_run / "checkpoints" / "step-2.ckpt", "--trainer.max_epochs", 2)
    with pytest.raises(SystemExit):
        run("fit", "--allow", "tests", "--ckpt_path", cycle_run)
    assert "2 of 2 epochs. To train further, give a larger --trainer.max_epochs" in capsys.readouterr().out
    run("fit", "--allow", "tests", "--ckpt_path", cycle_run, "--trainer.max_epochs", 3)
    again = weights(cycle_run / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


@pytest.mark.parametrize("verb", VERBS)
def test_another_net_that_would_fit_is_refused(tiny_run, fails, verb):
    images = ["--data.paths", "photo.jpg"] if verb == "predict" else []
    said = fails(verb, "--ckpt_path", tiny_run, "--model.activation", "selu", *images)
    assert "activation is selu here, but the model of this checkpoint was trained with None" in said


def test_other_data_are_trained_on_for_no_step_more_than_the_run_has(run, here, capsys):
    init_args = "{filename: last, every_n_train_steps: 1}"
    last = f"class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {init_args}"
    (here / "last.yaml").write_text(f"trainer: {{callbacks: [{{{last}}}]}}")
    flags = ["--data", "tests.plain_data.PlainData", "--trainer.max_epochs", -1, "--trainer.max_steps", 3]
    run("fit", "--config", DIGITS, "--config", "last.yaml", *flags, "--trainer.precision", "32-true")
    path = Path("runs/digits/resnet20/version_0/checkpoints/last.ckpt")
    before = path.read_bytes()
    with pytest.raises(SystemExit) as stop:
        run("fit", "--ckpt_path", path, "--allow", "tests")
    assert stop.value.code == 0 and "has finished 3 of 3 steps" in capsys.readouterr().out
    assert path.read_bytes() == before and torch.load(path, weights_only=True)["global_step"] == 3
