"""Packages that are not always installed, and what needs them."""

import importlib.util

from personalization.errors import UserError


def check_adapters() -> None:
    """Raise UserError where the library that makes low-rank adapters is not installed. Imports nothing."""
    if importlib.util.find_spec("peft") is None:
        raise UserError("adapters need the library peft: pip install 'fedsieve[adapters]', or train without")
