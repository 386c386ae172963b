"""Adam on the server."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from personalization.errors import UserError
from strategies.server_optimizer import ServerOptimizer, Vector


@dataclass(kw_only=True)
class Adam(ServerOptimizer):
    """FedAdam (Reddi et al. 2021, arXiv 2003.00295, algorithm 2) with Adam's bias correction (Kingma and Ba 2015).

    The result moves by rate * m / (sqrt(v) + tau); m and v, running means of the change and of its square, are divided
    by 1 - beta^steps, as they start from zero. tau: the changes below which steps shrink.
    """

    name = "adam"
    moments: ClassVar[tuple[str, ...]] = ("mean", "square")
    rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        betas = 0.0 <= self.beta1 < 1.0 and 0.0 <= self.beta2 < 1.0
        if not betas or not 0.0 < self.rate <= 1.0 or not 0.0 < self.tau <= 1.0:
            raise UserError(
                f"{self.name}: rate={self.rate:g} beta1={self.beta1:g} beta2={self.beta2:g} tau={self.tau:g}: expected "
                "rate and tau above 0 and at most 1, and betas from 0 to below 1"
            )

    def move(self, change: Vector, moments: Mapping[str, Vector], steps: Vector) -> tuple[Vector, dict[str, Vector]]:
        """Return Adam's step and the new running means."""
        mean = self.beta1 * moments["mean"] + (1.0 - self.beta1) * change
        square = self.beta2 * moments["square"] + (1.0 - self.beta2) * change**2
        scale = np.sqrt(square / (1.0 - self.beta2**steps)) + self.tau
        return self.rate * mean / (1.0 - self.beta1**steps) / scale, {"mean": mean, "square": square}
