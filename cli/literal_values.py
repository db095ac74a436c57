"""Values of the command line, which jsonargparse reads as YAML."""

import os
from typing import Any

import yaml
from jsonargparse import set_loader, set_parsing_settings

from checkpointing.nested_text import read_value
from cli.yaml_files import check_value


def read_names_literally() -> None:
    """Let jsonargparse read the names of files and classes as they are, whatever they look like in YAML.

    It opens no addresses either, such as http:// and local://, as Lightning lets it.
    """
    set_loader("yaml", load_value, (yaml.YAMLError,))
    set_parsing_settings(config_read_mode_fsspec_enabled=False)


def load_value(text: str) -> Any:
    """The value of a text in YAML.

    The name of a file or folder that exists stays text, where YAML would make a mapping, a list or null of it, such as
    `a: b.jpg`, `[1].jpg` and `#3.jpg`.

    Raises:
        yaml.YAMLError: if it is no YAML; jsonargparse then takes it for text.
        UserError: see `check_value`.
    """
    check_value(text)
    value = read_value(text)
    is_comment = value is None and text.startswith("#")
    return text if (is_comment or isinstance(value, dict | list)) and os.path.lexists(text) else value
