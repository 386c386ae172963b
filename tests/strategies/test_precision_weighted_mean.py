import numpy as np
from cohorts import LAYOUT, PRECISION, SHARES, cohorts
from hypothesis import given, settings

from personalization.wire.statistics import fleet_prior, to_wire
from strategies.precision_weighted_mean import PrecisionWeightedMean

SOME = settings(max_examples=40)


@given(cohorts(fewest=1, most=7))
@SOME
def test_sensitivity_is_weighted_by_precision(fleet):
    prior = fleet_prior(PrecisionWeightedMean()(list(fleet), LAYOUT), LAYOUT)
    total, weighted = fleet[:, PRECISION].sum(0), fleet[:, SHARES].sum(0)
    known = total > 0
    mean = np.divide(weighted, total, out=np.zeros_like(total), where=known)
    rising = np.maximum.accumulate(mean.reshape(LAYOUT.layers, LAYOUT.levels), axis=1).ravel()
    np.testing.assert_allclose(to_wire(prior.sensitivity)[known], rising[known], atol=1e-9)


@given(cohorts(fewest=1, most=7))
@SOME
def test_it_is_the_mean_of_the_vectors_as_they_travel(fleet):
    np.testing.assert_allclose(PrecisionWeightedMean()(list(fleet), LAYOUT), fleet.mean(0), atol=1e-12)


@given(cohorts(fewest=1, most=7))
@SOME
def test_what_nobody_measured_keeps_precision_zero(fleet):
    fleet[:, [0, SHARES.start]] = 0.0
    found = PrecisionWeightedMean()(list(fleet), LAYOUT)
    assert found[0] == found[SHARES.start] == 0.0
