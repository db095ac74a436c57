"""File and class names in any encoding, of any length, on any terminal: trained on, tested, predicted and copied."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest

from checkpointing.predictions import Predictions
from datamodules import ImageNet
from datamodules.resize import resize_tree
from errors import printable, protect_output
from reports.protocols import main as protocols
from tests.datamodules.test_decode import encoded, photo
from tests.datamodules.test_imagenet import fit

NAMES = [
    b"caf\xe9.jpg", "café.jpg".encode(), "cafe\u0301.jpg".encode(), "日本 写真.jpg".encode(), "צילום.jpg".encode(),
    "\U0001f431\u200d\U0001f464.jpg".encode(), b"[bold red]cat[bold].jpg", b":cat: a, b; c.jpg", b"it's \"quoted\".jpg",
    b"two\nlines\r.jpg", b"tab\tand\x1b[31mred.jpg", b"a:b?*<>|.jpg", b"con.jpg",
    b" space .jpg", b"=1+1.jpg", b"-dash.jpg",
    "\u202egpj.exe.jpg".encode(), b"%s {x} $HOME `id`.jpg", b"x" * 251 + b".jpg",
    ("é" * 125 + ".jpg").encode(), b"null",
]  # fmt: skip
CLASSES = [b"d\xf6g, [bold]", "כלב: \U0001f436\n| x".encode()]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Both classes with an image of each name."""
    root = tmp_path / "im ag\udce9s: [1], 'x'"
    for k, name in enumerate(CLASSES):
        folder = os.path.join(os.fsencode(root), name)
        os.makedirs(folder)
        for i, file in enumerate(NAMES):
            Path(os.fsdecode(os.path.join(folder, file))).write_bytes(encoded(photo(20, 30, 100 * k + i)))
    return root


def ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """What is printed from now on, to a stdout that takes nothing but ASCII."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    return terminal.buffer


def expected(root: Path) -> list[str]:
    return sorted(os.fsdecode(os.path.join(os.fsencode(root), c, n)) for c in CLASSES for n in NAMES)


def test_any_name_is_trained_on_tested_predicted_and_reported(run, images, monkeypatch):
    terminal = ascii_terminal(monkeypatch)
    run(*fit(images, "--data.val_size", 8, "--model", "lit_models.LitResNet", "--model.depth", 20))
    run("test", "--ckpt_path", "runs/photos/net")
    folder = Path("runs/photos/net/version_0")
    predictions = Predictions.read(folder / "predictions-best-center.npz")
    assert predictions.class_names.tolist() == sorted(map(os.fsdecode, CLASSES))
    data = ImageNet(images, val_size=8)
    data.setup("test")
    assert predictions.files.tolist() == data.test_set.file_names and len(data.test_set) == 8
    assert json.loads((folder / "test-best-center.json").read_text())["images"] == 8
    run("predict", "--ckpt_path", "runs/photos/net", "--data.paths", images)
    with open("predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == expected(images)
    assert {row["class_1"] for row in rows} <= set(map(os.fsdecode, CLASSES))
    protocols(["--checkpoints", str(folder), "--html", "a.html", "--markdown", "a.md", "--json", "a.json"])
    facts = json.loads(Path("a.json").read_text())["error_analysis"]
    assert facts["classes"] == sorted(map(os.fsdecode, CLASSES))
    assert all(error["image"] in predictions.files for error in facts["confident_errors"])
    table = [line for line in Path("a.md").read_text().splitlines() if line.startswith("|")]
    assert table and all(line.endswith("|") for line in table)
    printed = terminal.getvalue().decode("ascii")
    assert "[bold red]cat[bold]" in printed and ":cat: a, b; c" in printed and "\x1b" not in printed


def test_any_name_survives_the_smaller_copy(images, tmp_path, monkeypatch):
    ascii_terminal(monkeypatch)
    protect_output()
    resize_tree(images, tmp_path / "copy", 10, workers=1)
    copied = [os.fsencode(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*") if p.is_file()]
    names = [name if name != b"null" else b"null.jpg" for name in NAMES]
    assert sorted(copied) == sorted(os.path.join(c, n) for c in CLASSES for n in names)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [x] :cat: é 日本 צ", "plain [x] :cat: é 日本 צ"), ("a\nb\r\t", "a\\nb\\r\\t"), ("\udce9", "\\udce9"),
        ("\x1b[31m", "\\x1b[31m"), ("\u202e", "\\u202e"), ("\u3000\u202f", "\u3000\u202f"),
        ("\U0001f431\u200d\U0001f464", "\U0001f431\u200d\U0001f464"),
    ],
)  # fmt: skip
def test_texts_are_shown_in_one_line(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "name", ["[a].jpg", "a: b.jpg", "a, b.jpg", "- x.jpg", "1e3", "{x}.jpg", "'q\".jpg", "caf\udce9.jpg", "#x.jpg"]
)
def test_a_single_image_of_any_name_is_predicted(run, tiny_run, here, name):
    (here / name).write_bytes(encoded(photo(20, 30)))
    run("predict", "--ckpt_path", tiny_run, f"--data.paths={name}")
    with open("predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [str(here / name)]
