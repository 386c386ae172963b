from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.cutting import masked as masked_module
from personalization.cutting.cut_model import cut_model
from personalization.cutting.masked import Compensation, MaskedModel
from personalization.cutting.refit import moments, refit, ridge_for
from personalization.errors import UserError
from personalization.transformer.layers import find_layers, linear_weight
from personalization.transformer.trace import trace_dense
from tests.personalization.architectures import ARCHITECTURES, Shape, build, shapes

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
every_ridge = pytest.mark.parametrize("ridge", [None, 0.1])
few = settings(max_examples=5)


def ready(case, *, ridge=0.1, score="residual", fit=(True, True, True)):
    layers = find_layers(case.model)
    trace = trace_dense(case.model, layers, case.inputs)
    return MaskedModel(trace, Compensation(ridge=ridge, score=score, fit=torch.tensor(fit)))


def draw_counts(layers, rng, share=0.6, least=0):
    return {layer.index: int(rng.integers(least, layer.units + 1)) for layer in layers if rng.random() < share}


def close(masked, actual, expected, tolerance=1e-5):
    """Compare logits where they mean something, on the scale of the largest one."""
    if expected.ndim == 3:
        actual, expected = actual[masked.trace.positions], expected[masked.trace.positions]
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual / scale, expected / scale, atol=tolerance, rtol=0.0)


def same(masked, one, other, tolerance=1e-5):
    assert one.kept.keys() == other.kept.keys()
    for index, units in one.kept.items():
        np.testing.assert_array_equal(units, other.kept[index])
    close(masked, one.outputs, other.outputs, tolerance)


def cut(masked, result):
    layers = masked.trace.layers
    kept = [result.kept.get(layer.index, np.arange(layer.units)) for layer in layers]
    writers = {index: (writer.weight.clone(), writer.bias.clone()) for index, writer in result.writers.items()}
    return cut_model(masked.trace.model, layers, kept, writers)


@every_architecture
@every_ridge
@few
@given(shape=shapes(), seed=st.integers(0, 10**6))
def test_a_masked_pass_equals_the_cut_model(name, ridge, shape, seed):
    masked = ready(build(name, shape, seed), ridge=ridge)
    counts = draw_counts(masked.trace.layers, np.random.default_rng(seed))
    result = masked.run(counts)
    assert {index: len(units) for index, units in result.kept.items()} == counts
    assert result.writers.keys() == counts.keys()
    with torch.no_grad():
        close(masked, cut(masked, result)(**masked.trace.inputs).logits, masked.trace.logits(result.outputs))


@every_architecture
def test_dropping_everything_equals_the_model_cut_to_nothing(name):
    masked = ready(build(name))
    result = masked.run({layer.index: 0 for layer in masked.trace.layers})
    with torch.no_grad():
        close(masked, cut(masked, result)(**masked.trace.inputs).logits, masked.trace.logits(result.outputs))


@every_architecture
@every_ridge
def test_stacked_probes_equal_single_ones(name, ridge, monkeypatch):
    masked = ready(build(name, Shape(depth=3)), ridge=ridge)
    rng = np.random.default_rng(4)
    probes = [draw_counts(masked.trace.layers, rng, share=0.4, least=1) for _ in range(9)]
    alone = [masked.run(probe) for probe in probes]
    for positions in (8192, 1):
        monkeypatch.setattr(masked_module, "STACKED_POSITIONS", positions)
        for one, other in zip(ready(build(name, Shape(depth=3)), ridge=ridge).run_all(probes), alone, strict=True):
            same(masked, one, other)


@every_architecture
@few
@given(seed=st.integers(0, 10**6))
def test_the_order_of_probes_does_not_matter(name, seed):
    masked = ready(build(name, seed=seed))
    rng = np.random.default_rng(seed)
    probes = [draw_counts(masked.trace.layers, rng, least=1) for _ in range(4)]
    for one, other in zip(masked.run_all(probes), masked.run_all(probes[::-1])[::-1], strict=True):
        same(masked, one, other)


@every_architecture
@few
@given(seed=st.integers(0, 10**6))
def test_only_what_is_measured_is_computed_behind_the_last_lowered_block(name, seed):
    masked = ready(build(name, Shape(depth=3), seed), fit=(True, False, True))
    narrow = replace(masked, measured=torch.tensor([False, True, False]))
    rng = np.random.default_rng(seed)
    probes = [draw_counts(masked.trace.layers[:4], rng) for _ in range(4)]
    for one, other in zip(narrow.run_all(probes), masked.run_all(probes), strict=True):
        measured = replace(masked, trace=replace(masked.trace, positions=masked.trace.positions[1:2]))
        same(measured, replace(one, outputs=one.outputs[1:2]), replace(other, outputs=other.outputs[1:2]))
    skipped = narrow.run_all([{0: 1}])[0].outputs
    assert bool(skipped[[0, 2]].isnan().all())
    assert bool(skipped[1].isfinite().all())


@every_architecture
def test_a_probe_of_nothing_is_the_dense_model(name):
    masked = ready(build(name))
    for result in (masked.run({}), masked.run_all([{0: 1}, {}])[1]):
        assert torch.equal(result.outputs, masked.trace.outputs)
        assert not result.kept
        assert not result.writers
    assert all(map(torch.equal, masked.run({}).block_outputs, masked.trace.block_outputs))
    assert masked.run_all([]) == []


@every_architecture
@every_ridge
def test_a_probe_that_keeps_every_unit_is_nearly_the_dense_model(name, ridge):
    """Refitting with every column towards what the dense layer gives is the dense layer, up to rounding."""
    masked = ready(build(name), ridge=ridge)
    result = masked.run({layer.index: layer.units for layer in masked.trace.layers})
    close(masked, result.outputs, masked.trace.outputs, 1e-4)


@every_architecture
@every_ridge
@few
@given(seed=st.integers(0, 10**6))
def test_a_branch_equals_the_full_run(name, ridge, seed):
    masked = ready(build(name, Shape(depth=3), seed), ridge=ridge)
    layers, rng = masked.trace.layers, np.random.default_rng(seed)
    counts = {layer.index: int(rng.integers(1, layer.units + 1)) for layer in layers}
    branch = masked.branch(masked.run(counts))
    for layer in layers:
        lowered = counts | {layer.index: counts[layer.index] - 1}
        behind = {other.index: lowered[other.index] for other in layers if other.block >= layer.block}
        whole, part = masked.run(lowered), branch.run_all([behind])[0]
        close(masked, part.outputs, whole.outputs)
        for index, units in part.kept.items():
            np.testing.assert_array_equal(units, whole.kept[index])


@every_architecture
def test_a_branch_from_a_pass_that_skipped_blocks_equals_the_full_run(name):
    masked = ready(build(name, Shape(depth=3)))
    layers = masked.trace.layers
    branch = masked.branch(masked.run({4: 1, 5: 3}))
    for index in (2, 3, 4, 5):
        probe = {layer.index: layer.units for layer in layers if layer.block >= layers[index].block}
        probe |= {4: 1, 5: 3}
        probe[index] = 1
        close(masked, branch.run_all([probe])[0].outputs, masked.run(probe).outputs)


@every_architecture
def test_the_first_lowered_writer_is_the_refit_of_the_dense_activations(name):
    masked = ready(build(name), fit=(True, False, True))
    trace = masked.trace
    for layer in trace.layers:
        seen = []
        writer = trace.model.get_submodule(layer.writer)
        hook = writer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            trace.model(**trace.inputs)
        hook.remove()
        used = trace.positions.clone()
        used[1] = False
        if layer.block == trace.blocks - 1:
            used &= trace.read
        moment = moments(seen[0][used], trace.layer_outputs[layer.index][used])
        result = masked.run({layer.index: 1})
        columns = torch.from_numpy(layer.columns(result.kept[layer.index]))
        with torch.no_grad():
            expected = refit(linear_weight(writer), moment, columns, ridge_for(len(columns), moment.rows, 0.1))
        torch.testing.assert_close(result.writers[layer.index].weight, expected.weight, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(result.writers[layer.index].bias, expected.bias, atol=1e-5, rtol=1e-4)


@every_architecture
def test_samples_that_are_not_fitted_do_not_change_the_writers(name):
    case = build(name)
    other = build(name, seed=1)
    counts = {0: 1, 1: 5, 3: 4}
    first = ready(case, fit=(True, True, False)).run(counts)
    (key, *_) = case.inputs
    case.inputs[key][2] = other.inputs[key][2]
    second = ready(case, fit=(True, True, False)).run(counts)
    for index, writer in first.writers.items():
        np.testing.assert_array_equal(first.kept[index], second.kept[index])
        torch.testing.assert_close(writer.weight, second.writers[index].weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_padding_does_not_change_the_writers(name):
    case = build(name)
    counts = {0: 1, 1: 5, 2: 1, 3: 4}
    first = ready(case).run(counts)
    case.inputs["input_ids"][case.inputs["attention_mask"] == 0] = 7
    second = ready(case).run(counts)
    for index, writer in first.writers.items():
        torch.testing.assert_close(writer.weight, second.writers[index].weight, atol=1e-5, rtol=1e-4)


@every_architecture
@few
@given(seed=st.integers(0, 10**6), score=st.sampled_from(["variance", "residual"]))
def test_only_allowed_units_are_kept(name, seed, score):
    masked = ready(build(name, Shape(groups=3), seed=seed), score=score)
    rng = np.random.default_rng(seed)
    allowed = {
        layer.index: np.sort(rng.choice(layer.units, int(rng.integers(0, layer.units + 1)), replace=False))
        for layer in masked.trace.layers
    }
    masked = replace(masked, allowed=allowed)
    result = masked.run({index: int(rng.integers(0, len(units) + 1)) for index, units in allowed.items()})
    for index, units in result.kept.items():
        assert set(units) <= set(allowed[index])


@every_architecture
@every_ridge
def test_nothing_changes_the_model_and_no_hook_is_left(name, ridge):
    case = build(name)
    before = {key: tensor.clone() for key, tensor in case.model.state_dict().items()}
    masked = ready(case, ridge=ridge)
    masked.branch(masked.run({0: 1, 1: 2, 2: 1, 3: 3})).run_all([{2: 1, 3: 1}, {3: 5, 2: 2}])
    assert all(torch.equal(tensor, before[key]) for key, tensor in case.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in case.model.modules())
    with torch.no_grad():
        assert torch.equal(case.model(**case.inputs).logits, masked.trace.logits(masked.trace.outputs))


def test_an_error_in_a_pass_leaves_no_hook():
    case = build("vit")
    masked = ready(case)
    case.inputs["pixel_values"][0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        masked.run({0: 1, 1: 3})
    model = masked.trace.model
    assert not any(m._forward_hooks or "forward" in m.__dict__ for m in model.modules())
