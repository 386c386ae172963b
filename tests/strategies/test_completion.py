import numpy as np
import pytest
from cohorts import LAYOUT, PRECISION, SHARES, cohorts, make_cohort, meaning
from hypothesis import given

from strategies.completion import balanced_precision, complete
from strategies.registry import make_strategy
from strategies.weighted_quantile import weighted_median


@given(cohorts(fewest=1))
def test_who_measured_says_what_it_found_and_the_others_the_median(fleet):
    cohort = complete(fleet, LAYOUT)
    known = fleet[:, PRECISION] > 0
    sensitivity = meaning(fleet)[:, SHARES]
    np.testing.assert_allclose(cohort.values[:, SHARES][known], sensitivity[known], atol=1e-12)
    for atom in range(LAYOUT.atoms):
        filled = cohort.values[~known[:, atom], SHARES.start + atom]
        weight = cohort.weights[known[:, atom], SHARES.start + atom, None]
        if weight.size:
            expected = weighted_median(sensitivity[known[:, atom], atom, None], weight)
            np.testing.assert_allclose(filled, np.repeat(expected, len(filled)), rtol=0, atol=1e-12)
        else:
            assert not filled.any()


@given(cohorts(fewest=1))
def test_nobody_weighs_more_than_the_median_client(fleet):
    precision = fleet[:, PRECISION]
    balanced = balanced_precision(precision)
    totals = precision.sum(1)
    some = totals > 0
    if not some.any():
        assert np.array_equal(balanced, precision)
        return
    median = np.median(totals[some])
    assert (balanced.sum(1) <= median + 1e-12).all()
    assert np.array_equal(balanced[totals <= median], precision[totals <= median])
    loud = totals > median
    np.testing.assert_allclose(
        balanced[loud] * totals[loud, None], precision[loud] * median, atol=1e-12, err_msg="proportions stay"
    )


@given(cohorts(fewest=1))
def test_what_somebody_measured_is_no_distance_and_plain_fields_weigh_one(fleet):
    cohort = complete(fleet, LAYOUT, balanced=False)
    assert (cohort.values[:, PRECISION] == fleet[:, PRECISION].mean(0)).all()
    assert np.array_equal(cohort.weights[:, SHARES], fleet[:, PRECISION])
    rest = slice(SHARES.stop, None)
    assert np.array_equal(cohort.values[:, rest], fleet[:, rest])
    assert (cohort.weights[:, rest] == 1.0).all()


def test_a_sensitivity_above_one_and_a_tiny_precision_are_bounded():
    rows = np.zeros((1, LAYOUT.size))
    rows[0, PRECISION], rows[0, SHARES] = 5e-324, 1.0
    with np.errstate(all="raise", under="ignore"):
        assert (complete(rows, LAYOUT).values[:, SHARES] == 1.0).all()


@pytest.mark.parametrize("spec", ["median", "trimmed-mean", "geometric-median", "centered-clipping", "krum"])
def test_a_claim_to_know_everything_buys_nothing_that_a_modest_one_does_not(spec):
    rng = np.random.default_rng(0)
    fleet = make_cohort(rng, 12, measured=1.0)
    fleet[:, PRECISION] = 0.2
    fleet[:, SHARES] = 0.2 * rng.random((12, LAYOUT.atoms))
    loud = fleet.copy()
    loud[0, PRECISION], loud[0, SHARES] = 1.0, fleet[0, SHARES] * 5
    strategy = make_strategy(spec)
    np.testing.assert_allclose(strategy(list(loud), LAYOUT), strategy(list(fleet), LAYOUT), atol=1e-9)
