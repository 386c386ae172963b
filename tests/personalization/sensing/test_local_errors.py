import numpy as np
import pytest
import torch
from torch import nn

from personalization.cutting.masked import Compensation, MaskedModel
from personalization.sensing.local_errors import local_errors
from personalization.sensing.measurement import DensePredictions
from personalization.sensing.probes import units_left
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import hidden_of, trace_dense
from tests.personalization.architectures import Shape, build

LEVELS = (0.25, 0.5, 0.8)
ARCHITECTURES = ("vit", "dinov2", "bert", "llama", "qwen2", "gpt2")
EVERY = pytest.mark.parametrize("name", ARCHITECTURES)


def masked_model(name, *, ridge=0.1, score="variance", allowed=None):
    case = build(name, Shape(groups=4, mlp=16, depth=3), seed=1)
    generator = torch.Generator().manual_seed(0)
    if name in ("vit", "dinov2"):
        inputs = {"pixel_values": torch.randn(16, 3, 8, 8, generator=generator)}
    else:
        inputs = {"input_ids": torch.randint(1, 31, (16, 7), generator=generator)}
        if name == "bert":
            inputs["attention_mask"] = torch.ones(16, 7, dtype=torch.long)
            inputs["attention_mask"][::2, 5:] = 0
    trace = trace_dense(case.model, find_layers(case.model), inputs)
    fit = torch.arange(16) < 12
    return MaskedModel(trace, Compensation(ridge=ridge, score=score, fit=fit), allowed or {}, measured=~fit)


def slow_error(masked, layer, level):
    """Lower the layer in a probe, and compare what it puts out in a pass of its own."""
    trace, places = masked.trace, masked.places(layer) & masked.measured[:, None]
    result = masked.run({layer.index: units_left(layer, level)})
    columns, writer = torch.from_numpy(layer.columns(result.kept[layer.index])), result.writers[layer.index]
    seen = []
    module = trace.model.get_submodule(layer.writer)
    hook = module.register_forward_hook(lambda _module, given, _output: seen.append(given[0]))
    with torch.inference_mode():
        trace.model(**trace.inputs)
    hook.remove()
    output = nn.functional.linear(seen[0][..., columns], writer.weight, writer.bias)
    moved = (output - trace.layer_outputs[layer.index]).square().sum(-1)
    return float((moved / hidden_of(trace.block_outputs[layer.block]).square().sum(-1))[places].mean())


@EVERY
@pytest.mark.parametrize("ridge", [0.1, None])
def test_they_are_what_a_probes_layer_puts_out_less_what_the_dense_one_does(name, ridge):
    masked = masked_model(name, ridge=ridge)
    found = local_errors(masked, LEVELS)
    assert found.shape == (len(masked.trace.layers), len(LEVELS))
    for layer in masked.trace.layers:
        for error, level in zip(found[layer.index], LEVELS, strict=True):
            assert error == pytest.approx(slow_error(masked, layer, level), rel=1e-4)


@EVERY
def test_they_rise_with_the_level_and_go_along_with_what_probes_measure(name):
    masked = masked_model(name)
    trace, found = masked.trace, local_errors(masked, LEVELS)
    assert (np.diff(found, axis=1) > 0.0).mean() > 0.9
    probes = [{layer.index: units_left(layer, level)} for layer in trace.layers for level in LEVELS]
    dense = DensePredictions(trace, signal="entropy", labels=None, on=masked.measured)
    rises = [dense.increase(result) for result in masked.run_all(probes)]
    assert np.corrcoef(np.log(found.ravel()), np.log(np.maximum(rises, 1e-9)))[0, 1] > 0.6


def test_how_the_cut_chooses_units_makes_no_difference():
    one, other = (local_errors(masked_model("llama", score=score), LEVELS) for score in ("variance", "residual"))
    np.testing.assert_array_equal(one, other)


def test_units_that_the_fleet_has_dropped_are_gone_already():
    masked = masked_model("llama", allowed={0: np.arange(1), 1: np.arange(4)})
    found = local_errors(masked, LEVELS)
    assert found[0].min() == found[0].max() > 0.0
    assert found[1, 0] == found[1, 1] > 0.0
    assert found[1, 0] > local_errors(masked_model("llama"), LEVELS)[1, 0]


def test_the_model_keeps_no_hooks():
    masked = masked_model("vit")
    local_errors(masked, LEVELS)
    assert not any(module._forward_hooks for module in masked.trace.model.modules())
