from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from personalization.allocation.allocate import Costs, Curves, allocate, fit_curves, weight_costs
from personalization.errors import UserError
from personalization.transformer.layers import Layer, LayerKind, find_layers
from tests.personalization.architectures import build

few = settings(max_examples=40)


def make_layers(units, weights, kinds=None):
    return tuple(
        Layer(
            index=index,
            block=index // 2,
            kind=LayerKind.MLP if kinds is None else kinds[index],
            block_path=f"block.{index // 2}",
            core="core",
            readers=(),
            writer=f"writer.{index}",
            units=count,
            columns_per_unit=1,
            weights_per_unit=weight,
        )
        for index, (count, weight) in enumerate(zip(units, weights, strict=True))
    )


@st.composite
def problems(draw, largest=200, least_limit=0.8):
    size = draw(st.integers(1, 5))

    def each(strategy):
        return draw(st.lists(strategy, min_size=size, max_size=size))

    kinds = each(st.sampled_from(list(LayerKind)))
    layers = make_layers(each(st.integers(1, largest)), each(st.integers(1, 50)), kinds)
    curves = Curves(np.array(each(st.floats(1e-4, 5.0))), np.array(each(st.floats(1.0, 12.0))))
    limits = np.array(each(st.floats(least_limit, 1.0)))
    return layers, curves, weight_costs(layers), limits


def dense_counts(layers):
    return np.array([layer.units for layer in layers])


def expected_increase(layers, curves, counts):
    return sum(float(curves.at(la.index, np.float64(1 - counts[la.index] / la.units))) for la in layers)


def feasible(layers, costs, limits, budget, counts):
    allowed = all(la.units - c <= la.units * limit + 1e-9 for la, c, limit in zip(layers, counts, limits, strict=True))
    return allowed and costs.total(np.array(counts)) <= budget * costs.total(dense_counts(layers)) * (1 + 1e-12)


@few
@given(problem=problems(), budget=st.floats(0.25, 1.0))
def test_the_cost_is_within_one_unit_of_the_budget(problem, budget):
    layers, curves, costs, limits = problem
    try:
        counts = allocate(layers, curves, costs, budget, limits=limits)
    except UserError:
        assume(False)
    target = budget * costs.total(dense_counts(layers))
    assert feasible(layers, costs, limits, budget, counts)
    assert costs.total(counts) > target - costs.per_unit.max() - 1e-6
    assert (counts <= dense_counts(layers)).all()


@few
@given(data=st.data(), budget=st.floats(0.3, 1.0))
def test_no_allocation_of_units_of_equal_cost_is_expected_to_do_less_harm(data, budget):
    size = data.draw(st.integers(1, 3))
    layers = make_layers(data.draw(st.lists(st.integers(1, 7), min_size=size, max_size=size)), [3] * size)
    values = st.lists(st.floats(0.01, 5.0), min_size=size, max_size=size)
    curves = Curves(np.array(data.draw(values)), 1.0 + np.array(data.draw(values)))
    limits, costs = np.full(size, 1.0), weight_costs(layers)
    counts = allocate(layers, curves, costs, budget, limits=limits)
    others = product(*(range(layer.units + 1) for layer in layers))
    best = min(expected_increase(layers, curves, c) for c in others if feasible(layers, costs, limits, budget, c))
    assert expected_increase(layers, curves, counts) == pytest.approx(best, rel=1e-9, abs=1e-12)


@few
@given(data=st.data(), budget=st.floats(0.3, 1.0))
def test_with_units_of_different_cost_only_the_last_unit_is_not_optimal(data, budget):
    """At the cost that it comes to, give or take one unit, nothing is better (Everett 1963, theorem 1)."""
    size = data.draw(st.integers(2, 3))
    units, weights = (data.draw(st.lists(st.integers(2, most), min_size=size, max_size=size)) for most in (6, 9))
    layers = make_layers(units, weights)
    values = st.lists(st.floats(0.01, 5.0), min_size=size, max_size=size)
    curves = Curves(np.array(data.draw(values)), 1.0 + np.array(data.draw(values)))
    limits, costs = np.full(size, 1.0), weight_costs(layers)
    counts = allocate(layers, curves, costs, budget, limits=limits)
    # Giving back the last unit removed makes it the optimum for the cost that it then has.
    slopes = {
        la.index: (
            expected_increase(layers, curves, counts)
            - expected_increase(layers, curves, counts + np.eye(size, dtype=int)[la.index])
        )
        / la.weights_per_unit
        for la in layers
        if counts[la.index] < la.units
    }
    if not slopes:
        return
    last = max(slopes, key=slopes.__getitem__)
    before = counts + np.eye(size, dtype=int)[last]
    spent = costs.total(before)
    others = (np.array(c) for c in product(*(range(layer.units + 1) for layer in layers)))
    best = min(expected_increase(layers, curves, c) for c in others if costs.total(c) <= spent)
    assert expected_increase(layers, curves, before) <= best * (1 + 1e-6) + 1e-12


@few
@given(problem=problems(), budgets=st.tuples(st.floats(0.25, 1.0), st.floats(0.25, 1.0)))
def test_a_smaller_budget_keeps_no_unit_that_a_larger_one_does_not(problem, budgets):
    layers, curves, costs, limits = problem
    try:
        small, large = (allocate(layers, curves, costs, budget, limits=limits) for budget in sorted(budgets))
    except UserError:
        assume(False)
    assert (small <= large).all()


@few
@given(problem=problems(least_limit=0.05), budget=st.floats(0.05, 1.0))
def test_limits_are_respected_or_the_error_says_what_they_allow(problem, budget):
    layers, curves, costs, limits = problem
    least = sum(int(np.ceil(la.units * (1 - limits[la.index]) - 1e-9)) * la.weights_per_unit for la in layers)
    total = costs.total(dense_counts(layers))
    if least > budget * total * (1 + 1e-9):
        with pytest.raises(UserError, match=rf"budget {budget}: the limits allow at least {least / total:.3f}"):
            allocate(layers, curves, costs, budget, limits=limits)
    elif least < budget * total * (1 - 1e-9):
        assert feasible(layers, costs, limits, budget, allocate(layers, curves, costs, budget, limits=limits))


@few
@given(problem=problems(), budget=st.floats(0.25, 1.0), data=st.data())
def test_units_that_the_fleet_has_dropped_are_not_given_back(problem, budget, data):
    layers, curves, costs, limits = problem
    available = np.array([data.draw(st.integers(0, layer.units)) for layer in layers])
    try:
        counts = allocate(layers, curves, costs, budget, limits=limits, available=available)
    except UserError:
        assume(False)
    assert (counts <= available).all()
    assert costs.total(counts) <= budget * costs.total(dense_counts(layers)) * (1 + 1e-12)
    if costs.total(available) <= budget * costs.total(dense_counts(layers)):
        np.testing.assert_array_equal(counts, available)


def test_a_whole_budget_keeps_everything_and_inputs_stay_as_they_are():
    layers = make_layers([5, 9], [2, 3])
    curves = Curves(np.ones(2), np.full(2, 3.0))
    available = np.array([5, 9])
    limits = np.full(2, 0.9)
    assert allocate(layers, curves, weight_costs(layers), 1.0, limits=limits).tolist() == [5, 9]
    allocate(layers, curves, weight_costs(layers), 0.5, limits=limits, available=available)
    assert available.tolist() == [5, 9]


def test_what_cannot_be_cut_counts_for_the_budget():
    layers = make_layers([10], [1])
    curves, limits = Curves(np.ones(1), np.ones(1)), np.ones(1)
    costs = Costs(np.ones(1), fixed=10.0)
    assert allocate(layers, curves, costs, 0.75, limits=limits).tolist() == [5]
    with pytest.raises(UserError, match=r"at least 0\.500"):
        allocate(layers, curves, costs, 0.4, limits=limits)


@given(seed=st.integers(0, 10**6), budget=st.floats(0.3, 1.0))
def test_what_a_cut_adds_counts_as_soon_as_anything_goes(seed, budget):
    rng = np.random.default_rng(seed)
    layers = make_layers(list(rng.integers(2, 60, 6)), list(rng.integers(2, 9, 6)))
    curves, dense = Curves(rng.uniform(0.1, 2.0, 6), rng.uniform(1.0, 6.0, 6)), dense_counts(layers)
    costs = replace(weight_costs(layers), cut=5.0)
    target, whole = budget * costs.total(dense), dense.copy()
    counts = allocate(layers, curves, costs, budget, limits=np.ones(6))
    assert (counts == dense).all() == (budget == 1.0)
    if budget < 1.0:
        assert target - costs.per_unit.max() - 1e-6 < costs.total(counts) + costs.cut <= target * (1 + 1e-12)
    # Where others have cut it already, even the whole budget has to take that in.
    whole[0] -= 1
    counts = allocate(layers, curves, costs, 1.0, limits=np.ones(6), available=whole)
    assert costs.total(counts) + costs.cut <= costs.total(dense)


def test_limits_that_leave_no_room_for_what_a_cut_adds_are_refused_with_the_share_that_does():
    layers = make_layers([10], [1])
    curves, limits, costs = Curves(np.ones(1), np.ones(1)), np.full(1, 0.5), Costs(np.ones(1), fixed=10.0, cut=1.0)
    with pytest.raises(UserError, match=r"at least 0\.800"):
        allocate(layers, curves, costs, 0.79, limits=limits)
    assert allocate(layers, curves, costs, 0.8, limits=limits).tolist() == [5]


def test_the_layer_that_matters_less_goes_first():
    layers = make_layers([10, 10], [1, 1])
    curves = Curves(np.array([1.0, 0.01]), np.full(2, 3.0))
    counts = allocate(layers, curves, weight_costs(layers), 0.6, limits=np.ones(2))
    assert counts[0] > 2 * counts[1]


@given(
    scale=st.lists(st.floats(0.05, 5.0), min_size=1, max_size=5),
    exponent=st.floats(1.0, 12.0),
    levels=st.sampled_from([(0.5, 0.8), (0.25, 0.9), (0.5, 1.0)]),
)
def test_curves_go_through_both_atoms_of_a_power_law(scale, exponent, levels):
    table = np.array(scale)[:, None] * np.array(levels) ** exponent
    assume((table > 1e-2 * table.mean()).all())  # smaller ones get a share of the mean instead
    curves = fit_curves(table.reshape(-1), levels)
    for layer, values in enumerate(table):
        np.testing.assert_allclose(curves.at(layer, np.array(levels)), values, rtol=1e-6)
    np.testing.assert_allclose(curves.exponent, exponent, rtol=1e-6)


@given(values=st.lists(st.floats(0, 10), min_size=4, max_size=12).filter(lambda v: len(v) % 2 == 0))
def test_curves_are_convex_rising_and_never_free(values):
    curves = fit_curves(np.array(values), (0.5, 0.8))
    assert ((curves.exponent >= 1.0) & (curves.exponent <= 12.0)).all()
    assert (curves.scale > 0.0).all()
    levels = np.linspace(0, 1, 21)
    for layer in range(len(values) // 2):
        along = curves.at(layer, levels)
        assert (np.diff(along) >= 0).all()
        assert (np.diff(along, 2) >= -1e-12 * along.max()).all()


def test_layers_that_were_lowered_by_other_shares_get_the_curves_through_what_was_measured_there():
    levels = np.array([[0.5, 0.8], [1 / 3, 2 / 3]])
    table = np.array([0.7, 0.02])[:, None] * levels ** np.array([2.0, 3.0])[:, None]
    curves = fit_curves(table.reshape(-1), levels)
    np.testing.assert_allclose(curves.scale, [0.7, 0.02], rtol=1e-6)
    np.testing.assert_allclose(curves.exponent, [2.0, 3.0], rtol=1e-6)


def test_a_layer_lowered_by_the_same_share_twice_gets_the_default_exponent():
    curves = fit_curves(np.array([0.1, 0.1, 0.1, 0.4]), np.array([[0.5, 0.5], [0.25, 0.5]]))
    np.testing.assert_allclose(curves.exponent, [3.0, 2.0])
    assert curves.at(0, np.float64(0.5)) == pytest.approx(0.1)


def test_one_level_gets_the_default_exponent():
    curves = fit_curves(np.array([0.25, 2.0]), (0.5,))
    assert curves.exponent.tolist() == [3.0, 3.0]
    np.testing.assert_allclose([curves.at(0, np.float64(0.5)), curves.at(1, np.float64(0.5))], [0.25, 2.0])


def test_weights_are_the_default_costs():
    case = build("llama")
    layers = find_layers(case.model)
    costs = weight_costs(layers)
    assert costs.total(dense_counts(layers)) == sum(layer.weights for layer in layers)
    assert costs.fixed == 0.0


@few
@given(data=st.data(), budget=st.floats(0.3, 1.0))
def test_equal_layers_keep_as_many_units_of_a_kind_and_are_the_best_such_at_their_cost(data, budget):
    blocks, kinds = data.draw(st.integers(1, 3)), list(LayerKind)
    heads, channels = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([5, 48, 96]))
    layers = make_layers([heads, channels] * blocks, [40, 3] * blocks, kinds * blocks)
    values = st.lists(st.floats(0.01, 5.0), min_size=len(layers), max_size=len(layers))
    curves = Curves(np.array(data.draw(values)), 1.0 + np.array(data.draw(values)))
    limits, costs = np.ones(len(layers)), weight_costs(layers)
    counts = allocate(layers, curves, costs, budget, limits=limits, equal=True)
    assert len(set(counts[::2])) == len(set(counts[1::2])) == 1
    assert feasible(layers, costs, limits, budget, counts)
    chunk = max(1, channels // 48)
    assert (channels - counts[1]) % chunk == 0 or not counts[1]
    every = (np.tile(pair, blocks) for pair in product(range(heads + 1), range(channels % chunk, channels + 1, chunk)))
    best = min(expected_increase(layers, curves, c) for c in every if costs.total(c) <= costs.total(counts))
    # A head or a chunk at a time: what is taken last can be too much.
    taken = [np.maximum(counts + step, 0) for step in (np.tile([1, 0], blocks), np.tile([0, chunk], blocks))]
    least = min(expected_increase(layers, curves, np.minimum(c, dense_counts(layers))) for c in taken)
    assert min(expected_increase(layers, curves, counts), least) <= best * (1 + 1e-9) + 1e-12
