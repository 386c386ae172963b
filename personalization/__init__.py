"""What one device does: sense, recover, allocate, prune, cut and save a personal model. No Flower, no network."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personalization.errors import UserError
    from personalization.pipeline import Personalization, personalize
    from personalization.settings import PersonalizationSettings

__all__ = ["Personalization", "PersonalizationSettings", "UserError", "personalize"]

_HOMES = {
    "Personalization": "personalization.pipeline",
    "PersonalizationSettings": "personalization.settings",
    "UserError": "personalization.errors",
    "personalize": "personalization.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for: torch and transformers take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
