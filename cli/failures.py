"""Failures of the machine, of other processes, and of libraries' classes, each made one sentence.

Torch raises them as RuntimeErrors (or an OSError) and tells them apart in its text alone; a connection is told by the
modules that its traceback passes through. What is not found here is a bug and keeps its traceback.

A closed pipe (`python main.py fit ... | head`) is no failure: see `errors.protect_output`.
"""

import errno
import re
import sysconfig
import traceback
from collections.abc import Iterator
from http.client import HTTPException
from itertools import takewhile
from types import FrameType

from torch.distributed import DistNetworkError, DistStoreError

from errors import shorten

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
DOWNLOAD = (
    "The download%s has failed (%s): try again where there is a network, or fetch the file by hand and give its path."
)
DEVICE_MEMORY = "The device is out of memory: give a smaller --data.batch_size, or --trainer.precision bf16-mixed."
ANOMALY = "%s (--trainer.detect_anomaly): this training has diverged, so start with a lower --model.optimizer.lr."

WANDB = "W&B cannot begin its run (%s): correct the arguments of its logger, or leave W&B out (WANDB_MODE=disabled)."
CONSTRUCTOR = "%s cannot be made with these arguments (%s: %s): correct them, or what they name."
UNUSABLE_PATH = "%s cannot be used (%s): give another path."

UNUSABLE = (errno.ENAMETOOLONG, errno.ELOOP)
LIBRARIES = ("torchvision", "torch", "lightning", "timm")
INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
LOADER_MODULES = ("multiprocessing", "torch.multiprocessing")
DOWNLOAD_MODULES = ("urllib", "http", "urllib3", "requests", "httpx", "httpcore", "huggingface_hub", "socket", "ssl")

ENDED_LOADER = r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (?:is )?(killed by signal: \w+|exited unexpectedly[^.]*)"
LOST_CONNECTION = (
    r"Connection (?:closed by|reset by) peer|timeout caused pair closure|gloo.*(?:[Tt]imed? ?out|Socket)"
    r"|NCCL.*remote process"
)

SENTENCES = [
    (r"(?s)DataLoader worker.*?(?:Bus error|shared memory)|unable to \w+ .*shared memory", SHARED_MEMORY),
    (ENDED_LOADER, LOADER),
    (LOST_CONNECTION, OTHER_PROCESS),
    (r"CUDA out of memory|MPS backend out of memory|DefaultCPUAllocator: can't allocate memory", DEVICE_MEMORY),
    (r"(?s)(Early stopping conditioned on metric `[^`]*` which is not available.*)", "%s"),
    (r"(Function '\w+' returned nan values in its \d+th output)", ANOMALY),
]


def explain_failure(error: BaseException) -> str | None:
    """The sentence for a failure of the machine, a download, another process or a library's class; else None."""
    error = unwrap(error)
    frames = find_frames(error)
    if is_connection_error(error) and any(pass_through(frames, DOWNLOAD_MODULES)):
        address = find_address(frames)
        return DOWNLOAD % (f" of {address}" if address else "", first_line(error))
    if isinstance(error, ConnectionError | EOFError | FileNotFoundError) and any(pass_through(frames, LOADER_MODULES)):
        return LOADER % "its connection was lost"
    if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename:
        return UNUSABLE_PATH % (shorten(str(error.filename)), error.strerror)  # of a logger or profiler of Lightning's
    if isinstance(error, DistNetworkError | DistStoreError):
        return OTHER_PROCESS
    # Of torch.distributed, a lost connection is a RuntimeError
    if isinstance(error, RuntimeError | OSError) and not isinstance(error, ConnectionError):
        for pattern, sentence in SENTENCES:
            if match := re.search(pattern, str(error)):
                return sentence % match.groups() if match.groups() else sentence
    # Torch raises the end of a loader process wherever the main process is, and libraries make their own errors of it
    reason = error.__cause__ or error.__context__
    if isinstance(reason, RuntimeError) and (match := re.search(ENDED_LOADER, str(reason))):
        return LOADER % match[1]
    if type(error).__module__.partition(".")[0] in ("wandb", "pydantic") and any(pass_through(frames, ("wandb",))):
        return WANDB % first_line(error)
    if isinstance(error, ModuleNotFoundError) and any(pass_through(frames[-1:], ("lightning",))):
        return f"{first_line(error)}."  # a package that one of its classes needs
    made = find_library_class(frames)
    return made and CONSTRUCTOR % (made, type(error).__name__, first_line(error))


def unwrap(error: BaseException) -> BaseException:
    """The error of a class's constructor, where jsonargparse has put its own around it.

    Of a value that may be of several types, jsonargparse names the first one's error as the cause; that of the type
    that was meant comes from a library's class.
    """
    while error.__cause__ and any(pass_through(frames := find_frames(error)[-1:], ("jsonargparse",))):
        tried = [unwrap(each) for each in frames[0].f_locals.get("exceptions", ())]
        error = next((each for each in tried if find_library_class(find_frames(each))), error.__cause__)
    return error


def find_frames(error: BaseException) -> list[FrameType]:
    """The frames that an error has passed through, the outermost first."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def find_library_class(frames: list[FrameType]) -> str | None:
    """The class path of a library's class that jsonargparse was making, or of a data set inside of one; else None.

    Any other error in the constructor of a class of this project's or of the user's is a bug, and so is one in a method
    of theirs that a library's constructor calls.
    """
    inner = list(takewhile(lambda frame: not any(pass_through([frame], ("jsonargparse",))), reversed(frames)))
    if len(inner) == len(frames):  # jsonargparse was making nothing
        return None
    inner.reverse()
    constructors = [frame for frame in inner if frame.f_code.co_name == "__init__"]
    found = [*pass_through(constructors[:1], LIBRARIES), *pass_through(constructors, ("torchvision.datasets",))]
    if not found or not all(map(is_installed, inner[inner.index(found[0]) :])):
        return None
    made = type(found[0].f_locals.get("self"))
    return f"{made.__module__}.{made.__qualname__}"


def is_installed(frame: FrameType) -> bool:
    """Whether the code of a frame is Python's or an installed package's, and none of the user's."""
    return frame.f_code.co_filename.startswith(("<frozen", *INSTALLED))


def is_connection_error(error: BaseException) -> bool:
    """Whether an error is of a kind that libraries raise for the network."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | HTTPException | EOFError) or library in DOWNLOAD_MODULES


def pass_through(frames: list[FrameType], modules: tuple[str, ...]) -> Iterator[FrameType]:
    """The frames that lie in modules, or in modules below them."""
    for frame in frames:
        name = f"{frame.f_globals.get('__name__')}."
        if name.startswith(tuple(f"{module}." for module in modules)):
            yield frame


def find_address(frames: list[FrameType]) -> str | None:
    """The first web address that a function of a traceback was given as `url`."""
    addresses = (frame.f_locals.get("url") for frame in frames)
    return next((address for address in addresses if isinstance(address, str) and "://" in address), None)


def first_line(error: BaseException) -> str:
    """The first line of an error's text; the name of its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
