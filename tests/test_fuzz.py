"""Random damage to what a user or a disk can hand over: each input ends in one sentence or in a right result.

What counts as right for an input that is accepted:

- a flag: the run trains, and its config.yaml holds the value;
- a config: the run trains, and its config.yaml holds every value of the file;
- a checkpoint: test finds the same errors, and a resumed run ends with the same weights, as with the whole file;
- an image: it has three channels of the size that its header states, and, undamaged, Pillow's pixels;
- a batch of CIFAR-10: the images and labels that pickle reads from the file;
- a file of predictions: what was written;
- metrics.csv: the resumed run ends as beside the whole file, and keeps every row that was left undamaged.

Every input follows from its seed: `pytest tests/test_fuzz.py -m "slow or not slow" -k "[123]"` runs one again.
"""

import codecs
import copy
import csv
import io
import json
import math
import pickle
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from checkpointing.nested_text import read_value
from checkpointing.predictions import Predictions
from cli.command_line import run_cli
from datamodules.cifar10 import CIFAR10
from datamodules.decode import EncodedImage
from errors import UserError
from tests.conftest import DIGITS, TINY, write_synthetic_cifar

SEEDS = 500
QUICK = 60  # of them in every run of the tests
HANG = 300  # seconds; a loaded machine needs a few for the slowest input
ODD_VALUES: list[Any] = [
    None,
    "",
    "x",
    "\ud800",
    b"x",
    -1,
    0,
    1.5,
    math.nan,
    math.inf,
    10**30,
    True,
    False,
    [],
    {},
    [1, 2],
]
ODD_WORDS = "-1 0 1 2 1.5 1e9 nan inf -inf null true [] {} x 🙂 1,5 !!python/name:os.system ../.. os.system"
ODD_FLAGS = ["", " ", "[1, 2]", "&a [*a]", *ODD_WORDS.split()]
FLAGS_OF = {
    "data": "batch_size val_size num_workers protocol drop_last",
    "model": "depth label_smoothing dropout norm activation weights optimizer optimizer.lr lr_scheduler channels_last",
    "trainer": "max_epochs max_time min_steps precision accumulate_grad_batches gradient_clip_val limit_train_batches "
    "limit_val_batches check_val_every_n_epoch val_check_interval log_every_n_steps devices accelerator strategy "
    "callbacks logger num_sanity_val_steps overfit_batches detect_anomaly profiler",
}
FLAGS = ["seed_everything", "run_name", *(f"{part}.{name}" for part in FLAGS_OF for name in FLAGS_OF[part].split())]
STEPS = ["--trainer.max_steps", 3]  # of every run that trains: an accepted 1e9 epochs would not end


@contextmanager
def no_hang() -> Iterator[None]:
    """Raise TimeoutError in code that does not end."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {HANG} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def accepts(capsys: pytest.CaptureFixture[str], *args: object) -> bool:
    """Whether the command line accepts the arguments; a refusal must be one sentence, anything else fails the test."""
    capsys.readouterr()
    try:
        with no_hang():
            run_cli([str(arg) for arg in args])
    except SystemExit as stop:
        if stop.code in (0, None):
            return True
        text = stop.code if isinstance(stop.code, str) else capsys.readouterr().err
        sentences = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(sentences) == 1 and "Traceback" not in text, text
        assert len(sentences[0]) > len("error: ") + 10, text
        return False
    return True


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all entries of nested dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return [found for key, value in items for found in [(*path, key), *leaves(value, (*path, key))]]


def replace(tree: Any, path: tuple[Any, ...], value: Any) -> None:
    """Replace one entry of nested dicts and lists; a tuple on the way is made a list."""
    for key in path[:-1]:
        if isinstance(tree[key], tuple):
            tree[key] = list(tree[key])
        tree = tree[key]
    tree[path[-1]] = value


def remove(tree: Any, path: tuple[Any, ...]) -> None:
    """Remove one entry of nested dicts and lists."""
    for key in path[:-1]:
        tree = tree[key]
    if not isinstance(tree, tuple):
        del tree[path[-1]]


def damage(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one fault: cut off, a bit flipped, a part overwritten, doubled or removed."""
    if not data:
        return b"x"
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice([1, 8, 100]))
    flipped = bytes([data[start] ^ 1 << rng.randrange(8)])
    return rng.choice(
        [
            data[:start],
            data[:start] + flipped + data[start + 1 :],
            data[:start] + rng.randbytes(end - start) + data[end:],
            data[:end] + data[start:],
            data[:start] + data[end:],
        ]
    )


def damage_text(text: str, rng: random.Random) -> bytes:
    """A text with one fault of an editor's: a line removed, doubled, moved in, retyped, or another encoding."""
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    key = lines[at].partition(":")[0]
    change = rng.choice(["remove", "double", "indent", "retype", "encoding", "bytes"])
    if change in ("encoding", "bytes"):
        encoding = rng.choice(["utf-16", "utf-8-sig", "utf-32"])
        return text.encode(encoding) if change == "encoding" else damage(text.encode(), rng)
    lines[at : at + 1] = {
        "remove": [],
        "double": [lines[at], lines[at]],
        "indent": [rng.choice([" ", "   ", "\t"]) + lines[at]],
        "retype": [f"{key}: {rng.choice(ODD_FLAGS)}"],
    }[change]
    return "\n".join(lines).encode()


def decode(data: bytes) -> str:
    """The text of a file that may begin with a byte order mark."""
    marks = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16"}
    return data.decode(next((marks[mark] for mark in marks if data.startswith(mark)), "utf-8-sig"))


def same(one: Any, two: Any) -> bool:
    """Whether two values of a config are one, numbers by their value."""
    return one == two or str(one) == str(two) or (one != one and two != two)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny run that a test has seen, and the weights with which it ends when it is resumed for one more epoch."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.chdir(folder)
        run_cli(["fit", "--config", DIGITS, *TINY])
        run_cli(["test", "--ckpt_path", "runs/digits/resnet20"])
        run = folder / "runs/digits/resnet20/version_0"
        shutil.copytree(folder / "runs", folder / "resumed")
        resume(folder / "resumed/digits/resnet20/version_0/checkpoints/last.ckpt")
    return {
        "runs": folder / "runs",
        "errors": json.loads((run / "test-best-center.json").read_text())["metrics"],
        "weights": weights(folder / "resumed/digits/resnet20/version_0"),
    }


def resume(checkpoint: Path) -> list[object]:
    args = ["fit", "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "4"]
    run_cli(args)
    return [*args]


def weights(run: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert content["epoch"] == 3
    return content["state_dict"]


def equal_weights(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def fuzz_flag(rng: random.Random, here: Path, base: dict, capsys: Any) -> str:
    flag, value = rng.choice(FLAGS), rng.choice(ODD_FLAGS)
    if not accepts(capsys, "fit", "--config", DIGITS, *TINY, *STEPS, f"--{flag}", value):
        return "refused"
    (run,) = here.rglob("version_*")
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key in flag.split("."):
        config = config.get(key, config.get("init_args", {}).get(key)) if isinstance(config, dict) else None
    if isinstance(config, dict) or flag in ("trainer.callbacks", "trainer.logger", "trainer.strategy"):
        return "accepted"
    if flag == "run_name" and not value.strip():  # no name: that of the config
        return "accepted"
    assert str(config) == value or same(config, read_value(value)), (flag, value, config)
    return "accepted"


def fuzz_config(rng: random.Random, here: Path, base: dict, capsys: Any) -> str:
    text = "".join(line for line in Path(DIGITS).read_text().splitlines(keepends=True) if not line.startswith("#"))
    (here / "mine").mkdir()
    (here / "mine/own.yaml").write_bytes(damage_text(text, rng))
    if not accepts(capsys, "fit", "--config", "mine/own.yaml", *TINY, *STEPS):
        return "refused"
    (run,) = here.rglob("version_*")
    given, found = (
        yaml.safe_load(decode((here / "mine/own.yaml").read_bytes())),
        yaml.safe_load((run / "config.yaml").read_text()),
    )
    overridden = {"max_epochs", "precision", "log_every_n_steps", "batch_size", "shift", "class_path", "callbacks+"}
    for path in leaves(given):
        value = found
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        wanted = given
        for key in path:
            wanted = wanted[key]
        if not isinstance(wanted, dict | list) and not overridden & set(path):
            assert same(wanted, value), (path, wanted, value)
    return "accepted"


def fuzz_checkpoint(rng: random.Random, here: Path, base: dict, capsys: Any) -> str:
    shutil.copytree(base["runs"], here / "runs")
    path = here / "runs/digits/resnet20/version_0/checkpoints" / "last.ckpt"
    verb = rng.choice(["fit", "test", "validate"])
    if rng.random() < 0.4:
        path.write_bytes(damage(path.read_bytes(), rng))
    else:
        content = torch.load(path, weights_only=True)
        parts = [place for place in leaves(content) if place[0] != "state_dict" or rng.random() < 0.05]
        place, value = rng.choice(parts), rng.choice(ODD_VALUES)
        if rng.random() < 0.2:
            remove(content, place)
        else:
            replace(content, place, copy.deepcopy(value))
        torch.save(content, path)
    flags = ["--trainer.max_epochs", 4, *STEPS[:0]] if verb == "fit" else []
    if not accepts(capsys, verb, "--ckpt_path", path, *flags):
        return "refused"
    if verb == "fit":
        assert equal_weights(weights(path.parent.parent), base["weights"])
    elif verb == "test":
        found = json.loads((path.parent.parent / "test-last-center.json").read_text())["metrics"]
        whole = here / "whole"
        shutil.copytree(base["runs"], whole)
        run_cli(["test", "--ckpt_path", str(whole / "digits/resnet20/version_0/checkpoints/last.ckpt")])
        assert found == json.loads((whole / "digits/resnet20/version_0/test-last-center.json").read_text())["metrics"]
    return "accepted"


def fuzz_image(rng: random.Random, here: Path, base: dict, capsys: Any) -> str:
    kind = rng.choice(["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
    mode = rng.choice(["RGB", "L"] if kind in ("JPEG", "WEBP", "BMP") else ["RGB", "L", "P", "1"])
    size = rng.choice([(1, 1), (7, 31), (64, 48), (3, 2000)])
    pixels = np.random.default_rng(rng.randrange(10**6)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    whole = rng.random() < 0.2
    data = file.getvalue() if whole else damage(file.getvalue(), rng)
    try:
        with no_hang():
            image = EncodedImage(data)
            found = image.crop((0, 0, image.height, image.width), (image.height, image.width))
    except UserError as error:
        assert not whole and len(str(error)) > 10
        return "refused"
    assert found.shape == (3, image.height, image.width) and found.dtype == torch.uint8
    if whole:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)
        assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 2
    return "accepted"


def fuzz_cifar(rng: random.Random, here: Path, base: dict, capsys: Any) -> str:
    root = write_synthetic_cifar(here / "cifar")
    path = root / "cifar-10-batches-py" / rng.choice(["data_batch_1", "test_batch"])
    if rng.random() < 0.5:
        path.write_bytes(damage(path.read_bytes(), rng))
    else:
        content = pickle.loads(path.read_bytes())
        content[rng.choice([*content, "other"])] = rng.choice([v for v in ODD_VALUES if v != "\ud800"])
        path.write_bytes(pickle.dumps(content, protocol=2))
    stage = "test" if path.name == "test_batch" else "fit"
    try:
        with no_hang():
            data = CIFAR10(root, val_size=0)
            data.setup(stage)
    except UserError as error:
        assert len(str(error)) > 10
        return "refused"
    content = pickle.loads(path.read_bytes(), encoding="latin1")
    images = (data.test_set if stage == "test" else data.train_set).subset(np.arange(len(content["labels"])))
    assert torch.equal(images.images, torch.from_numpy(np.asarray(content["data"]).reshape(-1, 3, 32, 32)))
    assert images.labels.tolist() == list(content["labels"])
    return "accepted"


def fuzz_predictions(rng: random.Random, here: Path, base: dict, capsys: Any) -> str:
    source = next(base["runs"].rglob("predictions-best-center.npz"))
    path = here / source.name
    path.write_bytes(damage(source.read_bytes(), rng))
    if rng.random() < 0.5:
        with np.load(source) as file:
            content = dict(file)
        value = rng.choice(
            [np.array([]), np.array(["a"]), np.float32("nan"), np.array([[1, 2]]), np.array(-1), np.array("")]
        )
        content[rng.choice(list(content))] = value
        np.savez(path, **content)
    try:
        with no_hang():
            found, whole = Predictions.read(path), Predictions.read(source)
    except UserError as error:
        assert path.name in str(error)
        return "refused"
    for name in Predictions.__dataclass_fields__:
        if name not in ("checkpoint", "checkpoint_hash", "data_hash", "protocol"):  # text that says where they are from
            assert np.array_equal(getattr(found, name), getattr(whole, name)), name
    return "accepted"


def fuzz_metrics(rng: random.Random, here: Path, base: dict, capsys: Any) -> str:
    shutil.copytree(base["runs"], here / "runs")
    run = here / "runs/digits/resnet20/version_0"
    path = run / "metrics.csv"
    before = path.read_bytes()
    path.write_bytes(damage(before, rng))
    header = before.split(b"\n")[0]
    kept = {row for row in path.read_bytes().split(b"\n")[1:-1] if row in before.split(b"\n")[1:-1]}
    if not accepts(capsys, "fit", "--ckpt_path", run / "checkpoints/last.ckpt", "--trainer.max_epochs", 4):
        return "refused"
    assert equal_weights(weights(run), base["weights"])
    rows = list(csv.DictReader(path.open(encoding="utf-8", errors="replace")))
    assert [row for row in rows if row.get("epoch") == "3"], "the resumed epoch is not there"
    if path.read_bytes().startswith(header):
        losses = [line.split(b",") for line in path.read_bytes().splitlines()]
        assert len(losses) >= len(kept)
    return "accepted"


FUZZERS: list[Callable[..., str]] = [
    fuzz_checkpoint,
    fuzz_flag,
    fuzz_config,
    fuzz_image,
    fuzz_cifar,
    fuzz_predictions,
    fuzz_metrics,
]


@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.slow] * (s >= QUICK)) for s in range(SEEDS)])
def test_every_input_ends_in_one_sentence_or_a_right_result(seed, here, base, capsys):
    FUZZERS[seed % len(FUZZERS)](random.Random(seed), here, base, capsys)
