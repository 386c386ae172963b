import json

import numpy as np
import pytest
from cohorts import FEWEST, LAYOUT, PRECISION, SHARES, SPECS, cohorts, make_cohort, meaning
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.wire.statistics import StatisticsError
from strategies.base import Strategy
from strategies.registry import make_strategy

FEW = settings(max_examples=6)


@pytest.mark.parametrize("spec", SPECS)
@FEW
@given(cohorts(), cohorts(), st.randoms(use_true_random=False))
def test_the_order_of_clients_changes_no_bit_in_any_round(spec, fleet, later, random):
    one, other = make_strategy(spec), make_strategy(spec)
    for rows in (fleet, later):
        order = random.sample(range(len(rows)), len(rows))
        assert one(list(rows), LAYOUT).tobytes() == other(list(rows[order]), LAYOUT).tobytes()


@pytest.mark.parametrize("spec", SPECS)
@FEW
@given(cohorts(), st.integers(FEWEST, 20))
def test_clients_that_agree_get_back_what_they_sent_in_every_round(spec, fleet, clients):
    strategy = make_strategy(spec)
    for _ in range(3):
        np.testing.assert_allclose(strategy([fleet[0]] * clients, LAYOUT), fleet[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
@FEW
@given(cohorts())
def test_precision_is_the_evidence_of_all_whatever_the_reduction(spec, fleet):
    strategy = make_strategy(spec)
    precision = strategy(list(fleet), LAYOUT)[PRECISION]
    raw = fleet[:, PRECISION]
    if strategy.balanced:
        totals = raw.sum(1)
        most = np.median(totals[totals > 0]) if totals.any() else 1.0
        raw = raw * np.minimum(1.0, most / np.maximum(totals, 1e-300))[:, None]
    np.testing.assert_allclose(precision, raw.mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
@FEW
@given(cohorts(measured=0.3))
def test_every_result_lies_between_the_least_and_the_most_of_those_who_know(spec, fleet):
    found, sent = meaning(make_strategy(spec)(list(fleet), LAYOUT)), meaning(fleet)
    known = fleet[:, PRECISION] > 0
    lowest = np.where(known, sent[:, SHARES], 1.0).min(0)
    highest = np.where(known, sent[:, SHARES], 0.0).max(0)
    some = known.any(0)
    assert (found[SHARES][some] >= lowest[some] - 1e-12).all(), "abstainers pull no sensitivity down"
    assert (found[SHARES][some] <= highest[some] + 1e-12).all()
    assert not found[SHARES][~some].any()
    rest = slice(SHARES.stop, None)
    assert (found[rest] >= np.minimum(sent[:, rest].min(0), 0.0 if "majority" in spec else 1.0) - 1e-12).all()
    assert (found[rest] <= sent[:, rest].max(0) + 1e-12).all()


@pytest.mark.parametrize("spec", SPECS)
def test_invalid_entries_are_refused_and_change_nothing(spec):
    fleet = list(make_cohort(np.random.default_rng(1), 9))
    strategy, undisturbed = make_strategy(spec), make_strategy(spec)
    for bad in (np.nan, np.inf, -np.inf, -0.1, 1.1):
        invalid = fleet[4].copy()
        invalid[5] = bad
        with pytest.raises(StatisticsError):
            strategy([*fleet, invalid], LAYOUT)
        with pytest.raises(StatisticsError):
            strategy.place(dict(enumerate([*fleet, invalid])), LAYOUT)
    assert np.array_equal(strategy(fleet, LAYOUT), undisturbed(fleet, LAYOUT))


@pytest.mark.parametrize("spec", SPECS)
def test_no_vectors_and_wrong_lengths_are_refused(spec):
    strategy = make_strategy(spec)
    with pytest.raises(StatisticsError, match="no vectors"):
        strategy([], LAYOUT)
    with pytest.raises(StatisticsError, match="shape"):
        strategy([np.zeros(LAYOUT.size)] * 8 + [np.zeros(LAYOUT.size + 1)], LAYOUT)


@pytest.mark.parametrize("spec", SPECS)
def test_the_inputs_are_left_alone(spec):
    fleet = make_cohort(np.random.default_rng(2), 9)
    before = fleet.copy()
    strategy = make_strategy(spec)
    strategy(list(fleet), LAYOUT)
    first = strategy(list(fleet), LAYOUT)
    first[:] = 0.5
    assert np.array_equal(fleet, before)


@pytest.mark.parametrize("spec", SPECS)
def test_a_strategy_goes_on_after_a_restart_as_if_there_had_been_none(spec):
    rng = np.random.default_rng(3)
    rounds = [make_cohort(rng, 12) for _ in range(4)]
    strategy, restarted = make_strategy(spec), make_strategy(spec)
    for rows in rounds[:2]:
        strategy(list(rows), LAYOUT)
        strategy.place(dict(enumerate(rows)), LAYOUT)
    restarted.restore(json.loads(json.dumps(strategy.state())))
    assert restarted.state() == strategy.state()
    for rows in rounds[2:]:
        assert np.array_equal(strategy(list(rows), LAYOUT), restarted(list(rows), LAYOUT))
        nodes = dict(enumerate(rows))
        assert strategy.place(nodes, LAYOUT) == restarted.place(nodes, LAYOUT)


@pytest.mark.parametrize("spec", SPECS)
def test_foreign_state_is_refused(spec):
    with pytest.raises(ValueError, match=r"state|expected"):
        make_strategy(spec).restore({"base.something": [1.0]})


def test_a_strategy_that_makes_up_nan_or_another_shape_is_caught():
    class Broken(Strategy):
        name = "broken"

        def reduce(self, values, weights):
            return np.full(self.shape, np.nan)

    strategy = Broken()
    for strategy.shape in (LAYOUT.size, LAYOUT.size + 1):
        with pytest.raises(StatisticsError):
            strategy([np.zeros(LAYOUT.size)], LAYOUT)
