"""Values of the command line, which jsonargparse reads as YAML."""

import os
import re
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from cli.yaml_files import check_value

yaml_load = get_loader("yaml")


def read_names_literally() -> None:
    """Let jsonargparse read the names of files and classes as they are, whatever they look like in YAML."""
    set_loader("yaml", load_value, (yaml.YAMLError, UnicodeEncodeError))


def load_value(text: str) -> Any:
    """The value of a text in YAML.

    The name of a file or folder that exists stays text, where YAML would make a mapping, a list or null of it, such as
    `a: b.jpg`, `[1].jpg` and `#3.jpg`.

    Raises:
        yaml.YAMLError, UnicodeEncodeError: if it is no YAML; jsonargparse then takes it for text.
        UserError: see `check_value`.
    """
    check_value(text)
    # libyaml refuses the escapes of bytes that are no UTF-8, and those of JSON for an emoji, in two halves
    value = yaml.load(text, JoiningLoader) if "\\ud" in text.lower() else yaml_load(text)
    is_comment = value is None and text.startswith("#")
    return text if (is_comment or isinstance(value, dict | list)) and os.path.lexists(text) else value


class JoiningLoader(yaml.SafeLoader):
    """PyYAML's loader in Python, which joins the two escapes that JSON writes for an emoji."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        text = super().construct_scalar(node)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


# As jsonargparse's own loader: YAML 1.1 wants 1.0e-3
JoiningLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)
