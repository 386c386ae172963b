import copy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.cutting.cut_model import cut_model
from personalization.transformer.groups import dropped_units, share_kept, unit_groups, unit_norms
from personalization.transformer.layers import LayerKind, find_layers, linear_weight
from tests.personalization.architectures import ARCHITECTURES, build, random_kept, shapes

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
few = settings(max_examples=5)


def count(groups):
    return sum(len(layer_groups) for layer_groups in groups)


def squares(module):
    return float(linear_weight(module).detach().square().sum())


@every_architecture
@few
@given(shape=shapes(), seed=st.integers(0, 10**6), mlp_groups=st.integers(1, 20))
def test_groups_split_every_layer_into_even_parts(name, shape, seed, mlp_groups):
    case = build(name, shape, seed)
    layers = find_layers(case.model)
    groups = unit_groups(case.model, layers, mlp_groups)
    assert len(groups) == len(layers)
    for layer, parts in zip(layers, groups, strict=True):
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(layer.units))
        assert all((np.diff(part) > 0).all() for part in parts)
        sizes = [len(part) for part in parts]
        if layer.kind is LayerKind.ATTENTION:
            assert sizes == [1] * layer.units
        else:
            assert len(parts) == min(mlp_groups, layer.units)
            assert max(sizes) - min(sizes) <= 1


@every_architecture
def test_norms_of_units_are_those_of_what_a_cut_to_them_leaves(name):
    case = build(name)
    layers = find_layers(case.model)
    for layer in layers:
        norms = unit_norms(case.model, layer)
        for unit in range(layer.units):
            kept = [np.arange(other.units) for other in layers]
            kept[layer.index] = np.array([unit])
            cut = cut_model(case.model, layers, kept)
            read = sum(squares(cut.get_submodule(reader.path)) for reader in layer.readers)
            written = squares(cut.get_submodule(layer.writer))
            assert norms[unit] == pytest.approx(np.sqrt(read * written), rel=1e-5)


@every_architecture
def test_channels_are_grouped_by_norm(name):
    case = build(name)
    layers = find_layers(case.model)
    for layer, parts in zip(layers, unit_groups(case.model, layers, 3), strict=True):
        if layer.kind is LayerKind.MLP:
            norms = unit_norms(case.model, layer)
            assert all(norms[a].max() <= norms[b].min() for a, b in pairwise(parts))


def test_the_same_weights_give_the_same_groups():
    case = build("vit", seed=2)
    layers = find_layers(case.model)
    for one, other in zip(unit_groups(case.model, layers), unit_groups(copy.deepcopy(case.model), layers), strict=True):
        assert all(map(np.array_equal, one, other))


@every_architecture
@few
@given(seed=st.integers(0, 10**6))
def test_dropped_groups_and_their_units_say_the_same(name, seed):
    case = build(name)
    layers = find_layers(case.model)
    groups = unit_groups(case.model, layers, 4)
    dropped = np.random.default_rng(seed).random(count(groups)) < 0.4
    units = dropped_units(groups, dropped)
    kept = [np.setdiff1d(np.arange(layer.units), gone) for layer, gone in zip(layers, units, strict=True)]
    np.testing.assert_array_equal(share_kept(groups, kept), 1.0 - dropped)


@few
@given(seed=st.integers(0, 10**6))
def test_shares_kept_add_up_to_the_units_kept(seed):
    case = build("llama")
    layers = find_layers(case.model)
    groups = unit_groups(case.model, layers, 4)
    kept = random_kept(layers, seed)
    sizes = np.array([len(group) for parts in groups for group in parts])
    shares = share_kept(groups, kept)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert (shares * sizes).sum() == pytest.approx(sum(map(len, kept)))


def test_nothing_dropped_is_no_units():
    case = build("vit")
    layers = find_layers(case.model)
    groups = unit_groups(case.model, layers)
    assert all(len(units) == 0 for units in dropped_units(groups, np.zeros(count(groups), dtype=np.bool_)))
