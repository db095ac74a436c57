"""Failures of the machine and of other processes, each made one sentence.

Torch raises them as RuntimeErrors (or an OSError) and tells them apart in its text alone. What is not found here is a
bug and keeps its traceback.
"""

import re

SHARED_MEMORY = (
    "The loader processes have run out of shared memory (/dev/shm): give it more (docker run --shm-size 8g), or load "
    "with fewer processes (--data.num_workers 0)."
)
LOADER = (
    "A loader process has ended (%s), often because the machine ran out of memory: load with fewer processes "
    "(--data.num_workers), or look at the system's log."
)
OTHER_PROCESS = (
    "Another process of this command has ended, or cannot be reached: its own message says why; if it has none, it was "
    "killed."
)
DEVICE_MEMORY = "The device is out of memory: give a smaller --data.batch_size, or --trainer.precision bf16-mixed."
ANOMALY = "%s (--trainer.detect_anomaly): this training has diverged, so start with a lower --model.optimizer.lr."

SENTENCES = [
    (r"(?s)DataLoader worker.*?(?:Bus error|shared memory)|unable to \w+ .*shared memory", SHARED_MEMORY),
    (r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is )?(killed by signal: \w+|exited unexpectedly[^.]*)", LOADER),
    (r"Connection (?:closed by|reset by) peer|gloo.*(?:[Tt]imed? ?out|Socket)|NCCL.*remote process", OTHER_PROCESS),
    (r"CUDA out of memory|MPS backend out of memory|DefaultCPUAllocator: can't allocate memory", DEVICE_MEMORY),
    (r"(?s)(Early stopping conditioned on metric `[^`]*` which is not available.*)", "%s"),
    (r"(Function '\w+' returned nan values in its \d+th output)", ANOMALY),
]


def explain_failure(error: BaseException) -> str | None:
    """The sentence for a failure of the machine or of another process; None for any other error."""
    if isinstance(error, ConnectionError):  # of Python's multiprocessing; those of torch.distributed are RuntimeErrors
        return LOADER % "its connection was lost"
    for pattern, sentence in SENTENCES if isinstance(error, RuntimeError | OSError) else ():
        if match := re.search(pattern, str(error)):
            return sentence % match.groups() if match.groups() else sentence
    return None
