"""How many attackers a robust reduction is told to bear: a share of the cohort, or a number."""

import math

from personalization.errors import UserError

DEFAULT_ATTACKERS = 0.2


def check_attackers(name: str, attackers: float, *, below: float = 0.5) -> None:
    """Raise UserError unless `attackers` is a share in [0, below) or a whole number; `name` is the reduction's."""
    if math.isfinite(attackers) and (0.0 <= attackers < below or (attackers >= 1.0 and attackers == int(attackers))):
        return
    raise UserError(
        f"{name}: attackers={attackers:g}: expected a share of the cohort below {below:g}, which is the most that "
        f"{name} bears, or a whole number of clients"
    )


def attacker_count(attackers: float, clients: int) -> int:
    """Return the number of attackers among `clients`: a share below 1 is rounded down, a whole number is itself."""
    # 0.29 * 100 is 28.999...: a share that is a whole number but for rounding is that number.
    return math.floor(attackers * clients + 1e-9) if attackers < 1.0 else int(attackers)


def require_clients(spec: str, clients: int, *, attackers: int, fewest: int) -> None:
    """Raise UserError if `clients` are fewer than the `fewest` that `spec` needs to bear `attackers`."""
    if clients < fewest:
        raise UserError(
            f"{spec}: needs {fewest} clients or more to bear {attackers} attackers, there are {clients}; ask more "
            "clients or lower attackers="
        )
