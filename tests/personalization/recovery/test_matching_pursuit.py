import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import OrthogonalMatchingPursuit

from personalization.recovery.matching_pursuit import MatchingPursuit


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn_where_signs_do_not_bind(seed):
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(40, 60))
    design /= np.linalg.norm(design, axis=0)
    planted = np.zeros(60)
    planted[rng.choice(60, 4, replace=False)] = rng.uniform(1.0, 2.0, 4)
    measurements = design @ planted + 0.01 * rng.normal(size=40)
    steps, _ = MatchingPursuit().pursue(design, measurements)
    for count in range(1, 5):
        reference = OrthogonalMatchingPursuit(n_nonzero_coefs=count, fit_intercept=False).fit(design, measurements)
        assert np.all(reference.coef_ >= 0)
        np.testing.assert_allclose(steps[count], reference.coef_, atol=1e-9)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), probes=st.integers(1, 20), atoms=st.integers(1, 30))
def test_each_step_adds_one_atom_and_never_fits_worse(seed, probes, atoms):
    rng = np.random.default_rng(seed)
    design = (rng.random((probes, atoms)) < 0.3).astype(float)
    measurements = rng.normal(0.5, 1.0, probes)
    steps, correlations = MatchingPursuit().pursue(design, measurements)
    errors = np.linalg.norm(steps @ design.T - measurements, axis=1)
    assert np.all(steps >= 0)
    assert np.all(np.count_nonzero(steps, axis=1) <= np.arange(len(steps)))
    assert np.all(np.diff(errors) <= 1e-9)
    assert correlations[-1] == 0.0
    # Refitted: a taken atom above 0 has no correlation with what is left.
    for x in steps[1:]:
        np.testing.assert_allclose((design.T @ (measurements - design @ x))[x > 0], 0.0, atol=1e-8)


def test_strength_counts_what_is_left():
    # One probe an atom: the largest correlation left is the largest measurement not yet taken.
    path = MatchingPursuit().path(np.eye(4), np.array([8.0, 4.0, 2.0, 1.0]), [1.0, 0.6, 0.5, 0.2, 0.01])
    np.testing.assert_allclose(np.count_nonzero(path, axis=1), [0, 1, 1, 3, 4])
    np.testing.assert_allclose(path[-1], [8.0, 4.0, 2.0, 1.0])
