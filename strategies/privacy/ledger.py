"""What a client has spent in its life, and whether it can afford another answer."""

import json
import math
from dataclasses import dataclass

from strategies.privacy.accounting import epsilon_of

_FORMAT = 1
# A budget is kept as epsilon at this delta: one client in a hundred thousand.
LEDGER_DELTA = 1e-5


class LedgerError(ValueError):
    """Bytes that are no ledger."""


@dataclass(frozen=True)
class Ledger:
    """rho: of all answers together. answers: how many were charged. last: digest (hexadecimal) of the plan that was
    answered last.
    """

    rho: float = 0.0
    answers: int = 0
    last: str = ""

    @property
    def epsilon(self) -> float:
        """What has been spent, at `LEDGER_DELTA`."""
        return epsilon_of(self.rho, LEDGER_DELTA)

    def charged(self, cost: float, plan: str) -> "Ledger":
        """Return the ledger after an answer to the plan of this digest. cost: its rho."""
        return Ledger(self.rho + cost, self.answers + 1, plan)

    def affords(self, cost: float, budget: float) -> bool:
        """Return whether an answer of this rho leaves epsilon within `budget`."""
        return epsilon_of(self.rho + cost, LEDGER_DELTA) <= budget

    def to_bytes(self) -> bytes:
        """Return everything as bytes; numbers survive exactly."""
        return json.dumps(
            {"format": _FORMAT, "rho": self.rho, "answers": self.answers, "last": self.last}, sort_keys=True
        ).encode()

    @staticmethod
    def from_bytes(raw: bytes) -> "Ledger":
        """Return what `to_bytes` wrote. Raises LedgerError: what was spent must not be forgotten by a fault."""
        try:
            record = json.loads(raw)
            rho, answers, last = record["rho"], record["answers"], record["last"]
            whole = record["format"] == _FORMAT and type(answers) is int and isinstance(last, str)
            if not whole or type(rho) is not float or not (math.isfinite(rho) and rho >= 0.0 and answers >= 0):
                raise ValueError("not a ledger")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LedgerError("the ledger of what was spent is damaged") from error
        return Ledger(rho, answers, last)
