"""YAML files that people have: other encodings, slips, and files that mean harm."""

import math

import pytest
import yaml
from jsonargparse import get_loader

from cli.literal_values import load_value
from cli.yaml_files import parse_yaml, read_yaml, write_yaml
from errors import UserError
from tests.conftest import HOME

TEXT = "trainer:\n  max_epochs: 3  # für mich\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_is_read_in_every_encoding_that_it_names(tmp_path, encoding):
    path = tmp_path / "own.yaml"
    path.write_bytes(TEXT.encode(encoding))
    assert read_yaml(path) == {"trainer": {"max_epochs": 3}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TEXT.encode("latin-1"), "line 2: the byte 0xfc is no UTF-8"),
        (TEXT.encode("utf-16-le"), "line 2: the byte 0xfc is no UTF-8"),  # without a byte order mark
        (b"\x89PNG\r\n\x1a\n", "line 1: the byte 0x89 is no UTF-8"),
        (b"a: 1\nb: \0", "line 2: the character '\\x00'"),
    ],
)
def test_a_file_in_no_encoding_of_yaml_is_named_with_the_line(tmp_path, content, said):
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match="own.yaml") as error:
        read_yaml(path)
    assert said in str(error.value)


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    for name in (".", "nowhere.yaml"):
        with pytest.raises(UserError, match="cannot be read"):
            read_yaml(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a is given twice, first in line 1"),
        ("a:\n  b: 1\n  c: 2\n  b: 1", 4, "b is given twice, first in line 2"),
        ("a:\n  - b: 1\n    b: 2", 3, "b is given twice, first in line 2"),
        ("a: {b: 1, c: {d: 1, d: 2}}", 1, "d is given twice"),
        ("a: 1\n'a': 2", 2, "a is given twice"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", 4, "<< is given twice"),
        ("? [a]\n: 1", 1, "this key is no text"),
        ("a:\n\tb: 1", 2, "a tab"),
        ("a: [1, 2", 1, "no YAML"),
        ("a: 1\n---\nb: 1", 2, "no YAML"),
        ("a: *b", 1, "no YAML (found undefined alias 'b')"),
        ("a: &a [*a]", 1, "contains it"),
        ("a: 1\nb: &b\n  c: {d: *b}", 2, "contains it"),
        ("a: !!python/object/apply:os.system [ls]", 1, "the tag !!python/object/apply:os.system is not read"),
        ("a: !secret x", 1, "the tag !secret is not read"),
        ("a: !!binary aGk=", 1, "the tag !!binary is not read"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_line(text, line, said):
    with pytest.raises(UserError) as error:
        parse_yaml(text, "own.yaml")
    assert f"own.yaml, line {line}: " in str(error.value) and said in str(error.value)


@pytest.mark.parametrize("text", ["", "\n\n", "# trainer: {max_epochs: 3}\n"])
def test_an_empty_file_is_refused(text):
    with pytest.raises(UserError, match="own.yaml is empty"):
        parse_yaml(text, "own.yaml")


@pytest.mark.parametrize("bracket", ["[", "{a: ", "- "])
def test_what_is_nested_too_deeply_is_refused(bracket):
    with pytest.raises(UserError, match="own.yaml is nested too deeply"):
        parse_yaml(bracket * 2_000, "own.yaml")


def test_aliases_that_multiply_are_refused():
    values = ["x", "*a", "*b", "*c", "*d", "*e"]
    lists = [f"{name}: &{name} [{', '.join([value] * 10)}]" for name, value in zip("abcdef", values, strict=True)]
    with pytest.raises(UserError, match="line 5: aliases make 111,111 values"):
        parse_yaml("\n".join(lists), "own.yaml")
    assert len(parse_yaml("\n".join(lists[:4]), "own.yaml")["d"]) == 10


def test_a_tag_that_its_value_contradicts_is_refused():
    for text in ("a: !!int x", "a: !!float x", "a: !!bool x", "a: !!int ''", "a: !!float ''"):
        with pytest.raises(UserError, match="own.yaml: a tag and its value disagree"):
            parse_yaml(text, "own.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5.0e-4", 0.0005),
        ("1.0e5", 100000.0),
        ("-1_0.5E+5", -1050000.0),
        ("1e5x", "1e5x"),
        ("yes", True),
        ("off", False),
        ("null", None),
        ("2020-01-01", "2020-01-01"),
        ("2020-13-45", "2020-13-45"),
        ("1e-3x", "1e-3x"),
    ],
)
def test_plain_values_are_what_a_config_means_by_them(text, value):
    assert parse_yaml(f"a: {text}", "own.yaml") == {"a": value}


NUMBERS = """1 010 0x1f 0b1 0o7 1:30 1_0 1. 1.5 .5 1e5 1.e5 1_0e-5 +1.5E+5 1.5e .inf -.inf inf nan yes No on y TRUE ~
Null 2001-01-01 12:30:45 1:2.5"""


@pytest.mark.parametrize("text", NUMBERS.split())
def test_a_value_is_the_same_in_a_config_and_in_a_flag(text):
    for value in (text, f"-{text}"):
        assert repr(parse_yaml(f"a: {value}", "own.yaml")) == repr(load_value(f"a: {value}"))


def test_a_flag_whose_tag_its_value_contradicts_is_text():
    for text in ("!!bool x", "!!int ''", "{a: !!bool x}", "!!timestamp x", "? " * 3_000):
        with pytest.raises((yaml.YAMLError, UserError)):
            load_value(text)


def test_a_merged_mapping_may_be_changed():
    assert parse_yaml("a: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}", "own.yaml")["b"] == {"x": 2, "y": 1}


def test_every_yaml_of_the_repository_is_read():
    paths = [*HOME.glob("configs/**/*.yaml"), *HOME.glob("reports/papers/*.yaml")]
    assert len(paths) > 60 and all(read_yaml(path) for path in paths)


ODD_NUMBERS = [math.inf, -math.inf, 1e-5, 1e22, -0.0, 5e-324, 0.1 + 0.2, 10**30, True, None, [], {}, [[]], ()]
ODD_TEXTS = ["inf", ".inf", "1e-5", "yes", "null", "~", "", "2020-01-01", "0o17", "017", "1_000", "12:30:45", "<<", "=",
             "{a: 1}", "*a", "- a", "a: b", "# a", " a ", "'", '"', "\\n", "a\nb\n", "\t", "\x85", "\u2028", "\ufeff",
             "\x00", "\x1b", "ü", "🦔", "x" * 5000, "two words " * 500]  # fmt: skip


@pytest.mark.parametrize("read", [lambda text: parse_yaml(text, "a text"), get_loader("yaml"), load_value])
def test_a_config_is_written_so_that_it_is_read_back_equal(read):
    content = {"numbers": ODD_NUMBERS, "texts": ODD_TEXTS, "keys": dict.fromkeys(ODD_TEXTS, 1), 3: 4, 0.5: 1e-7}
    content["shared"] = content["again"] = {"a": [1]}
    text = write_yaml(content)
    assert text.isascii() and "\n" not in text and text.startswith("{")
    assert repr(read(text)) == repr({**content, "numbers": [*ODD_NUMBERS[:-1], []]})  # which tells 1 from 1.0 and True
    assert math.isnan(read(write_yaml({"a": math.nan}))["a"])


def test_a_text_that_is_no_unicode_is_written_and_read_back():
    content = {"\udcff": "\ud800", "inf": math.inf, "text": "1e-5"}
    assert parse_yaml(write_yaml(content), "a text") == load_value(write_yaml(content)) == content
