"""Imports go one way, and what a device needs is free of what only a fleet needs."""

import ast
import re
from collections.abc import Iterator
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


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_the_reader_sees_every_form_of_import() -> None:
    source = "import a.b, c\nfrom d.e import f\ndef g():\n    from h import i\n    importlib.import_module('j.k')\n"
    assert set(imported(source)) == {"a", "c", "d", "h", "j"}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    assert modules(package), f"{package} has modules"
    for path in modules(package):
        found = set(imported(path.read_text())) & OURS - {package}
        assert found <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {', '.join(found - ALLOWED[package])}"


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
