"""What simulated devices are willing to give away in their lives, and how many sat out because they had."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from client.data import ConfigValue
from client.node_file import EPSILON_BUDGET
from personalization.wire.codes import ClientFailure
from simulations.evaluation import client_folder


def budget_of(epsilon: float | None) -> Callable[[int, int], Mapping[str, ConfigValue]]:
    """Return what every device's own configuration says of its budget (None: it has none)."""
    own = {} if epsilon is None else {EPSILON_BUDGET: epsilon}
    return lambda client, version: own


def sat_out(out: Path, clients: int) -> int:
    """Return how many of `clients` refused an answer because of their budget, and met no other trouble since."""
    paths = [client_folder(out, client) / "last_error.json" for client in range(clients)]
    code = ClientFailure.BUDGET_SPENT.name.lower()
    return sum(json.loads(path.read_text())["code"] == code for path in paths if path.is_file())
