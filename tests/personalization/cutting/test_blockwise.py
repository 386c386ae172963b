import math
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import personalization.cutting.blockwise as blockwise
from personalization.cutting.blockwise import cut_in_blocks
from personalization.cutting.masked import Compensation, MaskedModel, lowered_writer
from personalization.cutting.refit import MomentSum, moments
from personalization.errors import UserError
from personalization.pipeline import personalize
from personalization.settings import PersonalizationSettings
from personalization.training.loop import TrainingData
from personalization.transformer.forward_replacement import forward_replaced
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import trace_dense
from tests.personalization.architectures import ARCHITECTURES, Shape, build
from tests.tiny_text import FAMILIES, VOCABULARY, tiny_language_model

few = settings(max_examples=5)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("ridge", [None, 0.1])
@few
@given(seed=st.integers(0, 10**6), size=st.integers(1, 3))
def test_block_by_block_and_a_few_samples_at_a_time_equals_one_pass(name, ridge, seed, size):
    case, rng = build(name, Shape(depth=3), seed), np.random.default_rng(seed)
    inputs = {key: value for key, value in case.inputs.items() if key != "attention_mask"}
    layers = find_layers(case.model)
    everything = Compensation(ridge=ridge, score="residual", fit=torch.ones(3, dtype=torch.bool))
    counts = {layer.index: int(rng.integers(1, layer.units)) for layer in layers}
    allowed = {layer.index: np.arange(1, layer.units) for layer in layers[::2] if counts[layer.index] < layer.units}
    trace = trace_dense(case.model, layers, inputs)
    masked = MaskedModel(trace, everything, allowed)
    expected, everything = masked.run(counts), replace(everything, carried=masked.carried)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "_POSITIONS", size * trace.positions.shape[1])
        found = cut_in_blocks(case.model, layers, inputs, counts, compensation=everything, allowed=allowed)
    # A masked pass fits the last block of a classifier to the positions that its head reads.
    last = trace.blocks if bool(trace.read.all()) else trace.blocks - 1
    for layer in layers:
        if layer.block < last:
            np.testing.assert_array_equal(found.kept[layer.index], expected.kept[layer.index])
            own, other = found.writers[layer.index], expected.writers[layer.index]
            torch.testing.assert_close(own.weight, other.weight, atol=2e-4, rtol=1e-3)
            torch.testing.assert_close(own.bias, other.bias, atol=2e-4, rtol=1e-3)
    assert not any("forward" in module.__dict__ for module in case.model.modules())


class Recorded:
    """What the blocks of a model read, and what its writers read and return, some of them cut."""

    def __init__(self, model, layers, inputs, kept, writers):
        self.block_inputs, self.x, self.y = {}, {}, {}
        with ExitStack() as stack, torch.inference_mode():
            for layer in layers:
                note = partial(self._note_block, layer.block)
                block = model.get_submodule(layer.block_path)
                stack.callback(block.register_forward_pre_hook(note, with_kwargs=True).remove)
                module = model.get_submodule(layer.writer)
                cut = (layer.columns(kept[layer.index]), writers[layer.index]) if layer.index in writers else None
                stack.enter_context(forward_replaced(module, partial(self._write, layer.index, module.forward, cut)))
            model(**inputs)

    def _note_block(self, block, _module, args, kwargs):
        self.block_inputs[block] = args[0] if args else kwargs["hidden_states"]

    def _write(self, index, dense, cut, x):
        self.x[index] = x
        if cut is None:
            self.y[index] = dense(x)
        else:
            columns, writer = cut
            self.y[index] = torch.nn.functional.linear(x[..., columns], writer.weight, writer.bias)
        return self.y[index]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_writer_makes_up_for_a_share_of_what_the_stream_lacks_before_it(family):
    model, (_, more) = tiny_language_model(family), text_and_more()
    layers, inputs = find_layers(model), more.inputs
    counts = {layer.index: max(1, layer.units * 2 // 3) for layer in layers}
    everything = Compensation(ridge=0.1, score="residual", fit=torch.ones(24, dtype=torch.bool))
    dense, kept, writers = Recorded(model, layers, inputs, {}, {}), {}, {}
    for layer in layers:
        so_far = Recorded(model, layers, inputs, kept, writers)
        lacking = dense.block_inputs[layer.block] - so_far.block_inputs[layer.block]
        for before in layers[: layer.index]:
            if before.block == layer.block:
                lacking = lacking + dense.y[before.index] - so_far.y[before.index]
        target = dense.y[layer.index] + 0.5 * lacking
        moment = moments(so_far.x[layer.index].flatten(0, -2), target.flatten(0, -2))
        module, units = model.get_submodule(layer.writer), np.arange(layer.units)
        found = lowered_writer(layer, module, moment, units, counts[layer.index], everything)
        kept[layer.index], writers[layer.index] = found
    result = cut_in_blocks(model, layers, inputs, counts, compensation=everything, allowed={})
    for layer in layers:
        np.testing.assert_array_equal(result.kept[layer.index], kept[layer.index])
        own, other = result.writers[layer.index], writers[layer.index]
        torch.testing.assert_close(own.weight, other.weight, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(own.bias, other.bias, atol=2e-4, rtol=1e-3)


@few
@given(seed=st.integers(0, 10**6), parts=st.integers(1, 5))
def test_moments_of_rows_that_come_in_parts_are_those_of_all(seed, parts):
    generator = torch.Generator().manual_seed(seed)
    x, y = (100.0 + torch.randn(40, width, generator=generator, dtype=torch.float64) for width in (5, 3))
    total = MomentSum()
    for rows in torch.arange(40).chunk(parts):
        total.add(x[rows], y[rows])
    found, expected = total.moments(), moments(x, y)
    for name in ("x_mean", "y_mean", "covariance", "cross"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def text_and_more():
    generator = torch.Generator().manual_seed(5)
    windows = torch.randint(VOCABULARY, (24, 21), generator=generator)
    return {"input_ids": windows[:8, :-1]}, TrainingData({"input_ids": windows[:, :-1]}, windows[:, 1:])


def test_the_final_cut_of_a_language_model_is_compensated_on_as_many_samples_as_are_asked_for():
    model, (inputs, more) = tiny_language_model("llama"), text_and_more()

    def personal(refit_samples):
        settings = PersonalizationSettings(budget=0.7, tolerance=math.inf, refit_samples=refit_samples)
        return personalize(model, inputs, training=more, settings=settings)

    plain, same, larger, all_of_them = (personal(count) for count in (0, 8, 20, 99))
    for one, other in zip(plain.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert plain.entropy_increase == larger.entropy_increase  # of the step, which is measured as before
    assert [len(units) for units in plain.kept] == [len(units) for units in larger.kept]
    counts = {layer.index: len(units) for layer, units in zip(plain.layers, plain.kept, strict=True)}
    everything = Compensation(ridge=0.1, score="residual", fit=torch.ones(24, dtype=torch.bool))
    expected = MaskedModel(trace_dense(model, plain.layers, more.inputs), everything).run(counts)
    for layer in plain.layers:
        bias = all_of_them.model.get_submodule(layer.writer).bias
        torch.testing.assert_close(bias, expected.writers[layer.index].bias, atol=2e-4, rtol=1e-3)


def test_images_are_all_measured_on_so_there_are_no_more_of_them():
    case = build("vit", Shape())
    inputs = {"pixel_values": torch.randn(8, *case.inputs["pixel_values"].shape[1:])}
    with pytest.raises(UserError, match="refit_samples is for language models"):
        personalize(case.model, inputs, settings=PersonalizationSettings(refit_samples=9))
