"""What the fleet knows about sensitivities before a device has measured anything."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Precision that one clean look of one client adds (see recovery/precision.py); a fleet's is the sum over its clients.
LOOK = 0.5
# From so much on what a device knows of its own layers beforehand adds nothing that would show in what is cut.
CERTAINTY = 4 * LOOK


@dataclass(frozen=True)
class Prior:
    """The fleet's sensitivity of every atom (layer at a probe level) and how well it is known.

    sensitivity: [atoms], nats, >= 0. precision: [atoms], >= 0, dimensionless; 0 means that nothing is known.
    """

    sensitivity: NDArray[np.float64]
    precision: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        if self.sensitivity.ndim != 1 or self.sensitivity.shape != self.precision.shape:
            raise ValueError(
                f"prior of shapes {self.sensitivity.shape} and {self.precision.shape}; expected two of [atoms]"
            )
        for name, values in (("sensitivity", self.sensitivity), ("precision", self.precision)):
            if not np.isfinite(values).all() or (values < 0).any():
                raise ValueError(f"the prior's {name} must be finite and not negative")

    @property
    def complete(self) -> bool:
        """Whether the fleet has measured every atom."""
        return bool(self.precision.all())

    @property
    def certain(self) -> bool:
        """Whether it is to be believed as it is."""
        return bool((self.precision >= CERTAINTY).all())
