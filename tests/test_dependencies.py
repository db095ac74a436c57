"""pyproject.toml declares what the code imports, and requirements.lock pins what it declares."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain

from tests.conftest import HOME

PYPROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())


def normalize(name: str) -> str:
    """A distribution's name as the package index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared_in(requirements: list[str]) -> set[str]:
    return {normalize(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


DEPENDENCIES = declared_in(PYPROJECT["project"]["dependencies"])
EXTRAS = declared_in(list(chain(*PYPROJECT["project"]["optional-dependencies"].values())))
DEV = declared_in(PYPROJECT["dependency-groups"]["dev"])


def imported_by(*patterns: str) -> dict[str, str]:
    """Distributions that the tracked files import, each with one of these files."""
    listing = subprocess.run(["git", "ls-files", *patterns], cwd=HOME, capture_output=True, text=True, check=True)
    paths = [HOME / name for name in listing.stdout.split() if (HOME / name).is_file()]
    own = {path.relative_to(HOME).parts[0].removesuffix(".py") for path in paths} | set(sys.stdlib_module_names)
    distributions = packages_distributions()
    found: dict[str, str] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for module in {name.split(".")[0] for name in names} - own:
                names_of_module = list(map(normalize, distributions.get(module, [module])))
                declared = [name for name in names_of_module if name in DEPENDENCIES]  # several share google
                found[(declared or names_of_module)[0]] = str(path.relative_to(HOME))
    return found


def test_every_imported_package_is_declared():
    code, tests = imported_by("*.py", ":!tests"), imported_by("*.py")
    assert {"torch", "lightning", "scikit-learn", "pillow"} <= code.keys() and "pytest" in tests
    assert {name: path for name, path in code.items() if name not in DEPENDENCIES | EXTRAS} == {}
    assert EXTRAS <= DEV  # so that tests run them
    assert {name: path for name, path in tests.items() if name not in DEPENDENCIES | DEV} == {}


def test_every_declared_package_is_imported():
    """But for what Altair calls to write SVG and PNG."""
    assert DEPENDENCIES - imported_by("*.py", ":!tests").keys() <= {"vl-convert-python"}


def test_every_dependency_has_a_lower_bound():
    for requirement in PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]:
        assert re.fullmatch(r"[\w.-]+(\[\w+\])?>=\d[\d.]*(,<\d[\d.]*)?", requirement), requirement


def test_the_lock_pins_every_dependency():
    pinned = re.findall(r"^([a-z0-9-]+)==", (HOME / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert set(pinned) >= DEPENDENCIES | DEV
