"""Levels that rise linearly with depth, as in ATP (2502.14770)."""

from personalization.allocation.profiles import DEPTH_SLOPE
from simulations.arms.profile import ProfileArm


class DepthLinear(ProfileArm):
    """Deeper blocks lose more: ATP (2502.14770) shows a rise in equal steps to be near the best for language models.

    ATP searches for the slope of each model; here it is one and the same (personalization.allocation.profiles).
    """

    name = profile = "depth-linear"
    summary = "levels that rise linearly with depth, with the same compensation; nothing is measured"

    def hyper_parameters(self) -> dict[str, float]:
        """Return how much the level rises from the first block to the last, relative to its mean."""
        return {"slope": DEPTH_SLOPE}
