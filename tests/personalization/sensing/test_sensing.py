from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.cutting.masked import Compensation, MaskedModel
from personalization.sensing.measurement import DensePredictions
from personalization.sensing.prior import Prior
from personalization.sensing.probes import (
    ProbeSamples,
    draw_probes,
    one_at_a_time,
    personalized_layers,
    probe_counts,
    probe_levels,
    take_samples,
    telling_atoms,
)
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import trace_dense
from tests.personalization.architectures import ARCHITECTURES, Shape, build

seeds = st.integers(0, 10**6)


def draw(layers, levels, probes, *, layers_per_probe=1, prior=None, seen=None, seed=0, telling=None):
    return draw_probes(
        layers,
        levels,
        probes,
        layers_per_probe=layers_per_probe,
        prior=prior,
        seen=np.zeros(layers * levels) if seen is None else seen,
        rng=np.random.default_rng(seed),
        telling=telling,
    )


@pytest.mark.parametrize("levels", [(0.5, 0.8), (0.1, 0.2, 1.0)])
def test_a_layer_of_few_units_is_lowered_by_what_it_can_be_lowered_by(levels):
    layers = find_layers(build("llama", Shape(groups=3)).model)
    shares = probe_levels(layers, levels)
    assert shares.shape == (len(layers), len(levels))
    assert (shares > 0.0).all()
    for layer in layers:
        for number, share in enumerate(shares[layer.index]):
            probe = np.zeros(len(layers) * len(levels))
            probe[layer.index * len(levels) + number] = 1.0
            assert probe_counts(probe, layers, levels)[layer.index] == pytest.approx(layer.units * (1.0 - share))


@given(
    layers=st.integers(1, 8),
    levels=st.integers(1, 3),
    probes=st.integers(0, 30),
    layers_per_probe=st.integers(1, 10),
    seed=seeds,
)
def test_a_probe_lowers_as_many_different_layers_as_it_should(layers, levels, probes, layers_per_probe, seed):
    design = draw(layers, levels, probes, layers_per_probe=layers_per_probe, seed=seed)
    assert design.shape == (probes, layers * levels)
    assert set(np.unique(design)) <= {0.0, 1.0}
    per_layer = design.reshape(probes, layers, levels).sum(2)
    assert (per_layer <= 1).all()
    assert (per_layer.sum(1) == min(layers_per_probe, layers)).all()


@given(
    layers=st.integers(1, 6), probes=st.integers(0, 20), layers_per_probe=st.integers(1, 4), seed=seeds, data=st.data()
)
def test_only_telling_atoms_are_drawn(layers, probes, layers_per_probe, seed, data):
    telling = np.array(data.draw(st.lists(st.booleans(), min_size=2 * layers, max_size=2 * layers)))
    design = draw(layers, 2, probes, layers_per_probe=layers_per_probe, seed=seed, telling=telling)
    assert not design[:, ~telling].any()
    assert len(design) == (probes if telling.any() else 0)
    assert (design.sum(1) == min(layers_per_probe, len(np.unique(np.flatnonzero(telling) // 2)))).all()


def test_what_the_fleet_has_dropped_can_no_longer_be_measured():
    layers = find_layers(build("vit", Shape(mlp=20)).model)
    units = np.array([layer.units for layer in layers])
    assert telling_atoms(layers, (0.5, 0.8), units).all()
    gone = units.copy()
    mlp = next(layer for layer in layers if layer.units >= 16)
    for share, expected in ((0.2, [True, True]), (0.5, [False, True]), (0.75, [False, False])):
        gone[mlp.index] = round(mlp.units * (1.0 - share))
        telling = telling_atoms(layers, (0.5, 0.8), gone).reshape(-1, 2)
        assert telling[mlp.index].tolist() == expected
        assert np.delete(telling, mlp.index, axis=0).all()


@given(layers=st.integers(1, 8), levels=st.integers(1, 3), rounds=st.integers(1, 3), seed=seeds)
def test_no_atom_is_drawn_again_before_all_others_have_been(layers, levels, rounds, seed):
    atoms = layers * levels
    design = draw(layers, levels, rounds * atoms, seed=seed)
    for start in range(0, len(design), atoms):
        np.testing.assert_array_equal(design[start : start + atoms].sum(0), np.ones(atoms))


@given(layers=st.integers(2, 8), levels=st.integers(1, 3), layers_per_probe=st.integers(2, 4), seed=seeds)
def test_an_atom_comes_again_only_where_a_probe_has_no_layer_left_for_new_ones(layers, levels, layers_per_probe, seed):
    atoms = layers * levels
    design = draw(layers, levels, atoms // min(layers_per_probe, layers), layers_per_probe=layers_per_probe, seed=seed)
    drawn = np.zeros(atoms, dtype=bool)
    for row in design.astype(bool):
        if (row & drawn).any():
            left = np.flatnonzero(~drawn & ~row) // levels
            assert set(left) <= set(np.flatnonzero(row) // levels)
        drawn |= row


@given(layers=st.integers(2, 8), levels=st.integers(1, 3), seed=seeds)
def test_what_this_device_has_seen_comes_last(layers, levels, seed):
    atoms = layers * levels
    seen = np.random.default_rng(seed).integers(0, 3, atoms).astype(np.float64)
    design = draw(layers, levels, atoms, seen=seen, seed=seed)
    assert (np.diff(seen[design.argmax(1)]) >= 0).all()


def test_uncertain_atoms_are_drawn_first_with_their_odds():
    """Precisions of 0 and 4 around a mean of 2 have odds 1 and 1/3: the first draw is 3 times as often uncertain."""
    prior = Prior(np.ones(10), np.repeat([0.0, 4.0], 5))
    rng = np.random.default_rng(0)
    first = [
        draw_probes(5, 2, 1, layers_per_probe=1, prior=prior, seen=np.zeros(10), rng=rng).argmax() for _ in range(4000)
    ]
    counts = np.bincount(first, minlength=10)
    assert (np.array(first) < 5).mean() == pytest.approx(0.75, abs=0.03)
    assert counts.min() > 0.5 * counts.max() / 3


def test_without_a_prior_or_with_one_that_knows_nothing_all_atoms_are_alike():
    for prior in (None, Prior(np.zeros(8), np.zeros(8))):
        rng = np.random.default_rng(1)
        first = [
            draw_probes(4, 2, 1, layers_per_probe=1, prior=prior, seen=np.zeros(8), rng=rng).argmax()
            for _ in range(4000)
        ]
        np.testing.assert_allclose(np.bincount(first, minlength=8) / 4000, 1 / 8, atol=0.025)


def test_the_same_generator_draws_the_same_probes():
    np.testing.assert_array_equal(draw(6, 2, 9, layers_per_probe=3), draw(6, 2, 9, layers_per_probe=3))
    assert (draw(6, 2, 9, layers_per_probe=3) != draw(6, 2, 9, layers_per_probe=3, seed=1)).any()


def test_samples_are_joined_in_order():
    first = ProbeSamples(np.eye(3), np.arange(3.0))
    joined = ProbeSamples.none(3).joined(first).joined(ProbeSamples(np.ones((1, 3)), np.array([9.0])))
    assert joined.measurements.tolist() == [0.0, 1.0, 2.0, 9.0]
    np.testing.assert_array_equal(joined.design, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])


def test_one_at_a_time_is_every_atom_alone():
    np.testing.assert_array_equal(one_at_a_time(3, 2), np.eye(6))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_counts_are_what_the_levels_leave(name):
    layers = find_layers(build(name, Shape(mlp=12)).model)
    levels = (0.25, 0.5, 1.0)
    for layer in layers:
        for number, level in enumerate(levels):
            probe = np.zeros(len(layers) * 3)
            probe[layer.index * 3 + number] = 1.0
            left = min(round(layer.units * (1 - level)), layer.units - 1)
            assert probe_counts(probe, layers, levels) == {layer.index: left}
            available = np.ones(len(layers), dtype=np.int64)
            (count,) = probe_counts(probe, layers, levels, available).values()
            assert count <= 1


@settings(max_examples=5)
@given(seed=seeds)
def test_every_probe_is_measured_once_and_as_if_alone(seed):
    case = build("vit", seed=seed)
    trace = trace_dense(case.model, find_layers(case.model), case.inputs)
    masked = MaskedModel(trace, Compensation(ridge=0.1, score="residual", fit=torch.tensor([True, True, False])))
    on = ~masked.compensation.fit
    calls, dense = [], DensePredictions(trace, signal="entropy", labels=None, on=on)

    def increase(result):
        calls.append(result)
        return dense.increase(result)

    design = draw(4, 2, 7, layers_per_probe=2, seed=seed)
    samples = take_samples(masked, design, (0.5, 0.8), measure=increase)
    assert len(calls) == 7
    np.testing.assert_array_equal(samples.design, design)
    alone = [increase(masked.run(probe_counts(row, trace.layers, (0.5, 0.8)))) for row in design]
    np.testing.assert_allclose(samples.measurements, alone, atol=1e-4, rtol=1e-3)


@given(
    values=st.lists(st.integers(0, 10_000).map(lambda n: n / 1000), min_size=2, max_size=12).filter(
        lambda v: len(v) % 2 == 0
    ),
    share=st.floats(0.05, 1.0),
)
def test_personalized_layers_are_the_fewest_that_cover_the_share(values, share):
    sensitivity = np.array(values)
    per_layer = sensitivity.reshape(-1, 2).sum(1)
    chosen = personalized_layers(sensitivity, 2, share)
    wanted = share * per_layer.sum() * (1 - 1e-9)
    assert chosen.shape == per_layer.shape
    if per_layer.sum() == 0.0:
        assert not chosen.any()
        return
    assert per_layer[chosen].sum() >= wanted
    fewer = combinations(range(len(per_layer)), int(chosen.sum()) - 1)
    assert all(per_layer[list(subset)].sum() < share * per_layer.sum() * (1 + 1e-9) for subset in fewer)
    assert per_layer[chosen].min() >= per_layer[~chosen].max(initial=0.0)
