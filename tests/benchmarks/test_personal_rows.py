import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are not installed

from benchmarks.intervals import mean_interval, worst_decile
from benchmarks.personalization.rows import fleet_prior, heuristic_levels
from personalization.allocation.allocate import allocate, weight_costs
from personalization.allocation.profiles import profile_curves
from personalization.transformer.layers import Layer, LayerKind


def mlp(index: int, units: int = 480, weights: int = 10) -> Layer:
    path = f"blocks.{index}"
    return Layer(index, index, LayerKind.MLP, path, path, (), f"{path}.out", units, 1, weights)


@pytest.mark.parametrize("row", ["uniform", "depth-linear", "random"])
def test_a_profile_is_what_allocation_makes_of_its_curves(row):
    layers = [mlp(index, weights=10 + 5 * index) for index in range(4)]
    levels = heuristic_levels(row, layers, np.random.default_rng(0))
    weights = np.array([layer.weights for layer in layers], dtype=np.float64)
    budget = 1.0 - float(weights @ levels / weights.sum())
    counts = allocate(layers, profile_curves(weights, levels), weight_costs(layers), budget, limits=np.ones(4))
    np.testing.assert_allclose(1.0 - counts / 480, levels, atol=1.5 / 48)


def test_depth_linear_rises_by_equal_steps():
    levels = heuristic_levels("depth-linear", [mlp(index) for index in range(5)], np.random.default_rng(0))
    np.testing.assert_allclose(np.diff(levels), np.diff(levels)[0])
    assert levels[-1] > levels[0]


def test_the_fleets_prior_is_a_geometric_mean_of_those_who_looked():
    clients = [np.array(single) for single in ([1.0, 5.0], [4.0, 9.0], [16.0, 2.0])]
    prior = fleet_prior(clients, np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(prior.sensitivity, [4.0, 0.0], rtol=1e-3)
    np.testing.assert_allclose(prior.precision, [1.0, 0.0])


def test_an_interval_covers_the_mean_of_a_normal_sample_about_as_wide_as_theory():
    sample = np.random.default_rng(1).normal(3.0, 2.0, 400)
    mean, half = mean_interval(list(sample))
    assert mean == pytest.approx(sample.mean())
    assert half == pytest.approx(1.96 * 2.0 / 20, rel=0.15)


def test_the_worst_decile_is_the_mean_of_the_lowest_tenth():
    assert worst_decile(list(range(20))) == pytest.approx(0.5)
    assert worst_decile([3.0, 1.0]) == pytest.approx(1.0)
