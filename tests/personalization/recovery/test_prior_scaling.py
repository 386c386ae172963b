import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.recovery.scaling import common_scale, floored_sensitivity, is_usable, pull_weights
from personalization.sensing.prior import Prior


@given(scale=st.floats(0.1, 10.0), seed=st.integers(0, 2**32 - 1))
def test_scale_nears_the_truth_as_probes_come_and_one_before(scale, seed):
    rng = np.random.default_rng(seed)
    sensitivity = rng.lognormal(size=10)
    design = np.eye(10)[rng.integers(0, 10, 200)]
    estimates = [common_scale(design[:m], scale * design[:m] @ sensitivity, sensitivity) for m in (1, 5, 50, 200)]
    distances = np.abs(np.log(estimates) - np.log(scale))
    assert np.all(np.diff(distances) <= 1e-9)
    assert np.all(distances <= abs(np.log(scale)) + 1e-9)
    assert estimates[-1] == pytest.approx(scale ** (200 / 206))


def test_scale_ignores_a_minority_of_atoms_that_differ():
    sensitivity, measurements = np.ones(9), np.full(9, 2.0)
    measurements[:3] = 1000.0
    assert common_scale(np.eye(9), measurements, sensitivity) == pytest.approx(2.0 ** (9 / 15))


def test_scale_is_one_without_a_probe_that_says_anything():
    assert common_scale(np.zeros((0, 4)), np.zeros(0), np.ones(4)) == 1.0
    assert common_scale(np.zeros((2, 4)), np.ones(2), np.ones(4)) == 1.0


def test_scale_stays_above_zero():
    assert common_scale(np.eye(4), np.array([-1.0, 0.0, 0.0, -2.0]), np.ones(4)) > 0.0


def test_unknown_atoms_start_from_the_mean_of_the_known_and_zeros_from_a_floor():
    prior = Prior(np.array([4.0, 2.0, 0.0, 9.0]), np.array([0.5, 0.5, 0.5, 0.0]))
    np.testing.assert_allclose(floored_sensitivity(prior), [4.0, 2.0, 0.002, 2.0])


def test_pull_follows_precision_within_bounds():
    weights = pull_weights(Prior(np.ones(4), np.array([0.0, 0.2, 0.4, 0.6])))
    np.testing.assert_allclose(weights, [0.05, 0.5, 1.0, 1.5])


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (None, False),
        (Prior(np.ones(3), np.zeros(3)), False),
        (Prior(np.zeros(3), np.ones(3)), False),
        (Prior(np.array([1.0, 0.0]), np.array([0.0, 1.0])), False),
        (Prior(np.array([1.0, 0.0]), np.array([0.1, 0.0])), True),
    ],
)
def test_a_prior_is_usable_when_it_knows_a_sensitivity(prior, expected):
    assert is_usable(prior) is expected
