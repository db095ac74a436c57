"""What the checkpoints of a run say of how far it came, and of its model and data."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from checkpointing.content import FIT_LOOP, check_content
from checkpointing.progress import epochs_done, loader_batches
from checkpointing.record import Checkpoint, CheckpointRecord, read_checkpoint
from checkpointing.run_facts import DataFacts, ModelFacts, RunFacts
from errors import UserError
from reports.run_sources.run_files import find_file, get_item, list_files

# Names in a state dict of what a net does not learn, or does not use after the training
NO_PARAMETER = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)|(?!net\.).*|net\.[Aa]ux.*")


class Saved(NamedTuple):
    """What the last checkpoint of a run says.

    Args:
        epochs, steps: whole epochs and optimizer steps.
        epoch_steps: optimizer steps of an epoch; None if unknown.
        facts: numbers of images and multiply-adds left out.
        config: of the run.
    """

    epochs: int
    steps: int
    epoch_steps: float | None
    facts: RunFacts
    config: dict[str, Any]


def read_saved(path: Path, problems: list[str]) -> Saved | None:
    """What the checkpoint of the latest step says; None without any that can be read."""
    damaged = []
    files = list_files(path, path / "checkpoints", "*.ckpt")
    for file in sorted(files, key=lambda each: (each.stem == "last", each.stem != "best", each.name), reverse=True):
        try:
            if find_file(path, file):
                return summarize(read_checkpoint(file, verify=False))
        except UserError:
            damaged.append(file.name)
    if damaged:
        problems.append(f"{' and '.join(damaged[:3])} cannot be read")
    return None


def summarize(checkpoint: Checkpoint) -> Saved:
    """What a checkpoint says of its run.

    Raises:
        UserError: if it does not say how far the training was, as one whose weights are an average does not.
    """
    check_content(checkpoint.content, {"loops": {"fit_loop": FIT_LOOP}}, checkpoint.path)
    fit_loop, record = checkpoint.content["loops"]["fit_loop"], checkpoint.record
    batches = loader_batches(fit_loop)
    epoch_steps = None if batches is None else max(1, math.ceil(batches / batches_per_step(record.config)))
    return Saved(
        epochs_done(fit_loop), checkpoint.step, epoch_steps, gather_facts(checkpoint), checkpoint.record.config
    )


def gather_facts(checkpoint: Checkpoint) -> RunFacts:
    """The facts of a run without run.json; numbers of images are 0."""
    record = checkpoint.record
    seed, size = record.config.get("seed_everything"), record.preprocessing.get("crop")
    learned = [each.numel() for name, each in checkpoint.state_dict.items() if not NO_PARAMETER.fullmatch(name)]
    model = ModelFacts(class_name(record, "model"), sum(learned), None, size if isinstance(size, int) else 0)
    data_hash, val_hash, test_hash = (
        each if isinstance(each, str) else None for each in (record.data_hash, record.val_hash, record.test_hash)
    )
    data = DataFacts(class_name(record, "data"), len(record.class_names), 0, 0, data_hash, val_hash, test_hash)
    return RunFacts(seed if isinstance(seed, int) else 0, model, data)


def class_name(record: CheckpointRecord, part: str) -> str:
    """The name of the class of the model or the data."""
    return record.config[part]["class_path"].rpartition(".")[2]


def batches_per_step(config: Mapping[str, Any]) -> int:
    """Batches whose gradients are added up in an optimizer step."""
    number = get_item(config, "trainer", "accumulate_grad_batches")
    return number if isinstance(number, int) and number > 0 else 1


def expected_epoch_steps(config: Mapping[str, Any], facts: RunFacts | None, saved: Saved | None) -> float | None:
    """Optimizer steps of an epoch by the last checkpoint, or by the number of images; None if unknown."""
    if saved and saved.epoch_steps:
        return saved.epoch_steps
    batch_size = get_item(config, "data", "init_args", "batch_size")
    is_limited = get_item(config, "trainer", "limit_train_batches") is not None
    if facts is None or not facts.data.train_images or is_limited or not isinstance(batch_size, int) or batch_size < 1:
        return None
    return math.ceil(math.ceil(facts.data.train_images / batch_size) / batches_per_step(config))
