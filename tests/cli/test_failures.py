"""Failures outside of this project: a closed pipe, a lost loader process, a download that breaks off."""

import http.client
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.distributed import DistNetworkError, DistStoreError
from torchvision.datasets import Flowers102, ImageFolder

from cli.failures import explain_failure
from datamodules import TorchvisionData
from tests.conftest import DIGITS, HOME

PRINTING = """
import sys
from errors import protect_output
protect_output()
protect_output()  # twice changes nothing
for number in range(20_000):
    print(number, "\\u65e5", flush=number % 3 == 0)
    print("note", file=sys.stderr, flush=True)
open("done", "w").close()
"""


@pytest.mark.parametrize("redirection", ["| head -1", "2>&1 | head -1", "2>&1 >/dev/null | head -1", "| true"])
def test_a_command_whose_reader_has_gone_goes_on_to_its_end(here, redirection):
    """Its exit status is that of the work, and its results are saved."""
    Path("prints.py").write_text(PRINTING)
    script = f"set -o pipefail; {sys.executable} prints.py {redirection}"
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (here / "done").exists() and done.returncode == 0
    assert not {line for line in done.stderr.splitlines() if line != "note"}


@pytest.mark.parametrize(
    "error",
    [
        DistNetworkError("Failed to recv, got 0 bytes. Connection was likely closed."),
        DistStoreError("wait timeout after 10000ms, keys: /default_pg/0//cpu//0/rank_1"),
    ],
)
def test_a_store_that_other_processes_have_left_is_one_sentence(error):
    assert str(explain_failure(error)).startswith("Another process of this command has ended, or cannot be reached")


def send_to_a_process_that_has_ended() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    ours.send(1)


def receive_from_a_process_that_has_ended() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    ours.recv()


def connect_to_a_process_that_has_ended() -> None:
    multiprocessing.connection.Client("/tmp/there-is-no-such-socket-of-a-loader", "AF_UNIX")


@pytest.mark.parametrize(
    ("path", "said"), [("x" * 3000, "xxx cannot be used (File name"), ("loop", "loop/a cannot be used")]
)
def test_a_path_that_a_library_cannot_use_is_said(here, path, said):
    """Of a logger or a profiler of Lightning's, which make their folders themselves."""
    Path("loop").symlink_to("loop")
    with pytest.raises(OSError) as caught:
        os.makedirs(f"{path}/a")
    assert said in str(explain_failure(caught.value))
    assert explain_failure(PermissionError(13, "Permission denied", "a")) is None


LOST = [
    send_to_a_process_that_has_ended,
    receive_from_a_process_that_has_ended,
    connect_to_a_process_that_has_ended,
]


def failure_of(function: Callable[[], object]) -> str | None:
    with pytest.raises(Exception) as failure:  # of whatever class
        function()
    return explain_failure(failure.value)


@pytest.mark.parametrize("function", LOST)
def test_a_lost_connection_inside_multiprocessing_is_that_of_a_loader_process(function):
    assert "A loader process has ended (its connection was lost)" in (failure_of(function) or "")


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "Connection reset by peer"), EOFError()]
)
def test_a_lost_connection_elsewhere_is_neither_a_loader_nor_another_process(error):
    def fail() -> None:
        raise error

    assert failure_of(fail) is None


@pytest.fixture
def server() -> Callable[[bytes], str]:
    """The address of a file on a server that answers once with the bytes given, and closes the connection."""

    def serve(answer: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))

        def reply() -> None:
            connection, _ = listening.accept()
            connection.recv(4096)
            connection.sendall(answer)
            connection.close()
            listening.close()

        threading.Thread(target=reply, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/net.pth"

    return serve


ANSWERS = {
    "closed": b"",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
    "missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "nonsense": b"nonsense\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_download_that_fails_is_named(server, answer):
    url = server(ANSWERS[answer])
    said = failure_of(lambda url=url: urllib.request.urlopen(url).read()) or ""
    assert f"The download of {url} has failed (" in said and "by hand" in said


def test_a_download_without_a_network_or_an_answer_is_named(tmp_path, monkeypatch):
    refused = "http://127.0.0.1:9/net.pth"
    said = failure_of(lambda: torch.hub.download_url_to_file(refused, str(tmp_path / "net.pth"), progress=False))
    assert f"The download of {refused} has failed (" in (said or "")

    def no_answer(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(http.client.HTTPConnection, "connect", no_answer)
    assert "timed out" in (failure_of(lambda: urllib.request.urlopen("http://example.org/net.pth")) or "")


def test_an_ordinary_error_beside_a_download_stays_a_bug():
    def fail() -> None:
        raise OSError(5, "Input/output error")

    assert failure_of(fail) is None
    assert failure_of(lambda: urllib.request.urlopen("no address")) is None


class Flowers(TorchvisionData):
    """As the docstring of `TorchvisionData` has it."""

    def __init__(self, root: Path) -> None:
        super().__init__(Flowers102(root, "train"), Flowers102(root, "test"), num_classes=102)


class MisspelledFolder(ImageFolder):
    def find_classes(self, directory: Path) -> tuple[list[str], dict[str, int]]:
        raise AttributeError("a bug")  # called by the library's constructor


class Broken(TorchvisionData):
    def __init__(self) -> None:
        raise RuntimeError("a bug")


def data_flags(class_path: str, root: str) -> list[str]:
    flags = ["--data", "datamodules.TorchvisionData"]
    return (
        flags
        + [f"--data.{part}={value}" for part in ("train", "test") for value in (class_path,)]
        + [f"--data.{part}.root={root}" for part in ("train", "test")]
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (data_flags("torchvision.datasets.ImageFolder", "nowhere"), "folder.ImageFolder cannot be made with these arg"),
        (data_flags("torchvision.datasets.Flowers102", "nowhere"), "(RuntimeError: Dataset not found"),
        (["--data", "tests.cli.test_failures.Flowers", "--data.root=nowhere"], "flowers102.Flowers102 cannot be made"),
        (data_flags("torchvision.datasets.ImageFolder", "x" * 3000), "xxx cannot be used (File name too long)"),
    ],
)
def test_a_data_set_that_cannot_be_made_is_said(fails, flags, said):
    assert said in fails("fit", "--config", DIGITS, *flags)


def test_a_data_set_of_a_checkpoint_that_cannot_be_made_is_said(run, fails, here):
    for name in ("cat", "dog"):
        (here / "set" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8)).save(here / "set" / name / f"{number}.png")
    flags = [*data_flags("torchvision.datasets.ImageFolder", "set"), "--data.size=16", "--data.batch_size=4"]
    run("fit", "--config", DIGITS, *flags, "--data.val_size=2", "--trainer.max_epochs=1")
    shutil.rmtree(here / "set" / "dog")
    shutil.rmtree(here / "set" / "cat")
    for command in (["test"], ["fit", "--trainer.max_epochs=2"]):
        said = fails(*command, "--ckpt_path", "runs/digits/resnet20")
        assert "ImageFolder cannot be made with these arguments (FileNotFoundError: Couldn't find any class" in said


@pytest.mark.parametrize(
    "flags",
    [
        ["--data", "tests.cli.test_failures.Broken"],
        data_flags("tests.cli.test_failures.MisspelledFolder", "."),
    ],
)
def test_a_bug_in_a_constructor_keeps_its_traceback(run, flags):
    with pytest.raises(ValueError, match="a bug"):
        run("fit", "--config", DIGITS, *flags)


def test_a_loader_process_that_ends_is_found_behind_the_error_that_a_library_made_of_it():
    """Torch raises its end wherever the main process is, as in the middle of `inspect.signature`."""
    message = "DataLoader worker (pid 7) is killed by signal: Killed."

    def fails(with_cause: bool) -> BaseException:
        try:
            try:
                raise RuntimeError(message)
            except RuntimeError as error:
                raise TypeError("no signature") from (error if with_cause else None)
        except TypeError as error:
            return error

    for with_cause in (True, False):
        assert "A loader process has ended (killed by signal: Killed)" in str(explain_failure(fails(with_cause)))
    assert explain_failure(TypeError(message)) is None
