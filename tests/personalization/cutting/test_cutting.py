import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from personalization.cutting.cut_model import DroppedAttention, cut_model, fold_means, folded_writers
from personalization.cutting.gates import gated, unit_means
from personalization.transformer.layers import LayerKind, find_layers, linear_bias, linear_weight
from tests.personalization.architectures import ARCHITECTURES, DECODERS, Shape, build, logits, random_kept, shapes

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
few = settings(max_examples=8)


def everything(layers):
    return [np.arange(layer.units) for layer in layers]


def nothing():
    return np.empty(0, dtype=np.int64)


@every_architecture
@few
@given(shape=shapes(), seed=st.integers(0, 10**6))
def test_cut_model_equals_gated_model(name, shape, seed):
    case = build(name, shape, seed)
    layers = find_layers(case.model)
    kept = random_kept(layers, seed)
    means = unit_means(case.model, layers, case.inputs)
    with gated(case.model, layers, kept, means):
        expected = logits(case.model, case.inputs)
    cut = cut_model(case.model, layers, kept, folded_writers(case.model, layers, kept, means))
    torch.testing.assert_close(logits(cut, case.inputs), expected, atol=1e-5, rtol=1e-5)


@every_architecture
def test_dropping_every_layer_equals_gating_every_unit(name):
    case = build(name)
    layers = find_layers(case.model)
    kept = [nothing() for _ in layers]
    means = unit_means(case.model, layers, case.inputs)
    with gated(case.model, layers, kept, means):
        expected = logits(case.model, case.inputs)
    cut = cut_model(case.model, layers, kept, folded_writers(case.model, layers, kept, means))
    torch.testing.assert_close(logits(cut, case.inputs), expected, atol=1e-5, rtol=1e-5)
    assert sum(isinstance(module, DroppedAttention) for module in cut.modules()) == len(layers) // 2


@every_architecture
@few
@given(seed=st.integers(0, 10**6))
def test_cut_model_writes_with_the_writers_it_was_given(name, seed):
    """A gated dense model whose writers hold the same columns and bias must agree."""
    case = build(name, seed=seed)
    layers = find_layers(case.model)
    kept = random_kept(layers, seed)
    generator = torch.Generator().manual_seed(seed)
    dense, writers = copy.deepcopy(case.model), {}
    zeros = []
    for layer, units in zip(layers, kept, strict=True):
        module = dense.get_submodule(layer.writer)
        outputs, columns = linear_weight(module).shape
        weight = torch.randn(outputs, len(units) * layer.columns_per_unit, generator=generator)
        bias = torch.randn(outputs, generator=generator)
        writers[layer.index] = (weight, bias)
        full = torch.zeros(outputs, columns)
        full[:, torch.from_numpy(layer.columns(units))] = weight
        with torch.no_grad():
            linear_weight(module).copy_(full)
            module.bias = nn.Parameter(bias)
        zeros.append(torch.zeros(columns))
    cut = cut_model(case.model, layers, kept, writers)
    with gated(dense, layers, kept, zeros):
        expected = logits(dense, case.inputs)
    torch.testing.assert_close(logits(cut, case.inputs), expected, atol=1e-5, rtol=1e-4)


@every_architecture
def test_original_stays_as_it_is_and_shares_what_did_not_change(name):
    case = build(name)
    layers = find_layers(case.model)
    before = {key: tensor.clone() for key, tensor in case.model.state_dict().items()}
    modules = [type(module) for module in case.model.modules()]
    kept = everything(layers)
    kept[0], kept[-1] = nothing(), np.array([0])
    cut = cut_model(case.model, layers, kept)
    after = case.model.state_dict()
    assert [type(module) for module in case.model.modules()] == modules
    assert all(torch.equal(after[key], before[key]) for key in before)
    ours = {id(parameter) for parameter in cut.parameters()}
    touched = tuple(
        path for layer in (layers[0], layers[-1]) for path in (*(r.path for r in layer.readers), layer.writer)
    )
    for path, parameter in case.model.named_parameters():
        assert (id(parameter) in ours) != path.startswith(touched), path


@every_architecture
def test_keeping_everything_is_the_dense_model_bit_for_bit(name):
    case = build(name)
    layers = find_layers(case.model)
    cut = cut_model(case.model, layers, everything(layers))
    assert torch.equal(logits(cut, case.inputs), logits(case.model, case.inputs))


@every_architecture
def test_order_of_the_kept_units_does_not_matter(name):
    case = build(name)
    layers = find_layers(case.model)
    kept = [np.arange(1, layer.units) for layer in layers]
    means = unit_means(case.model, layers, case.inputs)
    backwards = [units[::-1].copy() for units in kept]
    outputs = [
        logits(cut_model(case.model, layers, k, folded_writers(case.model, layers, k, means)), case.inputs)
        for k in (kept, backwards)
    ]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_tied_embeddings_stay_tied(name):
    case = build(name)
    layers = find_layers(case.model)
    cut = cut_model(case.model, layers, random_kept(layers, 0))
    assert cut.get_input_embeddings().weight is cut.get_output_embeddings().weight


@every_architecture
def test_cut_modules_are_plain_linears_of_the_kept_size(name):
    case = build(name)
    layers = find_layers(case.model)
    kept = [np.array([1]) for _ in layers]
    cut = cut_model(case.model, layers, kept)
    assert not any(isinstance(module, Conv1D) for module in cut.modules())
    for layer in layers:
        assert cut.get_submodule(layer.writer).weight.shape[1] == layer.columns_per_unit
        for reader in layer.readers:
            assert cut.get_submodule(reader.path).weight.shape[0] == reader.rows_per_unit * reader.parts


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("dropped", [(), (0,), (0, 1), (2,), (0, 1, 2, 3, 4, 5)])
def test_generation_with_a_cache_equals_generation_without(name, dropped):
    case = build(name, Shape(groups=3, depth=3), seed=4)
    layers = find_layers(case.model)
    kept = [nothing() if i in dropped else units for i, units in enumerate(random_kept(layers, 1, drop=0))]
    means = unit_means(case.model, layers, case.inputs)
    cut = cut_model(case.model, layers, kept, folded_writers(case.model, layers, kept, means))
    prompt = case.inputs["input_ids"][:2]
    arguments = {"max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    cached = cut.generate(prompt, use_cache=True, **arguments)
    plain = cut.generate(prompt, use_cache=False, **arguments)
    assert torch.equal(cached.sequences, plain.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(plain.logits), atol=1e-5, rtol=1e-5)


def test_dropped_layers_keep_one_number_a_token_in_the_cache():
    case = build("llama")
    layers = find_layers(case.model)
    cut = cut_model(case.model, layers, [nothing() for _ in layers])
    cache = cut(case.inputs["input_ids"], use_cache=True).past_key_values
    assert cache.get_seq_length() == 7
    assert [layer.keys.numel() for layer in cache.layers] == [3 * 7, 3 * 7]


def test_fold_makes_a_bias_where_the_module_has_none():
    case = build("llama")
    layer = next(layer for layer in find_layers(case.model) if layer.kind is LayerKind.MLP)
    writer = case.model.get_submodule(layer.writer)
    assert linear_bias(writer) is None
    means = torch.arange(layer.units, dtype=torch.float32)
    weight, bias = fold_means(layer, case.model, np.array([0, 2]), means)
    means[[0, 2]] = 0
    assert torch.equal(weight, writer.weight[:, [0, 2]])
    torch.testing.assert_close(bias, writer.weight @ means)


@pytest.mark.parametrize(
    ("units", "message"), [([0, 0], "twice"), ([99], "outside"), ([-1], "outside")], ids=["twice", "high", "negative"]
)
def test_units_that_do_not_exist_are_refused(units, message):
    case = build("vit")
    layers = find_layers(case.model)
    kept = everything(layers)
    kept[1] = np.array(units)
    with pytest.raises(ValueError, match=message):
        cut_model(case.model, layers, kept)


def test_writers_of_the_wrong_shape_are_refused():
    case = build("vit")
    layers = find_layers(case.model)
    with pytest.raises(ValueError, match=r"expected \(16, 12\)"):
        cut_model(case.model, layers, everything(layers), {1: (torch.zeros(16, 3), torch.zeros(16))})
