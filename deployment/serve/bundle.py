"""The app that a run consists of, made from the packages that are installed: a checkout and a wheel give the same."""

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from server.settings import ConfigValue

PACKAGES = ("client", "personalization", "server", "strategies")
_NAME = "fedsieve"


def build_bundle(config: Mapping[str, ConfigValue]) -> bytes:
    """Return Flower's app bundle (FAB) with `config` as the run configuration. The same input gives the same bytes."""
    from flwr.cli.build import build_fab_from_files

    bundle, _ = build_fab_from_files({"pyproject.toml": _project(config).encode(), **source_files()})
    return bundle


def source_files() -> dict[str, Path]:
    """Return the Python files of the packages that run on server and devices, by their path in the bundle."""
    files: dict[str, Path] = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        root = Path(next(iter(spec.submodule_search_locations)))
        files |= {f"{package}/{path.relative_to(root).as_posix()}": path for path in root.rglob("*.py")}
    return dict(sorted(files.items()))


def app_version() -> str:
    """Return the version of fedsieve, 0.0.0 where it is not installed but only on the path."""
    try:
        return importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"


def _project(config: Mapping[str, ConfigValue]) -> str:
    # JSON texts, numbers and booleans are TOML's, too.
    values = "\n".join(f"{key} = {json.dumps(value)}" for key, value in config.items())
    return f"""[project]
name = "{_NAME}"
version = "{app_version()}"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "{_NAME}"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
{values}
"""
