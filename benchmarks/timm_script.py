"""timm's own train script as a competitor: a process that runs in its turns and is stopped in the others'."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.base import ImageData
from errors import UserError
from lit_models import LitClassifier

SCRIPT = "train.py"
STEP = re.compile(r"Train: \d+ \[")  # how a line of its log begins that it writes after a step
# The fastest of its flags on two cores; without the colour jitter that is its default, for our `fit` has none here
FLAGS = [
    "--model=resnet18", "--channels-last", "--amp", "--amp-dtype=bfloat16", "--workers=2", "--color-jitter=0",
    "--train-split=train", "--val-split=train", "--log-interval=1", "--epochs=1000",
]  # fmt: skip


@dataclass(frozen=True)
class TimmScript:
    """timm's train.py, which its wheels lack.

    Args:
        folder: a checkout of timm's sources.
        images: folder with train/<class>/ that the script reads.
    """

    folder: Path
    images: Path

    def __call__(self, model: LitClassifier, data: ImageData) -> Generator[int]:
        """Train with the batch size, the size of the images, the classes and the device of a fit.

        Yields:
            the number of images after each step.

        Raises:
            UserError: if the script ends, with the end of its output.
        """
        fit = {
            "num-classes": data.num_classes,
            "img-size": data.train_size,
            "batch-size": data.batch_size,
            "device": model.device.type,
            "data-dir": self.images,
        }
        with tempfile.TemporaryDirectory() as output:
            flags = [*FLAGS, *(f"--{name}={value}" for name, value in fit.items()), f"--output={output}"]
            yield from run_steps([sys.executable, str(self.folder / SCRIPT), *flags], data.batch_size)


def run_steps(command: Sequence[str], images: int) -> Generator[int]:
    """Run a training script that is stopped whenever no step is asked for.

    Args:
        command: the script and its arguments; it writes a line that `STEP` matches after each step.
        images: of a step.
    """
    last_lines: deque[str] = deque(maxlen=5)
    # A group to be stopped as a whole, in the session of the benchmark: Linux schedules sessions against each other
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last_lines.append(line)
                if STEP.match(line):
                    os.killpg(process.pid, signal.SIGSTOP)  # with its loader processes
                    yield images
                    os.killpg(process.pid, signal.SIGCONT)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    raise UserError(f"timm's script has ended:\n{''.join(last_lines)}")
