"""Packages that are not always installed, what needs them, and how to get them."""

import importlib.util

from personalization.errors import UserError


def install(extra: str) -> str:
    """Return what to do for the packages of an extra. By name alone, an index would give another's package, or none."""
    return f"pip install '.[{extra}]' in a checkout of fedsieve"


def check_adapters() -> None:
    """Raise UserError where the library that makes low-rank adapters is not installed. Imports nothing."""
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"adapters need the library peft: {install('adapters')}, or train without")
