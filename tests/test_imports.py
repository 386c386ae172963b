"""Imports go one way, and what a device needs is free of what only a fleet needs."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = frozenset(
    {"benchmarks", "client", "deployment", "fedsieve", "personalization", "server", "simulations", "strategies"}
)
# What a package may import of ours, beside itself.
ALLOWED: dict[str, frozenset[str]] = {
    "personalization": frozenset(),
    "strategies": frozenset({"personalization"}),
    "client": frozenset({"personalization", "strategies"}),
    "server": frozenset({"personalization", "strategies"}),
    "deployment": frozenset({"client", "personalization", "server", "strategies"}),
    "simulations": frozenset({"client", "personalization", "server", "strategies"}),
}


def imported(source: str) -> Iterator[str]:
    """Top-level names of all packages that a module imports, wherever in it; strings given to import_module too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0] if node.level == 0 else "."
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant))


def parts_imported(source: str, package: str) -> Iterator[str]:
    """What stands behind the name of `package` in the imports of a module: its folders and files."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            yield from (name[1] for name in names if name[0] == package and len(name) > 1)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_the_reader_sees_every_form_of_import() -> None:
    source = "import a.b, c\nfrom d.e import f\ndef g():\n    from h import i\n    importlib.import_module('j.k')\n"
    assert set(imported(source)) == {"a", "c", "d", "h", "j"}
    assert set(parts_imported("import a.b, a\nfrom a import c\nfrom a.d.e import f\nfrom g.a import h", "a")) == {
        "b",
        "c",
        "d",
    }


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    assert modules(package), f"{package} has modules"
    for path in modules(package):
        found = set(imported(path.read_text())) & OURS - {package}
        assert found <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {', '.join(found - ALLOWED[package])}"


@pytest.mark.parametrize("package", ["client", "deployment", "personalization", "server", "strategies"])
def test_folders_of_a_package_build_on_each_other_in_one_direction(package: str) -> None:
    needs: dict[str, set[str]] = defaultdict(set)
    for path in modules(package):
        part = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        needs[part] |= set(parts_imported(path.read_text(), package)) - {part}
    # Raises CycleError.
    assert set(TopologicalSorter(needs).static_order()) >= needs.keys() > {"__init__"}


def test_a_device_needs_no_flower_and_no_network_package() -> None:
    for path in modules("personalization"):
        found = set(imported(path.read_text()))
        assert not found & {"flwr", "ray", "requests", "urllib", "socket", "http"}, path.relative_to(ROOT)


def test_nothing_unpickles() -> None:
    for package in OURS - {"fedsieve"}:
        for path in modules(package):
            source = path.read_text()
            assert not set(imported(source)) & {"pickle", "cloudpickle", "dill", "joblib"}, path.relative_to(ROOT)
            assert "allow_pickle=True" not in source, path.relative_to(ROOT)
            assert not re.search(r"(?<!safetensors\.)torch\.load\(", source), path.relative_to(ROOT)
