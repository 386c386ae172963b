import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.errors import UserError
from personalization.recovery.deviation import Deviation, expected_errors, joint_pull
from personalization.recovery.scaling import common_scale, floored_sensitivity, pull_weights
from personalization.sensing.prior import Prior


def problem(seed, probes, atoms):
    rng = np.random.default_rng(seed)
    design = (rng.random((probes, atoms)) < rng.choice([0.1, 0.3])).astype(float)
    truth = rng.lognormal(0.0, 1.0, atoms)
    prior = Prior(truth * rng.lognormal(0.0, 0.5, atoms), rng.uniform(0.1, 0.9, atoms))
    return design, design @ truth * rng.lognormal(0.0, 0.2, probes), prior


def weighted(design, measurements, base):
    """The design in units of `base` and the measurements, each probe divided by its expected error."""
    errors = expected_errors(design @ base)
    return design * base / errors[:, None], measurements / errors


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    probes=st.integers(1, 30),
    atoms=st.integers(1, 50),
    strength=st.floats(1e-4, 10.0),
    penalty=st.sampled_from(["l1", "l2"]),
)
def test_deviations_are_optimal(seed, probes, atoms, strength, penalty):
    design, measurements, prior = problem(seed, probes, atoms)
    solver = Deviation(prior, penalty=penalty)
    path = solver.path(design, measurements, [3 * strength, strength])
    base = floored_sensitivity(prior) * common_scale(design, measurements, floored_sensitivity(prior))
    scaled, target = weighted(design, measurements, base)
    hessian, linear = scaled.T @ scaled / probes, scaled.T @ target / probes
    scale = max(np.max(np.abs(linear)), 1.0)
    for relative, x in zip([3 * strength, strength], path, strict=True):
        deviation = x / base - 1.0
        pull = relative * solver.maximal_strength(hessian, linear) * pull_weights(prior)
        descent = scaled.T @ (target - scaled @ (x / base)) / probes
        at_bound = x == 0.0
        still = np.abs(deviation) < 1e-12 if penalty == "l1" else np.zeros(atoms, dtype=bool)
        moving = ~at_bound & ~still
        wanted = pull * (np.sign(deviation) if penalty == "l1" else deviation)
        assert np.all(x >= 0)
        np.testing.assert_allclose((descent - wanted)[moving] / scale, 0.0, atol=1e-8)
        assert np.all((descent - wanted)[at_bound] / scale <= 1e-8)
        assert np.all((np.abs(descent) - pull)[still] / scale <= 1e-8)


def test_l2_is_ridge_where_no_bound_is_met():
    design, measurements, prior = problem(8, 30, 10)
    solver = Deviation(prior)
    (x,) = solver.path(design, measurements, [0.5])
    assert np.all(x > 0)
    base = solver.base * common_scale(design, measurements, solver.base)
    scaled, target = weighted(design, measurements, base)
    hessian = scaled.T @ scaled / 30
    ridge = np.diag(0.5 * np.max(np.diag(hessian)) * solver.weights)
    deviation = np.linalg.solve(hessian + ridge, scaled.T @ (target - scaled.sum(axis=1)) / 30)
    np.testing.assert_allclose(x, base * (1 + deviation), rtol=1e-9)


@pytest.mark.parametrize(("penalty", "strength"), [("l1", 1.0), ("l2", 1e9)])
def test_a_strong_penalty_leaves_the_prior_on_the_scale_of_the_device(penalty, strength):
    design, measurements, prior = problem(2, 12, 24)
    (x,) = Deviation(prior, penalty=penalty).path(design, measurements, [strength])
    base = floored_sensitivity(prior)
    np.testing.assert_allclose(x, base * common_scale(design, measurements, base), rtol=1e-6)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_a_weak_penalty_leaves_exact_measurements(penalty):
    prior = Prior(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4))
    (x,) = Deviation(prior, penalty=penalty).path(np.eye(3, 4), np.array([2.0, 1.0, 5.0]), [1e-9])
    np.testing.assert_allclose(x[:3], [2.0, 1.0, 5.0], rtol=1e-6)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_what_the_fleet_knows_better_moves_less(penalty):
    prior = Prior(np.ones(4), np.array([0.2, 0.4, 0.6, 0.8]))
    design = np.eye(4)
    (x,) = Deviation(prior, penalty=penalty).path(design, np.array([2.0, 2.0, 2.0, 2.0]), [0.1])
    moved = x / common_scale(design, np.full(4, 2.0), np.ones(4)) - 1.0
    assert np.all(np.diff(moved) < 0)
    assert np.all(moved > 0)


def test_an_atom_of_prior_zero_can_move():
    prior = Prior(np.array([1.0, 0.0, 1.0, 1.0]), np.ones(4))
    (x,) = Deviation(prior).path(np.eye(4), np.ones(4), [1e-8])
    assert x[1] == pytest.approx(1.0, rel=0.01)


def test_errors_grow_as_the_root_of_what_is_expected():
    errors = expected_errors(np.array([0.0, 1.0, 4.0, 16.0]))
    np.testing.assert_allclose(errors[1:] / errors[1], [1.0, 2.0, 4.0])
    assert errors[0] == 1.0
    assert np.mean(errors[1:] ** 2) == pytest.approx(1.0)


def test_unknown_penalty_is_refused():
    with pytest.raises(UserError, match="l1 or l2"):
        Deviation(Prior(np.ones(2), np.ones(2)), penalty="l0")


def test_the_levels_of_a_layer_deviate_together():
    """A look at one level of a layer moves its other level half as far, and no other layer."""
    prior = Prior(np.ones(6), np.ones(6))
    design = np.eye(6)[[0, 2, 4]]
    (x,) = Deviation(prior, levels=2).path(design, np.array([1.0, 1.0, 3.0]), [1e-6])
    scale = common_scale(design, np.array([1.0, 1.0, 3.0]), np.ones(6))
    np.testing.assert_allclose(x, np.array([1.0, 1.0, 1.0, 1.0, 3.0, 2.0]) * scale, rtol=1e-4)
    (alone,) = Deviation(prior, levels=1).path(design, np.array([1.0, 1.0, 3.0]), [1e-6])
    np.testing.assert_allclose(alone, np.array([1.0, 1.0, 1.0, 1.0, 3.0, 1.0]) * scale, rtol=1e-4)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), layers=st.integers(1, 6), levels=st.integers(1, 4))
def test_the_joint_pull_is_the_inverse_of_the_covariance_that_it_stands_for(seed, layers, levels):
    weights = np.random.default_rng(seed).uniform(0.05, 20.0, layers * levels)
    covariance = np.linalg.inv(joint_pull(weights, levels))
    np.testing.assert_allclose(np.diag(covariance), 1.0 / weights, rtol=1e-9)
    for i in range(layers * levels):
        for j in range(layers * levels):
            same = 0.5 if i // levels == j // levels else 0.0
            if i != j:
                np.testing.assert_allclose(covariance[i, j], same / np.sqrt(weights[i] * weights[j]), atol=1e-9)
