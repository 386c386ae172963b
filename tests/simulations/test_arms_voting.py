import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.allocation.allocate import Costs
from simulations.arms.voting import dropped_by_vote, group_costs


@given(seed=st.integers(0, 2**32 - 1), budget=st.floats(0.05, 1.0), fixed=st.floats(0.0, 5.0), cut=st.floats(0.0, 0.5))
def test_what_is_kept_fits_the_budget_and_nothing_more_would_have(seed, budget, fixed, cut):
    rng = np.random.default_rng(seed)
    kept, costs = rng.random((5, 30)), rng.uniform(0.5, 2.0, 30)
    dropped = dropped_by_vote(kept, costs, fixed=fixed, budget=budget, cut=cut)
    target = budget * (fixed + costs.sum()) - cut * (budget < 1.0)
    spent = fixed + costs[~dropped].sum()
    assert spent <= target * (1 + 1e-9) or not (~dropped).any()
    assert all(spent + cost > target for cost in costs[dropped])
    np.testing.assert_array_equal(dropped, dropped_by_vote(kept[::-1], costs, fixed=fixed, budget=budget, cut=cut))


def test_groups_stay_in_the_order_of_their_votes_per_cost():
    kept = np.array([[0.9, 0.2, 0.6, 1.0], [0.7, 0.4, 0.6, 1.0]])
    equal = np.ones(4)
    assert dropped_by_vote(kept, equal, fixed=0.0, budget=0.5).tolist() == [False, True, True, False]
    assert dropped_by_vote(kept, np.array([1.0, 1.0, 1.0, 3.0]), fixed=0.0, budget=0.5).tolist() == [
        False, False, False, True,
    ]  # fmt: skip
    assert not dropped_by_vote(kept, equal, fixed=0.0, budget=1.0).any()


def test_a_group_costs_what_its_units_do():
    groups = ((np.array([0]), np.array([1])), (np.arange(3), np.arange(3, 5)))
    costs = group_costs(groups, Costs(np.array([2.0, 0.5]), 1.0))
    assert costs.tolist() == pytest.approx([2.0, 2.0, 1.5, 1.0])
