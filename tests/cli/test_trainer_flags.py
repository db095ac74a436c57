"""Flags of the Trainer: each works, or is one sentence before the first batch and leaves nothing."""

import contextlib
import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from callbacks.finite_loss import FiniteLoss
from cli.failures import explain_failure
from cli.processes import refuse_ranks_of_another_job
from datamodules.loading import RawBatch, keep_batch
from datamodules.samplers import ExactSampler
from errors import UserError
from main import main
from tests.conftest import DIGITS, HOME, TINY

FIT = ["fit", "--config", DIGITS, *TINY]
RUN = Path("runs/digits/resnet20/version_0")
PLAIN = ["--trainer.callbacks", "null"]


def schedule(name: str, **arguments: object) -> list[str]:
    init_args = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    return [*PLAIN, "--model.lr_scheduler", f"{{class_path: {name}, init_args: {{{init_args}}}}}"]


def cycle(**arguments: object) -> list[str]:
    return schedule("torch.optim.lr_scheduler.OneCycleLR", max_lr=0.1, **arguments)


def plateau(monitor: str) -> list[str]:
    return schedule("lightning.pytorch.cli.ReduceLROnPlateau", monitor=monitor)


def callback(name: str, **arguments: object) -> list[str]:
    flags = [f"--trainer.callbacks.{key}={value}" for key, value in arguments.items()]
    return [f"--trainer.callbacks+=lightning.pytorch.callbacks.{name}", *flags]


def trainer(**flags: object) -> list[str]:
    return [f"--trainer.{name}={value}" for name, value in flags.items()]


REFUSED = [
    (trainer(max_epochs=0), "Nothing was trained: max_epochs is 0"),
    (trainer(max_steps=0), "max_steps is 0"),
    (trainer(max_time="00:00:00:00"), "max_time leave no batch"),
    (trainer(max_time="5h"), "'5h'"),
    (trainer(limit_train_batches=0), "limit_train_batches is 0, which leaves no batch"),
    (trainer(limit_train_batches=0.01), "limit_train_batches"),
    (trainer(overfit_batches=0.5), "limit_val_batches"),
    (trainer(check_val_every_n_epoch=0), "check_val_every_n_epoch is 0: it must be at least 1"),
    (trainer(node_timeout=-1), "node_timeout is -1.0: it must be at least 0"),
    (trainer(node_timeout="1e400"), "node_timeout is inf: give at most 604800 seconds, a week"),
    (trainer(node_timeout=1e12), "node_timeout is 1e+12: give at most 604800 seconds"),
    (trainer(val_check_interval=0), "val_check_interval is 0: it must be at least 1"),
    (trainer(val_check_interval=9), "val_check_interval is 9, more than the batches of an epoch (4)"),
    (trainer(accumulate_grad_batches=0), "accumulate_grad_batches is 0: it must be at least 1"),
    (trainer(gradient_clip_val=-1), "gradient_clip_val is -1: it must be at least 0"),
    (trainer(accelerator="gpu"), "accelerator is gpu, and PyTorch finds no GPU on this machine"),
    (trainer(accelerator="tpu"), "torch_xla"),
    (trainer(accelerator="cpu", devices=3), "cannot be divided among 3"),
    (trainer(devices=8), "so give --trainer.devices 1 to 4"),
    (trainer(profiler="x"), "profiler"),
    (
        [*cycle(total_steps="null"), *trainer(max_epochs=-1)],
        "The learning-rate schedule must know the length of the run",
    ),
    (cycle(total_steps=2), "was laid out for 2 epochs and this run takes 3"),
    ([*cycle(total_steps=5), "--model.lr_interval=step"], "was laid out for 5 steps and this run takes 12"),
    ([*cycle(epochs=2, steps_per_epoch=1)], "was laid out for 2 epochs and this run takes 3"),
    ([*cycle(total_steps="null"), *trainer(max_epochs=-1, max_steps=9)], "steps after each epoch, and max_steps 9"),
    ([*cycle(total_steps=2), *trainer(max_epochs=-1, max_steps=9)], "was laid out for 2 epochs and this run takes 3"),
    (callback("EarlyStopping", monitor="val/acc"), "EarlyStopping monitors val/acc, which nobody logs: choose one of"),
    (callback("ModelCheckpoint", monitor="accuracy"), "ModelCheckpoint monitors accuracy, which nobody logs"),
    ([*callback("EarlyStopping", monitor="val/loss"), "--data.val_size=0"], "this run validates on no images"),
    ([*plateau("val/loss"), *trainer(limit_val_batches=0)], "ReduceLROnPlateau monitors val/loss, and this run"),
    (
        [*plateau("val/loss"), *trainer(check_val_every_n_epoch=2)],
        "more often than the run validates",
    ),
    ([*plateau("val/loss"), "--model.lr_interval=step"], "ReduceLROnPlateau monitors val/loss more often than"),
    (plateau("val/x"), "ReduceLROnPlateau monitors val/x, which nobody logs"),
]


@pytest.mark.parametrize(("flags", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_work_is_one_sentence_and_leaves_nothing(fails, here, monkeypatch, flags, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("cli.devices.usable_cores", lambda: 4)
    assert said in fails(*FIT, *flags)
    assert not list(here.rglob("version_*"))


WORKS = [
    trainer(precision="64-true"),
    trainer(precision="bf16-true"),
    trainer(precision="16-mixed"),
    trainer(accumulate_grad_batches=9),
    trainer(check_val_every_n_epoch=9),
    trainer(check_val_every_n_epoch="null", val_check_interval=3),
    trainer(val_check_interval="00:00:00:01"),
    trainer(check_val_every_n_epoch="null", val_check_interval="{seconds: 0}"),
    trainer(limit_val_batches=0),
    trainer(detect_anomaly="true", profiler="simple", num_sanity_val_steps=-1),
    trainer(deterministic="true", gradient_clip_val=1),
    schedule("torch.optim.lr_scheduler.CosineAnnealingLR", T_max=2),
    plateau("train/loss"),
    callback("EarlyStopping", monitor="val/loss"),
]


@pytest.mark.parametrize("flags", WORKS, ids=lambda flags: " ".join(flags))
def test_what_works_trains_to_the_end_and_leaves_a_checkpoint(run, here, flags):
    run(*FIT, "--trainer.max_epochs", 2, *flags)
    steps = [torch.load(path, weights_only=True)["global_step"] for path in RUN.rglob("*.ckpt")]
    assert max(steps) == (2 if "--trainer.accumulate_grad_batches=9" in flags else 8)


MONITOR = ["--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateMonitor"]


def learning_rates() -> list[float]:
    """Of the steps of a run, in their order."""
    with (RUN / "metrics.csv").open(newline="") as file:
        return [float(row["lr-SGD"]) for row in csv.DictReader(file) if row["lr-SGD"]]


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_cycle_without_a_length_ends_with_the_run_in_either_unit(run, here, interval):
    flags = cycle(total_steps="null", pct_start=0.5, anneal_strategy="linear", div_factor=10, cycle_momentum="false")
    run(*FIT, *flags, *MONITOR, f"--model.lr_interval={interval}", *trainer(max_epochs=3))
    rates = learning_rates()
    assert rates[0] == pytest.approx(0.01) and max(rates) > 0.06 and rates[-1] == pytest.approx(1e-6)
    assert len(set(rates)) == (3 if interval == "epoch" else 12)


def test_a_polynomial_that_is_over_before_the_run_is_said(run, here):
    flags = [*schedule("torch.optim.lr_scheduler.PolynomialLR", total_iters=2), "--model.lr_interval=epoch"]
    with pytest.warns(UserWarning, match="has a total_iters of 2 epochs and the run is longer: its learning rate is 0"):
        run(*FIT, *flags, *MONITOR)
    assert learning_rates()[-1] == 0


@pytest.mark.parametrize(("epochs", "interval"), [(3, "epoch"), (-1, "epoch"), (2, "step")])
def test_a_cosine_that_is_over_before_the_run_is_said(run, here, epochs, interval):
    flags = [*schedule("torch.optim.lr_scheduler.CosineAnnealingLR", T_max=2), "--model.lr_interval", interval]
    with pytest.warns(UserWarning, match=f"has a T_max of 2 {interval}s .* then rises again"):
        run(*FIT, *flags, *trainer(max_epochs=epochs, max_steps=9))


@pytest.mark.parametrize("batches", [1, 2, 0.5])
def test_overfitting_trains_on_the_same_few_batches_in_every_epoch(run, here, monkeypatch, batches):
    seen: list[list[int]] = []
    plain = ExactSampler.__iter__

    def iterate(self):
        items = list(plain(self))
        seen.extend([items] if self.shuffle else [])
        return iter(items)

    monkeypatch.setattr(ExactSampler, "__iter__", iterate)
    run(*FIT, "--data.val_size", 16, "--trainer.overfit_batches", batches)
    assert len(seen) >= 3 and all(epoch == seen[0] for epoch in seen)
    steps = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert steps == 3 * {1: 1, 2: 2, 0.5: 2}[batches]


def test_a_run_that_its_time_ended_goes_on_for_that_time_again(run, here, monkeypatch, capsys):
    """Each batch takes a second of a clock of the test's own."""
    clock = iter(range(10**6))
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time.monotonic", lambda: next(clock) / 2)
    flags = trainer(max_epochs=50, max_time="00:00:00:05")
    run(*FIT, *flags)
    first = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    run("fit", "--ckpt_path", RUN)
    assert torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] > first > 0


RANKS = [
    ({"RANK": "1"}, [], "RANK is 1, and this command is for 1 process: if the variable is left over"),
    ({"LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1"}, [], "type `env -u LOCAL_RANK python main.py ...`"),
    ({"NODE_RANK": "2", "WORLD_SIZE": "8"}, [], "env -u NODE_RANK -u WORLD_SIZE"),
    ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}, [], "SLURM_PROCID is 1"),
    ({"LOCAL_RANK": "1"}, trainer(devices=2, accelerator="cpu"), "this command is for 2 processes"),
]


@pytest.mark.parametrize(("variables", "flags", "said"), RANKS)
def test_a_rank_of_another_job_is_refused(fails, here, monkeypatch, variables, flags, said):
    """The process would take itself for another than the first one, train and leave nothing."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if "SLURM_PROCID" in variables:
        monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # not Lightning's environment, which checks more
    assert said in fails(*FIT, *flags)
    assert not list(here.rglob("version_*"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", ""), ("LOCAL_RANK", "x"), ("SLURM_NTASKS", "1.5"), ("RANK", "²"), ("JSM_NAMESPACE_RANK", "-1")],
)
def test_a_rank_that_is_no_number_is_refused_before_lightning_is_imported(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        main()
    assert f"error: The environment variable {name} is {value!r}, and must be a number" in stop.value.code
    assert f"type `env -u {name} python main.py ...`" in stop.value.code


def test_lightning_is_imported_after_the_ranks_are_checked():
    code = "import sys, main; print([name for name in ('lightning', 'torch', 'torchmetrics') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("variables", "num_nodes", "taken"),
    [
        ({"NODE_RANK": "1"}, 2, True),
        ({"GROUP_RANK": "2"}, 3, True),
        ({"NODE_RANK": "2"}, 2, False),
        ({"NODE_RANK": "1"}, 1, False),
        ({"NODE_RANK": "1", "WORLD_SIZE": "8"}, 2, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "1"}, 2, False),
        ({"NODE_RANK": "one"}, 2, False),
    ],
)
def test_a_later_node_that_is_started_by_hand_is_taken(monkeypatch, variables, num_nodes, taken):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = SimpleNamespace(num_devices=1, num_nodes=num_nodes)
    with contextlib.nullcontext() if taken else pytest.raises(UserError, match="this command is for"):
        refuse_ranks_of_another_job(found)


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_alone_in_an_allocation_of_several_tasks_one_process_works(run, tiny_run, monkeypatch, verb):
    variables = {"JOB_ID": 8, "NTASKS": 2, "JOB_NAME": "train", "PROCID": 0, "LOCALID": 0, "NODEID": 0}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    run(verb, *(FIT[1:] if verb == "fit" else ["--ckpt_path", tiny_run]))
    assert tiny_run.with_name("version_1").is_dir() == (verb == "fit")


FAILURES = [
    (
        "DataLoader worker (pid 7) is killed by signal: Killed. ",
        "A loader process has ended (killed by signal: Killed)",
    ),
    ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "A loader process has ended (exited unexpectedly)"),
    (
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that",
        "out of shared memory (/dev/shm)",
    ),
    ("unable to allocate shared memory(shm) for file </torch_1>: No space left", "out of shared memory (/dev/shm)"),
    ("Application timeout caused pair closure", "Another process of this command"),
    ("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1", "Another process of this command"),
    ("Read error [127.0.0.1]:1: Connection reset by peer", "Another process of this command has ended"),
    ("CUDA out of memory. Tried to allocate 2 GiB", "give a smaller --data.batch_size"),
    ("Function 'MulBackward0' returned nan values in its 0th output.", "start with a lower --model.optimizer.lr"),
    ("mat1 and mat2 shapes cannot be multiplied", None),
]


@pytest.mark.parametrize(("message", "said"), FAILURES)
def test_failures_of_the_machine_are_told_from_bugs(message, said):
    explained = explain_failure(RuntimeError(message))
    assert explained is None if said is None else said in explained
    assert explain_failure(TypeError(message)) is None


def test_a_loader_process_that_is_killed_is_one_sentence(fails, here):
    kill = [
        "--trainer.callbacks+=tests.dying_process.Kill",
        "--trainer.callbacks.step=5",
        "--trainer.callbacks.rank=-1",
    ]
    # torch sees it in one of three ways: by SIGCHLD, by a process that is gone, or by its connection
    assert "A loader process has ended (" in fails(*FIT, "--data.num_workers", 2, *kill)


@pytest.mark.parametrize("sizes", [[8], [4, 6]])
def test_a_batch_that_finds_no_shared_memory_fails_where_the_main_process_hears_of_it(monkeypatch, sizes):
    def refuse(tensor):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    batch = RawBatch([torch.zeros(size) for size in sizes], torch.zeros(1))
    assert keep_batch(batch) is batch
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    assert keep_batch(batch) is batch  # in the main process nothing is shared
    monkeypatch.setattr("datamodules.loading.get_worker_info", lambda: object())
    with pytest.raises(RuntimeError, match="shared memory") as failure:
        keep_batch(batch)
    assert "(docker run --shm-size 8g)" in str(explain_failure(failure.value))


def test_the_guard_against_losses_is_in_every_training(run, here, monkeypatch):
    asked = []
    monkeypatch.setattr(FiniteLoss, "may_save", lambda self, trainer: asked.append(trainer.global_step) or True)
    run(*FIT, *PLAIN, "--trainer.logger", "false", "--trainer.max_epochs", 1)
    assert asked == [4]
