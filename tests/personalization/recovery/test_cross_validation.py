import numpy as np
import pytest

from personalization.recovery.cross_validation import (
    choose_strength,
    explained_variance,
    held_out_errors,
    held_out_folds,
)
from personalization.recovery.lasso import Lasso


@pytest.mark.parametrize("probes", [2, 4, 16, 17, 50])
def test_every_probe_is_held_out_once(probes):
    folds = held_out_folds(probes, seed=3)
    assert sorted(np.concatenate(folds)) == list(range(probes))
    assert all(len(fold) < probes for fold in folds)


def test_folds_follow_the_seed():
    one, same, other = (np.concatenate(held_out_folds(50, seed=s)) for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_held_out_measurement_does_not_take_part_in_its_own_prediction():
    rng = np.random.default_rng(0)
    design, measurements = (rng.random((10, 20)) < 0.3).astype(float), rng.exponential(size=10)
    lasso = Lasso(np.ones(20))
    predicted = held_out_errors(lasso, design, measurements, strengths=[0.3, 0.1], seed=0) + measurements
    changed = measurements.copy()
    changed[4] += 100.0
    again = held_out_errors(lasso, design, changed, strengths=[0.3, 0.1], seed=0) + changed
    np.testing.assert_allclose(again[:, 4], predicted[:, 4], atol=1e-12)
    assert not np.allclose(again, predicted)


def test_a_tie_goes_to_the_default():
    assert choose_strength([1.0, 0.1, 0.01, 0.001], np.ones((4, 6)), default=0.01) == 2


def test_a_strength_that_is_better_everywhere_wins():
    errors = np.ones((4, 6))
    errors[0] = 0.5
    assert choose_strength([1.0, 0.1, 0.01, 0.001], errors, default=0.001) == 0


def test_one_lucky_probe_does_not_outvote_the_default():
    errors = np.ones((2, 6))
    errors[0, 0] = 0.0
    assert choose_strength([1.0, 0.1], errors, default=0.1) == 1


def test_explained_variance_of_the_mean_is_zero_and_of_the_truth_one():
    measurements = np.array([1.0, 2.0, 6.0])
    assert explained_variance(np.zeros(3), measurements) == 1.0
    assert explained_variance(measurements.mean() - measurements, measurements) == pytest.approx(0.0)
    assert explained_variance(np.zeros(3), np.full(3, 0.1)) is None
