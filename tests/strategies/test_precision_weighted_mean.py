import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from personalization.errors import UserError
from personalization.statistics import StatisticsError, StatisticsLayout, fleet_prior, to_wire
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.registry import STRATEGIES, make_strategy

LAYOUT = StatisticsLayout(layers=3, levels=2, groups=4)
vectors = arrays(np.float64, st.tuples(st.integers(1, 7), st.just(LAYOUT.size)), elements=st.floats(0, 1))


@given(vectors, st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_order_of_clients_does_not_matter(name, fleet, random):
    order = list(range(len(fleet)))
    random.shuffle(order)
    strategy = make_strategy(name)
    assert np.array_equal(strategy(list(fleet), LAYOUT), strategy(list(fleet[order]), LAYOUT))


@given(arrays(np.float64, LAYOUT.size, elements=st.floats(0, 1)), st.integers(1, 9))
@pytest.mark.parametrize("name", STRATEGIES)
def test_clients_that_agree_get_back_what_they_sent(name, vector, clients):
    np.testing.assert_allclose(make_strategy(name)([vector] * clients, LAYOUT), vector, rtol=0, atol=1e-15)


@given(vectors)
def test_sensitivity_is_weighted_by_precision(fleet):
    precision, share = LAYOUT.field("precision"), LAYOUT.field("weighted_sensitivity")
    sensitivity = fleet[:, share].copy()
    fleet[:, share] = fleet[:, precision] * sensitivity
    prior = fleet_prior(PrecisionWeightedMean()(list(fleet), LAYOUT), LAYOUT)
    total = fleet[:, precision].sum(0)
    known = total > 1e-6
    expected = (fleet[:, precision] * sensitivity).sum(0)[known] / total[known]
    np.testing.assert_allclose(to_wire(prior.sensitivity)[known], expected, atol=1e-9)


@given(vectors)
def test_what_nobody_measured_keeps_precision_zero(fleet):
    fleet[:, 0] = 0.0
    assert PrecisionWeightedMean()(list(fleet), LAYOUT)[0] == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.1, 1.1])
@pytest.mark.parametrize("name", STRATEGIES)
def test_invalid_entries_are_refused(name, bad):
    vector = np.zeros(LAYOUT.size)
    vector[5] = bad
    with pytest.raises(StatisticsError):
        make_strategy(name)([np.zeros(LAYOUT.size), vector], LAYOUT)


def test_no_vectors_and_wrong_lengths_are_refused():
    with pytest.raises(StatisticsError):
        PrecisionWeightedMean()([], LAYOUT)
    with pytest.raises(StatisticsError):
        PrecisionWeightedMean()([np.zeros(LAYOUT.size + 1)], LAYOUT)


def test_an_unknown_strategy_names_the_nearest():
    with pytest.raises(UserError, match="did you mean precision-weighted-mean"):
        make_strategy("precision-weighted-meen")
