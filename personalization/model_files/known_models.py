"""Models that have a name of their own beside folders and hub names: they are converted once into the user's cache."""

import os
from pathlib import Path

from personalization.errors import UserError

SMOLLM2 = "smollm2"


def cache_folder() -> Path:
    """Return fedsieve's folder in the user's cache: below XDG_CACHE_HOME, or ~/.cache where it is not set."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "fedsieve"


def smollm2_place() -> Path:
    """Return where the converted SmolLM2 lies unless it is told otherwise."""
    return cache_folder() / "smollm2-135m-instruct"


def smollm2_folder() -> Path:
    """Return the folder of the converted SmolLM2, in the user's cache. Raises UserError if it is not there."""
    folder = smollm2_place()
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no SmolLM2 here yet; run: make llm")
    return folder


def named_model(model: str) -> str:
    """Return what `load_backbone` takes, wherever it is called: a folder's absolute path, or a name on the hub.

    Raises UserError for a known model that is not converted yet.
    """
    if Path(model).is_dir():
        return str(Path(model).absolute())
    return str(smollm2_folder()) if model == SMOLLM2 else model
