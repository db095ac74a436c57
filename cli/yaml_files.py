"""YAML, read strictly: mistakes that YAML itself passes over are refused with file and line; and written."""

import codecs
import math
import re
from pathlib import Path
from typing import Any

import yaml

from checkpointing.nested_text import FLOAT
from errors import UserError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = {TAG + name for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge")}
MAX_VALUES = 100_000  # of one file, with its aliases written out; configs/base.yaml has 60
LONGEST_NUMBER = 1000  # digits, in any base; Python prints none of 4,301
NESTING = re.compile(r"[{\[\n]|- |: |\? ")  # what every nested value holds


class Loader(yaml.SafeLoader):
    """PyYAML's loader of plain values, without dates. The one in C crashes on text that is nested too deeply."""


Loader.add_constructor(f"{TAG}timestamp", yaml.SafeLoader.construct_yaml_str)
Loader.add_implicit_resolver(*FLOAT)


class Dumper(yaml.SafeDumper):
    """PyYAML's writer, with every text and key in double quotes, and without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(f"{TAG}str", text, style='"'))


def write_yaml(content: Any) -> str:
    """A config, or a part of one, in one line of YAML that begins with a brace or bracket, and is read back equal.

    JSON would not do: YAML reads its Infinity, NaN and 1e-05 as text.
    """
    return yaml.dump(content, Dumper=Dumper, default_flow_style=True, sort_keys=False, width=math.inf).rstrip("\n")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, see `parse_yaml`."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in the encoding that its byte order mark names.

    Raises:
        UserError: for a file that cannot be read, and for one in another encoding.
    """
    try:
        content = path.read_bytes()
        encodings = [encoding for mark, encoding in BYTE_ORDER_MARKS.items() if content.startswith(mark)]
        return content.decode(encodings[0] if encodings else "utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a YAML file.") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise UserError(f"{path}, line {line}: the byte 0x{byte:02x} is no UTF-8: save the file as UTF-8.") from error


def parse_yaml(text: str, name: str) -> Any:
    """The content of a YAML text: mappings, lists, text, numbers, booleans and null.

    Args:
        text: one YAML document.
        name: of the file, for errors.

    Raises:
        UserError: for a text that is empty or no YAML, a key given twice in a mapping, an anchor that contains itself,
            aliases that multiply, and tags that ask for more than plain values.
    """
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{name} is empty, or holds only comments: leave it out.")
        count_values(node, name, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        reason = f"this is no YAML ({error.problem})"
        if "'\\t'" in str(error.problem):
            reason = "a tab stands here: YAML takes spaces"
        raise UserError(f"{locate(error.problem_mark, name)}: {reason}.") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"{name}, line {line}: the character {chr(error.character)!r} is none of a text file."
        ) from error
    except RecursionError as error:
        raise UserError(f"{name} is nested too deeply to be read.") from error
    except UserError:
        raise
    except (LookupError, ValueError) as error:  # of the constructors of !!bool, !!int and !!float
        raise UserError(f"{name}: a tag and its value disagree ({error}).") from error


def check_value(text: str) -> None:
    """Check the value of a flag, or a file that a config names, as `parse_yaml` does.

    Raises:
        UserError: as `parse_yaml`, but for a text that is no YAML: it may be meant as it stands.
    """
    try:
        needs_look = NESTING.search(text) or len(text) > LONGEST_NUMBER
        node = Loader(text).get_single_node() if needs_look else None
    except yaml.YAMLError:
        return
    except RecursionError as error:
        raise UserError(f"A value that begins with {text[:20]!r} is nested too deeply to be read.") from error
    if node is not None:
        count_values(node, f"a value that begins with {text[:20]!r}", {})


def locate(mark: yaml.Mark, name: str) -> str:
    """File and line of a position in it."""
    return f"{name}, line {mark.line + 1}"


def count_values(node: yaml.Node, name: str, counts: dict[yaml.Node, int | None]) -> int:
    """The number of values in a node, with the aliases written out.

    Args:
        node: of the YAML graph; an alias is the node that it stands for.
        name: of the file.
        counts: of the nodes that were counted; None for those that are being counted.

    Raises:
        UserError: see `parse_yaml`.
    """
    if node in counts:
        if (count := counts[node]) is None:
            raise UserError(f"{locate(node.start_mark, name)}: the anchor stands for something that contains it.")
        return count
    counts[node] = None
    if node.tag not in PLAIN_TAGS:
        tag = node.tag.replace(TAG, "!!")
        raise UserError(f"{locate(node.start_mark, name)}: the tag {tag} is not read: write plain values.")
    if isinstance(node, yaml.MappingNode):
        refuse_repeated_keys(node, name)
    elif node.tag == f"{TAG}int" and len(node.value) > LONGEST_NUMBER:
        raise UserError(f"{locate(node.start_mark, name)}: this number has {len(node.value):,} digits: give a shorter.")
    parts = [] if isinstance(node, yaml.ScalarNode) else node.value
    children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
    counts[node] = total = 1 + sum(count_values(child, name, counts) for child in children)
    if total > MAX_VALUES:
        raise UserError(f"{locate(node.start_mark, name)}: aliases make {total:,} values of this: write it without.")
    return total


def refuse_repeated_keys(node: yaml.MappingNode, name: str) -> None:
    """Refuse a mapping that has a key twice, of which YAML would keep the last."""
    first: dict[str, yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{locate(key.start_mark, name)}: this key is no text: write `name: value`.")
        if key.value in first:
            raise UserError(
                f"{locate(key.start_mark, name)}: {key.value} is given twice, first in line "
                f"{first[key.value].start_mark.line + 1}: write it once, for YAML would drop the first."
            )
        first[key.value] = key
