"""The shape of the package: everything is installed, examples run, imports point down."""

import ast
import doctest
import importlib
import importlib.resources
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("forecast", "models", "codec", "callbacks", "experiments")
FILES = [
    path.relative_to(ROOT)
    for folder in (*ORDER, "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "__pycache__" not in path.parts
]
NEEDS = {Path("codec/federated/flower.py"): "flwr"}  # of extras with an environment of their own
USES_LIGHTNING = ("callbacks", "experiments")


def _module_name(path: Path) -> str:
    return ".".join(("deadreckon", *path.with_suffix("").parts)).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_source_file_is_installed_and_its_examples_run(path: Path) -> None:
    """Each source file can be imported by its installed name, and its docstring examples give what they say."""
    if path.name == "__main__.py":
        pytest.skip("importing it runs the command")
    if path in NEEDS:
        pytest.importorskip(NEEDS[path], reason="needs an extra that is not installed here")
    module = importlib.import_module(_module_name(path))
    if ">>>" in (ROOT / path).read_text():  # the search is what takes long
        assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@cache
def _imports(path: Path) -> list[str]:
    """Absolute names of the modules that a file imports, those under `TYPE_CHECKING` too."""
    package = ("deadreckon", *path.parent.parts)
    found: list[str] = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            found.append(".".join([*base, *([node.module] if node.module else [])]))
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path: Path) -> None:
    """No file imports from a folder above its own, and only callbacks and experiments import Lightning."""
    own = path.parts[0]
    for name in _imports(path):
        parts = name.split(".")
        assert parts[0] not in (*ORDER, "configs"), f"{path} imports {name} by its folder name"
        if parts[0] == "deadreckon" and len(parts) > 1 and parts[1] in ORDER and own in ORDER:
            assert ORDER.index(parts[1]) <= ORDER.index(own), f"{path} imports {name}, which lies above it"
        if parts[0] in ("lightning", "pytorch_lightning"):
            assert own in USES_LIGHTNING, f"{path} imports Lightning"


def test_every_folder_is_typed_and_presets_are_installed() -> None:
    """Type information and YAML presets are found in the installed package."""
    for folder in ORDER:
        assert importlib.resources.files(f"deadreckon.{folder}").joinpath("py.typed").is_file()
    presets = {path.name for path in importlib.resources.files("deadreckon.configs").iterdir()}
    assert {path.name for path in (ROOT / "configs").glob("*.yaml")} <= presets


def test_no_circle_between_files() -> None:
    """The import graph of the package has no circle."""
    graph: dict[str, set[str]] = {}
    names = {_module_name(path): path for path in FILES}
    for name, path in names.items():
        if path.name == "__init__.py":
            continue
        graph[name] = {target for target in _imports(path) if target in names and names[target].name != "__init__.py"}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for target in graph[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())
