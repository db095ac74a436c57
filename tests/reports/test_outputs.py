"""The files that every report writes on request."""

import argparse
import json
import os
from pathlib import Path

import altair
import pytest
from PIL import Image as Picture

from errors import UserError
from reports import plots
from reports.html_page import Figure, Section, Table
from reports.outputs import add_output_flags, check_outputs, file_name, write_outputs


def parse(*words):
    parser = argparse.ArgumentParser()
    add_output_flags(parser)
    return parser.parse_args([str(word) for word in words])


def chart():
    values = altair.Data(values=[{"x": 1, "y": 3}, {"x": 2, "y": float("nan")}, {"x": 3, "y": 4}])
    lines = altair.Chart(values, width="container").mark_line(color=plots.INK).encode(x="x:Q", y="y:Q")
    return plots.styled(lines)


def test_all_that_is_asked_for_is_written(here, capsys):
    table = Table("Errors", ["<net", "error"], [["a_b", "1"]])
    sections = [Section("One", [table, Figure("Error: against cost", chart()), Figure("Error: against cost", chart())])]
    flags = [word for name in ("html", "markdown", "latex", "json") for word in (f"--{name}", f"r.{name}")]
    given = parse(*flags, "--svg", "figures")
    check_outputs(given)
    assert not list(here.iterdir())
    write_outputs(given, "A report", sections, {"error": float("nan"), "rows": [1]}, "A is better.")
    assert json.loads(Path("r.json").read_text()) == {"error": None, "rows": [1]}
    for name in ("html", "markdown", "latex"):
        text = Path(f"r.{name}").read_text()
        assert "A report" in text and "A is better." in text and "Errors" in text
        assert (r"a\_b" if name == "latex" else "a_b") in text
    names = {"error-against-cost.svg", "error-against-cost.png", "error-against-cost-2.svg", "error-against-cost-2.png"}
    assert set(os.listdir("figures")) == names
    svg = Path("figures/error-against-cost.svg").read_text()
    assert svg.startswith("<svg") and "currentColor" not in svg and 'fill="white"' in svg
    with Picture.open("figures/error-against-cost.png") as picture:
        assert picture.width > 1200 and picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert capsys.readouterr().out.count("Wrote ") == 8
    given.svg = None  # drawing takes a while
    write_outputs(given, "A report", sections, {}, "A is better.")  # over the files that are there


def test_nothing_is_written_unless_asked(here):
    given = parse()
    check_outputs(given)
    write_outputs(given, "A report", [Section("One", ["Text."])], {})
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--html", "no/where.html"], "no/where.html cannot be written: there is no folder .*no.$"),
        (["--latex", "folder"], "folder cannot be written \\(Is a directory\\): name another file.$"),
        (["--json", "a", "--markdown", "./a"], "--markdown and --json both name a: give each its own file.$"),
        (["--json", "link", "--markdown", "a"], "--markdown and --json both name a: give each its own file.$"),
        (["--html", "folder/x", "--svg", "folder/x"], "--html and --svg both name folder/x: give each its own file.$"),
        (["--svg", "file"], "No figures can be written into file: it is a file. Name another folder.$"),
        (["--svg", "no/where"], "No figures can be written into no/where: there is no folder .*no. Name another"),
        (["--svg", "file/x"], "No figures can be written into file/x: there is no folder .*file. Name another"),
    ],
)
def test_what_cannot_be_written_is_said_before_any_work(here, words, sentence):
    (here / "folder").mkdir()
    (here / "file").touch()
    (here / "link").symlink_to("a")
    with pytest.raises(UserError, match=sentence):
        check_outputs(parse(*words))
    assert {path.name for path in here.iterdir()} == {"folder", "file", "link"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_folder_that_is_locked(here):
    (here / "folder").mkdir(mode=0o500)
    for words in (["--html", "folder/x"], ["--svg", "folder"], ["--svg", "folder/x"]):
        with pytest.raises(UserError, match="Permission denied"):
            check_outputs(parse(*words))


def test_names_of_figures():
    assert file_name("Error (top-1), with 95 % intervals", []) == "error-top-1-with-95-intervals"
    assert file_name("A", ["a", "a-2"]) == "a-3" and file_name("a 2", ["a-2"]) == "a-2-2"
    assert file_name("../..", []) == "figure" and file_name("", ["figure"]) == "figure-2"
    long = file_name("word " * 40, [])
    assert 50 < len(long) <= 60 and long.endswith("word")
    assert len(file_name("x" * 300, [])) == 60
