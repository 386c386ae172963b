"""Where the noise of a simulated run comes from: its seed, so that the same command gives the same result.

Real clients and servers draw from the operating system. Whoever knows the seed of a simulation can take its noise out.
"""

import hashlib
from dataclasses import dataclass

from client.data import Config
from personalization.wire.plan import Plan
from strategies.secure_aggregation.entropy import Entropy


@dataclass
class SeededEntropy:
    """A stream of bytes (SHAKE-256 in blocks) that follows from a text; it can travel to Ray's workers."""

    text: str
    _block: int = 0

    def __call__(self, count: int) -> bytes:
        """Return the next bytes."""
        self._block += 1
        return hashlib.shake_256(f"fedsieve noise/{self.text}/{self._block}".encode()).digest(count)


@dataclass(frozen=True)
class SimulatedNoise:
    """The noise of every client of a run with a seed, and of its server."""

    seed: int

    def __call__(self, node_config: Config, plan: Plan) -> Entropy:
        """Return what the client of this configuration draws its share from, for one plan."""
        return SeededEntropy(f"{self.seed}/client {node_config['partition-id']}/{plan.version}")

    def server(self, plan: Plan) -> Entropy:
        """Return what the server draws the noise of a plan's sum from: the same, however often the round is begun."""
        return SeededEntropy(f"{self.seed}/server/{plan.version}")
