"""Where nothing can be written, results are printed, a sentence says so, and no traceback ends the work."""

from pathlib import Path

import pytest

from datamodules.imagenet.__main__ import main as imagenet
from reports.ensemble import main as ensemble
from reports.protocols import main as protocols
from reports.zoo import main as zoo
from tests.datamodules.test_decode import encoded, photo


def block(*paths: Path) -> None:
    """Put folders where files should be written: not even root can write there."""
    for path in paths:
        (path / "in the way").mkdir(parents=True)


def printed_sentence(stop: pytest.ExceptionInfo[SystemExit], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What a command has printed, and the one sentence that ended it."""
    out, err = capsys.readouterr()
    said = stop.value.code if isinstance(stop.value.code, str) else err
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in out + err
    return out, line


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that nobody can write to")
def test_predict_prints_all_of_its_table(run, tiny_run, here, monkeypatch, capsys):
    for i in range(45):
        (here / f"{i}.jpg").write_bytes(encoded(photo(20, 30, i)))
    checkpoint = tiny_run.absolute()
    monkeypatch.chdir("/proc")
    with pytest.raises(SystemExit) as stop:
        run("predict", "--ckpt_path", checkpoint, "--data.paths", here)
    out, said = printed_sentence(stop, capsys)
    assert "predictions.csv could not be written into /proc" in said
    assert all(f"{i}.jpg" in out for i in range(45)) and "more" not in out.splitlines()[-1]


def test_test_and_validate_print_what_they_cannot_write(run, tiny_run, capsys):
    block(*(tiny_run / name for name in ("test-best-center.json", "predictions-best-center.npz")))
    block(tiny_run / "val_predictions-best-center.npz")
    with pytest.raises(SystemExit, match="test-best-center.json could not be written .*: make room for it"):
        run("test", "--ckpt_path", tiny_run)
    out = capsys.readouterr().out
    assert "test-best-center.json could not be written" in out and '"test/top1_error": ' in out
    assert "predictions-best-center.npz could not be written" in out
    with pytest.raises(SystemExit, match="val_predictions-best-center.npz could not be written .*: make room for it"):
        run("validate", "--ckpt_path", tiny_run)
    out = capsys.readouterr().out
    assert "val_predictions-best-center.npz could not be written" in out and "val/top1_error" in out


FULL = Path("/dev/full")  # a file that can be opened for writing, and that has no room


def test_reports_print_their_tables_first(run, tiny_run, here, capsys):
    run("test", "--ckpt_path", tiny_run)
    for name, flag in (("a.html", "--html"), ("a.md", "--markdown"), ("a.tex", "--latex"), ("a.json", "--json")):
        block(here / name)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            protocols(["--checkpoints", str(tiny_run), flag, name])
        out, said = printed_sentence(stop, capsys)
        assert f"{name} cannot be written (Is a directory): name another file" in said and not out  # before any work
        if FULL.exists():
            with pytest.raises(SystemExit) as stop:
                protocols(["--checkpoints", str(tiny_run), flag, str(FULL)])
            out, said = printed_sentence(stop, capsys)
            assert "/dev/full cannot be written (No space left" in said and "Errors and their cost" in out
    (here / "file").touch()
    with pytest.raises(SystemExit) as stop:
        ensemble(["--members", str(tiny_run), "--runs", "file"])
    out, said = printed_sentence(stop, capsys)
    assert "The run directory file/digits/ensemble" in said and "Members and ensemble" in out


def test_the_zoo_too(here, capsys, monkeypatch):
    monkeypatch.setattr("reports.zoo.ARCHITECTURES", [])
    monkeypatch.setattr("reports.zoo.read_experiments", dict)
    block(here / "zoo.json")
    with pytest.raises(SystemExit) as stop:
        zoo(["--json", "zoo.json"])
    out, said = printed_sentence(stop, capsys)
    assert "zoo.json cannot be written (Is a directory)" in said and not out
    if FULL.exists():
        with pytest.raises(SystemExit) as stop:
            zoo(["--json", str(FULL)])
        out, said = printed_sentence(stop, capsys)
        assert "/dev/full cannot be written (No space left" in said and "Architectures" in out


@pytest.mark.parametrize("what", ["a file in place of the folder", "a folder in place of a copy"])
def test_a_smaller_copy_that_cannot_be_written_says_so(here, capsys, what):
    (here / "d" / "cat").mkdir(parents=True)
    (here / "d" / "cat" / "0.jpg").write_bytes(encoded(photo(20, 30)))
    if what.startswith("a file"):
        (here / "copy").touch()
    else:
        block(here / "copy" / "cat" / "0.jpg.part")
    with pytest.raises(SystemExit) as stop:
        imagenet(["resize", "d", "copy", "--workers", "1"])
    _, said = printed_sentence(stop, capsys)
    assert "copy cannot be made" in said or "0.jpg cannot be written (Is a directory): make room" in said
