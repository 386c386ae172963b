"""What one device does: sense, recover, allocate, prune, cut and save a personal model. No Flower, no network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personalization.errors import UserError
    from personalization.personalize import Personalization, personalize
    from personalization.settings import PersonalizationSettings

__all__ = ["Personalization", "PersonalizationSettings", "UserError", "personalize"]


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
