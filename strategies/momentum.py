"""Server momentum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from personalization.errors import UserError
from strategies.server_optimizer import ServerOptimizer, Vector


@dataclass(kw_only=True)
class Momentum(ServerOptimizer):
    """Server momentum (Hsu et al. 2019, arXiv 1909.06335; FedAvgM in Reddi et al. 2021): m = decay m + change.

    The result moves by rate * m. Defaults are lower than usual in training: a reduction is an estimate of the goal
    itself, not a small step towards it. rate=1:decay=0 gives the reduction back.
    """

    name = "momentum"
    moments: ClassVar[tuple[str, ...]] = ("momentum",)
    rate: float = 0.5
    decay: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if not 0.0 < self.rate <= 1.0 or not 0.0 <= self.decay < 1.0:
            raise UserError(
                f"{self.name}: rate={self.rate:g} decay={self.decay:g}: expected a rate above 0 and at most 1, and a "
                "decay from 0 to below 1"
            )

    def move(self, change: Vector, moments: Mapping[str, Vector], steps: Vector) -> tuple[Vector, dict[str, Vector]]:
        """Return rate * m and the new m."""
        del steps
        momentum = self.decay * moments["momentum"] + change
        return self.rate * momentum, {"momentum": momentum}
