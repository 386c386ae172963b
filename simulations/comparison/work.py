"""Compute one cell, wherever it runs, and turn whatever it raises into an outcome."""

import json
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from personalization.errors import UserError
from simulations.comparison.cells import Cell
from simulations.comparison.processes import find


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a cell: a result, or one line about what went wrong and, for people, the whole of it."""

    key: str
    result: dict[str, Any] | None = None
    error: str = ""
    trace: str = ""

    def to_bytes(self) -> bytes:
        """Return the outcome as JSON. Raises ValueError or TypeError for a result that JSON can't hold."""
        return json.dumps(asdict(self), allow_nan=False).encode()

    @staticmethod
    def from_bytes(data: bytes) -> "Outcome":
        """Return the outcome that `to_bytes` wrote."""
        return Outcome(**json.loads(data))


def compute(cell: Cell, folder: Path, *, run_cell: str) -> bytes:
    """Return the outcome of a cell as JSON; never raises an Exception.

    folder: an empty folder for what the run writes. run_cell: `module:name` of the function that is called with the
    cell and the folder.
    """
    try:
        return Outcome(key=cell.key, result=find(run_cell)(cell, folder)).to_bytes()
    except Exception as error:
        return failure(cell, error).to_bytes()


def failure(cell: Cell, error: Exception) -> Outcome:
    """Return the outcome of a cell that raised: a user's mistake in its own words, anything else with its type."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return Outcome(key=cell.key, error=" ".join(text.split()), trace="".join(traceback.format_exception(error)))
