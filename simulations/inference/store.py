"""Arrays that took long to make, kept in a folder: whole or not at all, and without pickle."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.system.files import write_atomically
from simulations.inference.settings import InferenceSettings

# What a recording depends on; the numbers of targets and shadow clients only say how many there are.
_DECISIVE = ("warm_up", "pool", "samples", "classes_per_client", "probes", "budget", "model", "data", "seed")


class Store:
    """One .npz for each name, in the folder of the settings that decide what is in it."""

    def __init__(self, settings: InferenceSettings) -> None:
        """Take the settings; without a cache nothing is kept."""
        self._folder: Path | None = None if settings.cache is None else settings.cache / recording_key(settings)

    def keep(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the array `name`: the one that is there, or what `make` returns, and then it is there."""
        path = None if self._folder is None else self._folder / f"{name}.npz"
        if path is not None and path.is_file():
            with np.load(path) as stored:
                return np.asarray(stored["values"])
        values = make()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            packed = io.BytesIO()
            np.savez_compressed(packed, values=values)
            write_atomically(path, packed.getvalue(), mode=0o600)
        return values


def recording_key(settings: InferenceSettings) -> str:
    """Return the name of the folder in which recordings of these settings are kept."""
    decisive = {name: str(value) for name, value in asdict(settings).items() if name in _DECISIVE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
