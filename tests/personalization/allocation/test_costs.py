import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.allocation import costs as costs_module
from personalization.allocation.costs import unit_costs
from personalization.allocation.footprint import count_macs, kept_weights
from personalization.cutting.cut_model import cut_model, fold_means
from personalization.model_files.storage import stored_bytes
from personalization.transformer.layers import LayerKind, find_layers
from tests.personalization.architectures import ARCHITECTURES, DECODERS, build, logits, random_kept

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
few = settings(max_examples=5)


def dense_counts(layers):
    return np.array([layer.units for layer in layers])


def one(case):
    return {key: value[:1] for key, value in case.inputs.items()}


@every_architecture
@few
@given(seed=st.integers(0, 10**6))
def test_weights_are_those_of_the_kept_units(name, seed):
    case = build(name, seed=seed)
    layers = find_layers(case.model)
    kept = random_kept(layers, seed)
    costs = unit_costs("weights", case.model, layers, case.inputs)
    assert costs.total(np.array(list(map(len, kept)))) == kept_weights(layers, kept)


@every_architecture
@few
@given(seed=st.integers(0, 10**6))
def test_predicted_macs_of_a_cut_are_those_counted(name, seed):
    case = build(name, seed=seed)
    layers = find_layers(case.model)
    kept = random_kept(layers, seed, drop=0.1)
    costs = unit_costs("macs", case.model, layers, case.inputs)
    counted = count_macs(cut_model(case.model, layers, kept), one(case), layers)
    assert costs.total(np.array(list(map(len, kept)))) == pytest.approx(counted, rel=1e-9)


@every_architecture
@few
@given(seed=st.integers(0, 10**6))
def test_predicted_bytes_of_a_cut_are_those_stored_but_for_the_header(name, seed):
    case = build(name, seed=seed)
    layers = find_layers(case.model)
    kept = random_kept(layers, seed, drop=0.0)
    costs = unit_costs("bytes", case.model, layers, case.inputs)
    writers = {}
    for layer, units in zip(layers, kept, strict=True):
        writers[layer.index] = fold_means(layer, case.model, units, torch.zeros(layer.units * layer.columns_per_unit))
    cut = stored_bytes(cut_model(case.model, layers, kept, writers))
    # Offsets in the header have fewer digits where there are fewer bytes, at most 2 * 2 for each tensor; a new one's
    # are counted with more than there can be.
    header = 4 * len(case.model.state_dict()) + 8 + 64 * len(layers)
    predicted = costs.total(np.array(list(map(len, kept)))) + costs.cut
    assert costs.total(dense_counts(layers)) == stored_bytes(case.model)
    assert 0 <= predicted + 8 - cut <= header + 8


@every_architecture
@pytest.mark.parametrize("kind", ["weights", "bytes", "macs", "latency"])
def test_costs_add_up_to_the_measured_total_and_no_unit_is_free(name, kind, monkeypatch):
    case = build(name)
    layers = find_layers(case.model)
    monkeypatch.setattr(costs_module, "measure_latency", lambda model, inputs: float(count_macs(model, inputs, layers)))
    total = {
        "weights": sum(layer.weights for layer in layers),
        "bytes": stored_bytes(case.model),
        "macs": count_macs(case.model, one(case), layers),
        "latency": count_macs(case.model, one(case), layers),
    }[kind]
    costs = unit_costs(kind, case.model, layers, case.inputs)
    assert costs.total(dense_counts(layers)) == pytest.approx(total)
    assert (costs.per_unit > 0).all()
    assert costs.fixed >= 0.0


def test_a_latency_that_does_not_fall_leaves_units_a_cost_and_the_total_is_not_below_them(monkeypatch):
    case = build("vit")
    layers = find_layers(case.model)
    monkeypatch.setattr(costs_module, "measure_latency", lambda model, inputs: 2.0)
    costs = unit_costs("latency", case.model, layers, case.inputs)
    assert (costs.per_unit > 0).all()
    assert costs.total(dense_counts(layers)) == pytest.approx(2.0)


@pytest.mark.parametrize("kind", ["weights", "bytes", "macs", "latency"])
def test_layers_of_a_kind_share_by_weights_and_the_model_stays(kind):
    case = build(DECODERS[1])
    layers = find_layers(case.model)
    before = logits(case.model, case.inputs)
    costs = unit_costs(kind, case.model, layers, case.inputs)
    for layer_kind in LayerKind:
        ratios = [costs.per_unit[la.index] / la.weights_per_unit for la in layers if la.kind is layer_kind]
        np.testing.assert_allclose(ratios, ratios[0])
    assert torch.equal(logits(case.model, case.inputs), before)
