"""Text as jsonargparse reads it: a value of the command line or of a config may hold a dict or a list in YAML.

The command line reads with `read_value`, and what a checkpoint holds is looked at with the same function before: no
text is plain for the one and a config for the other.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from jsonargparse import get_loader

yaml_load = get_loader("yaml")  # jsonargparse's own, which `cli.literal_values` replaces
# 1e-3 is a number for jsonargparse; YAML 1.1 wants 1.0e-3, and 1.0e+3
FLOAT = "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$", re.ASCII), list("-+0123456789")


class JoiningLoader(yaml.SafeLoader):
    """PyYAML's loader in Python, which joins the two escapes that JSON writes for an emoji."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        text = super().construct_scalar(node)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


JoiningLoader.add_implicit_resolver(*FLOAT)


def read_value(text: str) -> Any:
    """The value of a text in YAML, whatever files there are.

    Raises:
        yaml.YAMLError: if it is no YAML, of whichever kind the loader's error is.
    """
    with as_yaml_error():
        # libyaml refuses the escapes of bytes that are no UTF-8, and those of JSON for an emoji, in two halves
        return yaml.load(text, JoiningLoader) if "\\ud" in text.lower() else yaml_load(text)


def read_nested(text: str) -> dict[Any, Any] | list[Any] | None:
    """The dict or list that a text holds; None for plain text.

    Raises:
        yaml.YAMLError: if it cannot be read: it may be more than plain text.
    """
    with as_yaml_error():
        yaml.compose(text, yaml.SafeLoader)  # libyaml crashes on what is nested too deeply
    value = read_value(text)
    return value if isinstance(value, dict | list) else None


@contextmanager
def as_yaml_error() -> Iterator[None]:
    """Raise the error for a tag that its value contradicts (!!bool x), and others, as one of YAML."""
    try:
        yield
    except yaml.YAMLError:
        raise
    except Exception as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error
