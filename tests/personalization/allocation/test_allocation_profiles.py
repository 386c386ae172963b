import numpy as np
import pytest

from personalization.allocation.allocate import Costs, allocate, fit_curves
from personalization.allocation.profiles import PROFILES, profile_curves, profile_levels, profile_prior
from personalization.errors import UserError
from personalization.recovery import recover
from personalization.transformer.layers import Layer, LayerKind


def mlps(count: int) -> list[Layer]:
    return [
        Layer(i, i, LayerKind.MLP, f"blocks.{i}", f"blocks.{i}", (), f"blocks.{i}.out", 480, 1, 10 + 5 * i)
        for i in range(count)
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_allocation_keeps_the_ratios_of_a_profile_for_any_costs(profile):
    layers = mlps(5)
    levels = profile_levels(profile, layers)
    per_unit = np.random.default_rng(0).uniform(0.5, 2.0, 5)
    curves = profile_curves(480 * per_unit, levels)
    counts = allocate(layers, curves, Costs(per_unit, 100.0), 0.7, limits=np.ones(5))
    np.testing.assert_allclose((1.0 - counts / 480) / levels, np.mean((1.0 - counts / 480) / levels), atol=0.04)


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_device_recovers_from_a_profile_without_probes_is_the_profile(profile):
    layers, probe_levels = mlps(4), (0.5, 0.8)
    curves = profile_curves(np.array([layer.weights for layer in layers], dtype=float), profile_levels(profile, layers))
    prior = profile_prior(curves, np.tile(probe_levels, (4, 1)))
    found = recover(np.zeros((0, 8)), np.zeros(0), prior=prior)
    fitted = fit_curves(found.sensitivity, probe_levels)
    np.testing.assert_allclose(fitted.scale, curves.scale)
    np.testing.assert_allclose(fitted.exponent, curves.exponent)


def test_depth_linear_cuts_a_single_block_like_uniform():
    assert profile_levels("depth-linear", mlps(1)).shape == (1,)


def test_an_unknown_profile_is_named_with_the_nearest():
    with pytest.raises(UserError, match="did you mean uniform"):
        profile_levels("unifrom", mlps(2))
