import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso as ReferenceLasso

from personalization.recovery.lasso import Lasso, lasso_weights


def problem(seed, probes, atoms):
    rng = np.random.default_rng(seed)
    design = (rng.random((probes, atoms)) < 0.3).astype(float)
    weights = rng.uniform(0.2, 5.0, atoms)
    return design, design @ rng.exponential(size=atoms) + 0.1 * rng.normal(size=probes), weights


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    probes=st.integers(1, 30),
    atoms=st.integers(1, 60),
    strength=st.floats(1e-5, 1.5),
)
def test_every_solution_of_the_path_is_optimal(seed, probes, atoms, strength):
    design, measurements, weights = problem(seed, probes, atoms)
    lasso = Lasso(weights)
    path = lasso.path(design, measurements, [2 * strength, strength, strength / 2])
    maximum = lasso.maximal_strength(design, measurements)
    for relative, x in zip([2 * strength, strength, strength / 2], path, strict=True):
        descent = design.T @ (measurements - design @ x) / probes
        penalty = relative * maximum * weights
        assert np.all(x >= 0)
        assert np.all(descent - penalty <= 1e-8)
        np.testing.assert_allclose((descent - penalty)[x > 0], 0.0, atol=1e-8)


@pytest.mark.parametrize("shape", [(12, 24), (40, 24), (6, 24)])
@pytest.mark.parametrize("strength", [0.5, 0.05])
def test_agrees_with_scikit_learn(shape, strength):
    design, measurements, weights = problem(5, *shape)
    lasso = Lasso(weights)
    (x,) = lasso.path(design, measurements, [strength])
    alpha = strength * lasso.maximal_strength(design, measurements)
    # Weights are columns divided by them and solutions in those units.
    reference = ReferenceLasso(alpha=alpha, positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    reference.fit(design / weights, measurements)
    np.testing.assert_allclose(design @ x, design @ (reference.coef_ / weights), atol=1e-6)
    np.testing.assert_allclose(weights @ x, reference.coef_.sum(), atol=1e-6)


def test_maximal_strength_is_where_the_first_atom_appears():
    design, measurements, weights = problem(1, 10, 24)
    at, below = Lasso(weights).path(design, measurements, [1.0, 0.999])
    assert not at.any()
    assert np.count_nonzero(below) == 1


def test_one_probe_per_atom_is_soft_thresholding():
    measurements = np.array([3.0, 1.0, 0.1])
    (x,) = Lasso(np.ones(4)).path(np.eye(3, 4), measurements, [0.2])
    np.testing.assert_allclose(x, [2.4, 0.4, 0.0, 0.0], atol=1e-12)


def test_measurements_that_never_rise_give_zeros():
    assert not Lasso(np.ones(3)).path(np.eye(3), np.array([-1.0, 0.0, -2.0]), [1.0, 0.1]).any()


def test_atoms_sensitive_in_the_fleet_are_penalized_less():
    weights = lasso_weights(np.array([4.0, 1.0, 0.25]))
    np.testing.assert_allclose(weights[1:] / weights[:-1], 2.0)
