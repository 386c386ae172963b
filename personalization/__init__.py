"""What one device does: sense, recover, allocate, prune, cut and save a personal model. No Flower, no network."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personalization.errors import UserError
    from personalization.personalize import Personalization, personalize
    from personalization.settings import PersonalizationSettings

__all__ = ["Personalization", "PersonalizationSettings", "UserError", "personalize"]


class _Package(ModuleType):
    """This package. Python puts a submodule into its package under its name; `personalize` is to stay the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "personalize" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for: torch and transformers take seconds."""
    if name == "UserError":
        from personalization.errors import UserError

        return UserError
    if name == "PersonalizationSettings":
        from personalization.settings import PersonalizationSettings

        return PersonalizationSettings
    if name in ("Personalization", "personalize"):
        import importlib

        return getattr(importlib.import_module("personalization.personalize"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
