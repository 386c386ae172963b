"""A cell of a comparison: one method on one scenario with one seed, and the hash that its result is kept under."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

CELL_FORMAT = 7
ARM_PREFIX = "arm:"
# What a scenario is called changes nothing that a cell computes.
_NAMES = frozenset({"name", "description"})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run.

    method: the specification of a strategy, or `arm:` and the name of a reference arm. scenario: `Scenario.to_dict()`
    with all sweeps applied. seed: decides the data's partition, the roles of the clients and all other random numbers.
    """

    method: str
    scenario: Mapping[str, Any]
    seed: int

    @property
    def key(self) -> str:
        """SHA-256 in hexadecimal over everything that decides the result, the versions of cells and of fedsieve too."""
        record = {**self.to_record(), "scenario": _without_names(self.scenario)}
        return _digest({"cell_format": CELL_FORMAT, "fedsieve": version("fedsieve"), **record})

    @property
    def fleet_key(self) -> str:
        """The same for all methods on one fleet: what is loaded for one of them serves the others."""
        return _digest({"scenario": _without_names(self.scenario), "seed": self.seed})

    def to_record(self) -> dict[str, Any]:
        """Return the cell as what JSON can hold."""
        return {"method": self.method, "scenario": dict(self.scenario), "seed": self.seed}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "Cell":
        """Return the cell that `to_record` described. Raises KeyError if something is missing."""
        return Cell(method=record["method"], scenario=record["scenario"], seed=record["seed"])


def method_kind(method: str) -> Literal["strategy", "arm"]:
    """Return which of the two a method is."""
    return "arm" if method.startswith(ARM_PREFIX) else "strategy"


def _without_names(scenario: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scenario.items() if key not in _NAMES}


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
