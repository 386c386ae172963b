"""Which versions computed a result."""

import platform
from importlib.metadata import version

_PACKAGES = ("fedsieve", "flwr", "numpy", "torch", "transformers")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide results."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
