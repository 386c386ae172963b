import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.allocation.allocate import Costs
from simulations.arms.voting import dropped_by_vote, group_costs


@given(seed=st.integers(0, 2**32 - 1), budget=st.floats(0.05, 1.0), fixed=st.floats(0.0, 5.0), cut=st.floats(0.0, 0.5))
def test_what_is_kept_fits_the_budget_and_nothing_more_would_have(seed, budget, fixed, cut):
    rng = np.random.default_rng(seed)
    kept, costs, layer_groups = rng.random((5, 30)), rng.uniform(0.5, 2.0, 30), [3, 16, 1, 10]
    dropped = dropped_by_vote(kept, layer_groups, costs, fixed=fixed, budget=budget, cut=cut)
    target = budget * (fixed + costs.sum()) - cut * (budget < 1.0)
    spent = fixed + costs[~dropped].sum()
    assert spent <= target * (1 + 1e-9) or not (~dropped).any()
    assert all(spent + cost > target for cost in costs[dropped])
    again = dropped_by_vote(kept[::-1], layer_groups, costs, fixed=fixed, budget=budget, cut=cut)
    np.testing.assert_array_equal(dropped, again)


def test_a_layer_keeps_its_groups_with_the_most_votes():
    kept = np.array([[0.9, 0.2, 0.6, 1.0], [0.7, 0.4, 0.6, 1.0]])
    assert dropped_by_vote(kept, [4], np.ones(4), fixed=0.0, budget=0.5).tolist() == [False, True, True, False]
    assert not dropped_by_vote(kept, [4], np.ones(4), fixed=0.0, budget=1.0).any()


@pytest.mark.parametrize("cost", [0.2, 1.0, 5.0])
def test_layers_keep_the_shares_that_clients_keep_whatever_their_groups_cost(cost):
    shares = np.repeat([1.0, 0.75, 0.25], [4, 16, 8])
    costs = np.repeat([cost, 1.0, 1.0], [4, 16, 8])
    budget = float(shares @ costs / costs.sum())
    dropped = dropped_by_vote(np.stack([shares, shares]), [4, 16, 8], costs, fixed=0.0, budget=budget)
    assert [int((~part).sum()) for part in np.split(dropped, [4, 20])] == [4, 12, 2]


def test_a_tighter_budget_takes_from_all_layers():
    shares = np.repeat([1.0, 0.75], [16, 16])
    dropped = dropped_by_vote(shares[None], [16, 16], np.ones(32), fixed=0.0, budget=0.75)
    assert [int((~part).sum()) for part in np.split(dropped, [16])] == [14, 10]


def test_a_group_costs_what_its_units_do():
    groups = ((np.array([0]), np.array([1])), (np.arange(3), np.arange(3, 5)))
    costs = group_costs(groups, Costs(np.array([2.0, 0.5]), 1.0))
    assert costs.tolist() == pytest.approx([2.0, 2.0, 1.5, 1.0])
