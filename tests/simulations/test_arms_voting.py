import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.allocation.allocate import Costs
from simulations.arms.voting import dropped_by_vote


def groups_of(*sizes):
    """Return groups of consecutive units; `sizes`: for each layer the number of units in each of its groups."""
    return tuple(tuple(np.split(np.arange(sum(layer)), np.cumsum(layer)[:-1])) for layer in sizes)


def equal(*counts):
    return groups_of(*([1] * count for count in counts))


@given(seed=st.integers(0, 2**32 - 1), budget=st.floats(0.05, 1.0), fixed=st.floats(0.0, 5.0), cut=st.floats(0.0, 0.5))
def test_what_is_kept_fits_the_budget_and_nothing_more_would_have(seed, budget, fixed, cut):
    rng = np.random.default_rng(seed)
    sizes = [rng.integers(1, 5, count).tolist() for count in (3, 16, 1, 10)]
    per_unit, kept = rng.uniform(0.2, 1.0, len(sizes)), rng.random((5, 30))
    dropped = dropped_by_vote(kept, groups_of(*sizes), Costs(per_unit, fixed, cut), budget)
    costs = np.concatenate([np.array(layer) * cost for layer, cost in zip(sizes, per_unit, strict=True)])
    target = budget * (fixed + costs.sum()) - cut * (budget < 1.0)
    spent = fixed + costs[~dropped].sum()
    assert spent <= target * (1 + 1e-9) or not (~dropped).any()
    assert all(spent + cost > target for cost in costs[dropped])
    again = dropped_by_vote(kept[::-1], groups_of(*sizes), Costs(per_unit, fixed, cut), budget)
    np.testing.assert_array_equal(dropped, again)


def test_a_layer_keeps_its_groups_with_the_most_votes():
    kept = np.array([[0.9, 0.2, 0.6, 1.0], [0.7, 0.4, 0.6, 1.0]])
    costs = Costs(np.ones(1), 0.0)
    assert dropped_by_vote(kept, equal(4), costs, 0.5).tolist() == [False, True, True, False]
    assert not dropped_by_vote(kept, equal(4), costs, 1.0).any()


@pytest.mark.parametrize("cost", [0.2, 1.0, 5.0])
def test_layers_keep_the_shares_that_clients_keep_whatever_their_groups_cost(cost):
    shares, per_unit = np.repeat([1.0, 0.75, 0.25], [4, 16, 8]), np.array([cost, 1.0, 1.0])
    per_group = np.repeat(per_unit, [4, 16, 8])
    budget = float(shares @ per_group / per_group.sum())
    dropped = dropped_by_vote(np.stack([shares, shares]), equal(4, 16, 8), Costs(per_unit, 0.0), budget)
    assert [int((~part).sum()) for part in np.split(dropped, [4, 20])] == [4, 12, 2]


def test_a_tighter_budget_takes_from_all_layers():
    shares = np.repeat([1.0, 0.75], [16, 16])
    dropped = dropped_by_vote(shares[None], equal(16, 16), Costs(np.ones(2), 0.0), 0.75)
    assert [int((~part).sum()) for part in np.split(dropped, [16])] == [14, 10]


def test_a_group_costs_what_its_units_do():
    kept = np.array([[0.9, 0.8, 0.7]])
    costs = Costs(np.array([1.0]), 0.0)
    assert dropped_by_vote(kept, groups_of([3, 2, 1]), costs, 0.5).tolist() == [False, True, True]
    assert dropped_by_vote(kept, groups_of([3, 3, 1]), costs, 4 / 7).tolist() == [False, True, False]
