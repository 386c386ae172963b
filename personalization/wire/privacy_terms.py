"""What a plan says about noise: all clients of a round are told the same, and work out from it what an answer costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

NoiseMode = Literal["central", "distributed"]
# The clipping norm stands for so many steps of the integer grid on which vectors are summed.
GRID_STEPS = 4096
_LARGEST_VARIANCE = 1 << 50
_KEYS = ("dp-mode", "dp-clip", "dp-variance", "dp-release")

Record = dict[str, int | float | str | bytes]


@dataclass(frozen=True, kw_only=True)
class PrivacyTerms:
    """mode: `central`, the server adds the noise to the sum; `distributed`, every client adds a share to its vector.

    clip: the largest L2 norm of a client's vector (scale of the wire). variance: of the noise in the sum of a round, in
    squared steps of the grid, on which `clip` is `GRID_STEPS`. release: False asks for no statistics at all. Raises
    ValueError for what makes no sense.
    """

    mode: NoiseMode
    clip: float
    variance: int
    release: bool = True

    def __post_init__(self) -> None:
        if self.mode not in get_args(NoiseMode):
            raise ValueError("a kind of noise that there is not")
        if not (math.isfinite(self.clip) and 0.0 < self.clip <= 100.0):
            raise ValueError("a clipping norm that is not above 0 and at most 100")
        if not 1 <= self.variance <= _LARGEST_VARIANCE:
            raise ValueError("a variance of the noise out of range")

    @property
    def multiplier(self) -> float:
        """Standard deviation of the noise in the sum, in clipping norms."""
        return math.sqrt(self.variance) / GRID_STEPS

    def to_record(self) -> Record:
        """Return the terms as entries of a plan's record."""
        return dict(zip(_KEYS, (self.mode, self.clip, self.variance, int(self.release)), strict=True))

    @staticmethod
    def from_record(record: Mapping[str, object]) -> "PrivacyTerms | None":
        """Return the terms in a plan's record, None if there are none. Raises ValueError for a part of some."""
        mode, clip, variance, release = (record.get(key) for key in _KEYS)
        if not {*_KEYS} & set(record):
            return None
        if mode not in get_args(NoiseMode) or type(clip) is not float or type(variance) is not int:
            raise ValueError("the terms of the noise are incomplete or of the wrong type")
        if type(release) is not int or release not in (0, 1):
            raise ValueError("whether statistics are asked for is neither 0 nor 1")
        return PrivacyTerms(
            mode="central" if mode == "central" else "distributed", clip=clip, variance=variance, release=bool(release)
        )
