"""Devices, nodes and strategies that a machine does not have are one sentence before any data are read."""

from datetime import timedelta

import pytest
import torch
from jsonargparse import Namespace

from cli.devices import refuse_missing_devices
from errors import UserError
from tests.conftest import HOME

SPAWN = Namespace(class_path="lightning.pytorch.strategies.DDPStrategy", init_args=Namespace(start_method="spawn"))
FOR_EVER, NO_TIME = (
    Namespace(class_path="lightning.pytorch.strategies.DDPStrategy", init_args=Namespace(timeout=timeout))
    for timeout in (timedelta(days=8), timedelta(0))
)
FSDP = Namespace(class_path="lightning.pytorch.strategies.FSDPStrategy")


def check(gpus: int = 0, cores: int = 2, **flags: object) -> None:
    """Check flags on a machine of so many GPUs and cores."""
    given = {"accelerator": "auto", "devices": "auto", "num_nodes": 1, "strategy": "auto", **flags}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        patch.setattr(torch.cuda, "device_count", lambda: gpus)
        patch.setattr(torch.backends.mps, "is_available", lambda: False)
        patch.setattr("cli.devices.usable_cores", lambda: cores)
        refuse_missing_devices(Namespace(given))


REFUSED = [
    ({"devices": 8}, "this machine has 2 cores, and no GPU that PyTorch finds, so give --trainer.devices 1 to 2"),
    ({"devices": 8, "accelerator": "cpu", "cores": 4}, "this machine has 4 cores, so give --trainer.devices 1 to 4"),
    ({"devices": 3, "cores": 1}, "this machine has 1 core,"),
    ({"devices": 0}, "devices is 0"),
    ({"devices": "0"}, "devices is 0"),
    ({"devices": -1}, "devices is -1"),
    ({"devices": [0, 1]}, "devices is [0, 1]"),
    ({"devices": "two"}, "devices is two"),
    ({"devices": 8, "gpus": 2}, "PyTorch sees 2 GPUs on this machine: give --trainer.devices 2"),
    ({"devices": 0, "gpus": 2}, "devices is 0"),
    ({"devices": "x", "gpus": 2}, "devices is x"),
    ({"devices": [], "gpus": 2}, "devices is []"),
    ({"devices": "1,2", "gpus": 2}, "devices names GPU 2"),
    ({"devices": [-2, 1], "gpus": 2}, "devices names GPU -2"),
    ({"num_nodes": 0}, "num_nodes is 0: give the number of machines"),
    ({"accelerator": "gpu", "devices": 2}, "accelerator is gpu, and PyTorch finds no GPU"),
    ({"accelerator": "cuda"}, "accelerator is cuda"),
    ({"accelerator": "mps"}, "finds no Apple GPU"),
    ({"strategy": "fsdp"}, "The strategy fsdp needs GPUs"),
    ({"strategy": "deepspeed_stage_2"}, "The strategy deepspeed_stage_2 needs GPUs"),
    ({"strategy": "fsdp", "accelerator": "cpu", "gpus": 2}, "this command runs on a CPU"),
    ({"strategy": FSDP}, "The strategy FSDPStrategy needs GPUs"),
    ({"strategy": "ddp_notebook"}, "give --trainer.strategy ddp"),
    ({"strategy": "ddp_fork"}, "where no signal reaches them"),
    ({"strategy": "ddp_spawn"}, "The strategy ddp_spawn starts its processes from inside"),
    ({"strategy": SPAWN}, "The strategy DDPStrategy starts its processes from inside"),
    ({"strategy": NO_TIME}, "The strategy's timeout is 0:00:00: give from 0:00:01 to 7 days, such as 0:30:00"),
    ({"strategy": FOR_EVER}, "The strategy's timeout is 8 days, 0:00:00: give"),
    ({"strategy": "dpp"}, "There is no strategy dpp. Did you mean ddp?"),
    ({"strategy": "horovod"}, "There is no strategy horovod. There are auto, ddp,"),
    ({"strategy": "single_device"}, "give --trainer.strategy auto"),
    ({"strategy": "xla"}, "give --trainer.strategy auto"),
]


@pytest.mark.parametrize(("flags", "said"), REFUSED)
def test_what_the_machine_does_not_have_is_refused(flags, said):
    with pytest.raises(UserError) as refusal:
        check(**flags)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


TAKEN = [
    {},
    {"devices": 1},
    {"devices": "2", "cores": 1},  # to try what several do
    {"devices": 4, "cores": 4, "strategy": "ddp"},
    {"devices": 2, "num_nodes": 4, "strategy": "DDP"},
    {"gpus": 2, "devices": 2, "accelerator": "gpu"},
    {"gpus": 2, "devices": -1},
    {"gpus": 2, "devices": "0,1", "strategy": "fsdp"},
    {"gpus": 2, "devices": [1], "strategy": "ddp_find_unused_parameters_true"},
    {"gpus": 8, "devices": 2, "accelerator": "cpu"},
]


@pytest.mark.parametrize("flags", TAKEN)
def test_what_it_has_is_taken(flags):
    check(**flags)


def test_data_are_not_read_before(fails, here):
    photos = ["--config", HOME / "configs/photos/resnet18.yaml", "--data.root", "nowhere"]
    strategy = ["--trainer.strategy", "fsdp", "--trainer.accelerator", "cpu"]
    assert "needs GPUs" in fails("fit", *photos, *strategy)
    assert not list(here.rglob("version_*"))
