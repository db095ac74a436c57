"""The commands of docs/clusters.md, with a tiny run in place of ImageNet's and two processes on a CPU."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import DIGITS, HOME, TINY

PAGE = (HOME / "docs" / "clusters.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RUN = Path("runs/digits/resnet20/version_0")
DATA = "--config configs/imagenet/resnet50.yaml --data.root DIR"
TINY_DATA = shlex.join(["--config", DIGITS, *TINY, "--trainer.accelerator", "cpu"])

SRUN = """#!/bin/bash
shift  # its own flag
for rank in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_PROCID=$rank SLURM_LOCALID=$((rank % SLURM_NTASKS_PER_NODE)) \\
        SLURM_NODEID=$((rank / SLURM_NTASKS_PER_NODE)) "$@" &
    processes+=($!)
done
worst=0
for _ in "${processes[@]}"; do
    wait -n  # for whichever ends first
    status=$?
    ((status > worst)) && worst=$status
    ((status)) && kill -KILL "${processes[@]}" 2> /dev/null  # --kill-on-bad-exit
done
exit $worst
"""
SCONTROL = '#!/bin/bash\necho "$@" >> scontrol.txt\n'


def find_block(*words: str) -> str:
    """The one block of the page in which all these words stand."""
    found = [block for block in BLOCKS if all(word in block for word in words)]
    assert len(found) == 1, (words, found)
    return found[0]


def shrink(block: str, **replacements: str) -> str:
    """A block with a tiny run in place of ImageNet's, and other replacements."""
    for old, new in {DATA: TINY_DATA, "main.py": shlex.quote(str(HOME / "main.py")), **replacements}.items():
        block = block.replace(old, new)
    return block


def start(script: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Type a block in a shell, the project's Python and stand-ins of the folder first on its PATH."""
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    usual = {"PATH": path, "PYTHONPATH": str(HOME), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, **usual, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a shell, and return what it printed."""
    printed, _ = process.communicate()
    assert process.returncode == status, printed
    assert status or "Traceback" not in printed, printed
    return printed


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_every_command_parses_and_its_flags_exist(run, here):
    assert len(BLOCKS) == len(re.findall("^```", PAGE, re.MULTILINE)) // 2
    commands = set()
    for block in BLOCKS:
        subprocess.run(["bash", "-n", "-c", block], check=True)
        one_line = block.replace("\\\n", "").replace('"${SLURM_ARRAY_TASK_ID:-0}"', "0")
        commands |= {*re.findall(r"main\.py (fit --config .*)", one_line)}
    for command in commands:
        args = shlex.split(command.replace("configs/", f"{HOME}/configs/"))
        with pytest.raises(SystemExit) as stop:
            run(*args, "--print_config")
        assert not stop.value.code, command


@pytest.mark.slow
def test_one_machine_with_torchrun_and_resuming(here):
    torchrun = find_block("torchrun --nproc_per_node 2 main.py fit --config")
    finish(start(shrink(torchrun), here))
    resume = find_block("--ckpt_path").strip() + " --trainer.max_epochs 4"
    finish(start(shrink(resume, **{"runs/imagenet/resnet50": "runs/digits/resnet20"}), here))
    assert torch.load(here / RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 16
    assert not (here / RUN).with_name("version_1").exists()


@pytest.mark.slow
def test_a_time_limit_of_the_strategy_ends_the_wait_for_a_stopped_process(here):
    stop = "--trainer.callbacks+=tests.dying_process.Kill --trainer.callbacks.step=5 --trainer.callbacks.rank=1"
    block = find_block("--trainer.strategy.timeout").strip() + f" {stop} --trainer.callbacks.name=SIGSTOP"
    printed = finish(start(shrink(block, **{"0:05:00": "0:00:10"}), here), status=1)
    assert printed.count("error: ") == 1 and "error: Another process of this command has ended" in printed


@pytest.mark.slow
def test_two_machines_with_torchrun(here):
    block = shrink(
        find_block("--rdzv_backend"),
        **{
            "HOST:29500": f"127.0.0.1:{free_port()}",
            "--nproc_per_node 2": "--nproc_per_node 1",
            "--trainer.devices 2": "--trainer.devices 1",
        },
    )
    agents = [start(block, here) for _ in range(2)]
    printed = "".join(map(finish, agents))
    assert printed.count("Waiting for 1 of 2 nodes at") == printed.count("Waiting for the first node at") == 1
    assert [path.name for path in (here / RUN).parent.iterdir()] == ["version_0"]


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [3, 4])
def test_two_machines_by_hand(here, epochs):
    """The second one with the same config, and with another."""
    block = shrink(
        find_block("NODE_RANK=0"),
        **{"HOST": "127.0.0.1", "29500": free_port(), "--trainer.devices 2": "--trainer.devices 1"},
    )
    second = block.replace("NODE_RANK=0", "NODE_RANK=1").strip() + f" --trainer.max_epochs {epochs}"
    machines = [start(each, here) for each in (block, second)]
    status = 0 if epochs == 3 else 1
    printed = [finish(machine, status) for machine in machines]
    assert (here / RUN / "checkpoints/last.ckpt").is_file() == (epochs == 3)
    if status:
        assert "error: Node 1 was started with trainer.max_epochs 4, and the first node with 3" in printed[0]
        assert "error: The first node has stopped this command" in printed[1]


@pytest.mark.slow
def test_a_missing_machine_is_one_sentence(here):
    block = shrink(
        find_block("NODE_RANK=0"),
        **{"HOST": "127.0.0.1", "29500": free_port(), "--trainer.devices 2": "--trainer.devices 1"},
    )
    printed = finish(start(block.strip() + " --trainer.node_timeout 2", here), status=1)
    assert printed.count("error: ") == 1 and "1 of 2 nodes (NODE_RANK 1)" in printed
    assert not list(here.rglob("version_*"))


@pytest.mark.slow
def test_a_mistake_that_all_processes_make_is_said_once(here):
    for flags in ("--trainer.strategy fsdp", "--trainer.devices 1", "--data.batch_size 9"):
        torchrun = find_block("torchrun --nproc_per_node 2 main.py fit --config").strip()
        printed = finish(start(f"{shrink(torchrun)} {flags}", here), status=1)
        assert printed.count("error: ") == 1, printed


@pytest.mark.slow
def test_the_script_of_slurm_requeues_its_job_which_goes_on_to_the_same_bits(here):
    (here / "bin").mkdir()
    for name, content in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (here / "bin" / name).write_text(content)
        (here / "bin" / name).chmod(0o755)
    flag = "--trainer.callbacks+=tests.dying_process.EndOfTime --trainer.callbacks.step=5"
    script = shrink(
        find_block("#SBATCH"),
        **{DATA: f"{TINY_DATA} {flag}", "--ntasks-per-node=8": "--ntasks-per-node=1", "devices 8": "devices 1"},
    )
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", script, re.MULTILINE))
    job = {
        "SLURM_JOB_ID": "8",
        "SLURM_JOB_NAME": asked["job-name"],
        "SLURM_NNODES": asked["nodes"],
        "SLURM_NTASKS_PER_NODE": asked["ntasks-per-node"],
        "SLURM_NTASKS": str(int(asked["nodes"]) * int(asked["ntasks-per-node"])),
        "SLURM_NODELIST": "127.0.0.1",
    }
    printed = finish(start(script, here, **job, MASTER_PORT=free_port()), status=143)
    assert "SIGUSR1: stopping after this step with a checkpoint" in printed
    assert (here / "scontrol.txt").read_text() == "requeue 8\n"
    printed = finish(start(script, here, **job, MASTER_PORT=free_port(), SLURM_RESTART_COUNT="1"))
    assert "This job was requeued: it goes on with its run" in printed
    whole = script.replace(flag, f"{flag} --run_name digits/whole")
    finish(start(whole, here, **job | {"SLURM_JOB_ID": "9"}, MASTER_PORT=free_port(), SLURM_RESTART_COUNT="1"))
    once, twice = weights(here / "runs/digits/whole/version_0"), weights(here / RUN)
    assert once.keys() == twice.keys() and all(torch.equal(once[name], twice[name]) for name in once)
    assert (here / "scontrol.txt").read_text() == "requeue 8\n"
    assert not (here / RUN).with_name("version_1").exists()
