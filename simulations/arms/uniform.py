"""The same level in every layer."""

from simulations.arms.profile import ProfileArm


class Uniform(ProfileArm):
    """Every layer loses the same share of its units."""

    name = profile = "uniform"
    summary = "the same level in every layer, with the same compensation; nothing is measured"
