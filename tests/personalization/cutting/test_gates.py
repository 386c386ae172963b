import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.cutting.gates import gated, unit_means
from personalization.transformer.layers import find_layers
from tests.personalization.architectures import ARCHITECTURES, build, logits, shapes

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def hooks(model):
    return sum(len(module._forward_pre_hooks) for module in model.modules())


@every_architecture
def test_every_gate_changes_the_output(name):
    case = build(name)
    layers = find_layers(case.model)
    means = unit_means(case.model, layers, case.inputs)
    dense = logits(case.model, case.inputs)
    for layer in layers:
        for unit in range(layer.units):
            kept = [np.arange(other.units) for other in layers]
            kept[layer.index] = np.delete(kept[layer.index], unit)
            with gated(case.model, layers, kept, means):
                change = (logits(case.model, case.inputs) - dense).abs().max()
            assert change > 1e-5, f"{layer.name} unit {unit}"


@every_architecture
@settings(max_examples=5)
@given(shape=shapes(), seed=st.integers(0, 10**6))
def test_with_every_unit_kept_the_output_is_the_dense_one_bit_for_bit(name, shape, seed):
    case = build(name, shape, seed)
    layers = find_layers(case.model)
    means = unit_means(case.model, layers, case.inputs)
    dense = logits(case.model, case.inputs)
    with gated(case.model, layers, [np.arange(layer.units) for layer in layers], means):
        assert torch.equal(logits(case.model, case.inputs), dense)
    assert torch.equal(logits(case.model, case.inputs), dense)


@every_architecture
def test_kept_columns_pass_bit_for_bit_and_removed_ones_are_their_mean(name):
    case = build(name)
    layers = find_layers(case.model)
    means = unit_means(case.model, layers, case.inputs)
    for layer in layers:
        seen = []
        writer = case.model.get_submodule(layer.writer)
        kept = [np.arange(other.units) for other in layers]
        kept[layer.index] = np.array([0])
        before = writer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with gated(case.model, layers, kept, means):
            after = writer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
            logits(case.model, case.inputs)
        before.remove()
        after.remove()
        plain, gate = seen
        width = layer.columns_per_unit
        assert torch.equal(gate[..., :width], plain[..., :width])
        assert torch.equal(gate[..., width:], means[layer.index][width:].expand_as(gate[..., width:]))


def test_hooks_are_removed_after_an_error():
    case = build("vit")
    layers = find_layers(case.model)
    means = unit_means(case.model, layers, case.inputs)
    none = [np.empty(0, dtype=np.int64) for _ in layers]
    seen = []

    def fail():
        with gated(case.model, layers, none, means):
            seen.append(hooks(case.model))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert seen == [len(layers)]
    assert hooks(case.model) == 0


@every_architecture
def test_means_do_not_depend_on_the_batch_size_or_on_padding(name):
    case = build(name)
    layers = find_layers(case.model)
    one = unit_means(case.model, layers, case.inputs, batch_size=1)
    whole = unit_means(case.model, layers, case.inputs)
    for first, second in zip(one, whole, strict=True):
        torch.testing.assert_close(first, second)
    assert hooks(case.model) == 0
    if "attention_mask" in case.inputs:
        longer = {key: torch.nn.functional.pad(tensor, (0, 3)) for key, tensor in case.inputs.items()}
        for first, second in zip(unit_means(case.model, layers, longer), whole, strict=True):
            torch.testing.assert_close(first, second)
