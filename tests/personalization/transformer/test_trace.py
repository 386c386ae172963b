from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import BertModel, LlamaConfig, LlamaForSequenceClassification

from personalization.errors import UserError
from personalization.transformer.layers import find_layers
from personalization.transformer.readout import outputs_of
from personalization.transformer.trace import replayed, trace_dense
from tests.personalization.architectures import (
    ARCHITECTURES,
    CLASSES,
    DECODERS,
    VOCABULARY,
    Shape,
    build,
    logits,
    shapes,
)

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
few = settings(max_examples=4)


def traced(case):
    layers = find_layers(case.model)
    return trace_dense(case.model, layers, case.inputs)


def rerun(trace, first_block, copies=1):
    repeated = {name: value.repeat(copies, *[1] * (value.ndim - 1)) for name, value in trace.inputs.items()}
    with torch.inference_mode(), replayed(trace, first_block, copies=copies):
        return outputs_of(trace.model, repeated)


def is_clean(model):
    return not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in model.modules())


def padded_classifier():
    """A decoder whose head reads the last token of each text; texts are of 7, 5 and 4 tokens."""
    case = build("llama")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=12,
        num_hidden_layers=2,
        num_labels=CLASSES,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    mask = case.inputs["attention_mask"]
    return LlamaForSequenceClassification(config).eval(), {
        "input_ids": case.inputs["input_ids"] * mask,
        "attention_mask": mask,
    }


@every_architecture
@few
@given(shape=shapes(), seed=st.integers(0, 10**6))
def test_a_trace_is_the_dense_run_and_what_its_modules_returned(name, shape, seed):
    case = build(name, shape, seed)
    trace = traced(case)
    with torch.no_grad():
        logits = trace.logits(trace.outputs)
        assert torch.equal(logits, case.model(**case.inputs).logits)
    assert (trace.samples, trace.blocks, len(trace.layer_outputs)) == (3, shape.depth, 2 * shape.depth)
    assert all(output.shape == (*trace.positions.shape, shape.width) for output in trace.layer_outputs)
    assert not trace.shift.any()
    assert trace.shift.shape == logits.shape[-1:]
    assert is_clean(case.model)


@every_architecture
def test_replay_gives_the_same_logits_from_every_block(name):
    trace = traced(build(name, Shape(depth=5)))
    for first_block in range(trace.blocks + 1):
        torch.testing.assert_close(rerun(trace, first_block), trace.outputs, atol=1e-6, rtol=1e-6)
        assert is_clean(trace.model)


@every_architecture
@few
@given(copies=st.integers(2, 4), seed=st.integers(0, 10**6))
def test_copies_repeat_the_batch(name, copies, seed):
    trace = traced(build(name, seed=seed))
    for first_block in (1, 2):
        for part in rerun(trace, first_block, copies).chunk(copies):
            torch.testing.assert_close(part, trace.outputs, atol=1e-5, rtol=1e-5)


@every_architecture
def test_skipped_blocks_are_not_computed(name):
    """What they would compute is spoiled; the replay must not notice."""
    trace = traced(build(name, Shape(depth=3)))
    with torch.no_grad():
        for layer in trace.layers:
            if layer.block < 2:
                trace.model.get_submodule(layer.writer).weight.fill_(torch.nan)
    torch.testing.assert_close(rerun(trace, 2), trace.outputs, atol=1e-6, rtol=1e-6)


@every_architecture
def test_an_error_inside_a_replay_leaves_no_patch(name):
    trace = traced(build(name, Shape(depth=3)))

    def fail():
        with replayed(trace, 2):
            patched = [m for m in trace.model.modules() if "forward" in m.__dict__]
            assert len(patched) == 2
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert is_clean(trace.model)
    assert torch.equal(rerun(trace, 0), trace.outputs)


def test_an_error_inside_a_trace_leaves_no_hook():
    case = build("vit")
    layers = find_layers(case.model)
    with pytest.raises(ValueError, match="size"):
        trace_dense(case.model, layers, {"pixel_values": torch.zeros(2, 3, 9, 9)})
    assert is_clean(case.model)


@pytest.mark.parametrize(("name", "read"), [("vit", [0]), ("deit", [0]), ("bert", [0]), ("dinov2", [0, 1, 2, 3, 4])])
def test_positions_that_a_classifier_reads(name, read):
    trace = traced(build(name))
    assert trace.read.shape == trace.positions.shape
    assert [row.nonzero().flatten().tolist() for row in trace.read] == [read] * 3


@pytest.mark.parametrize("name", DECODERS)
def test_a_language_model_reads_every_position(name):
    assert traced(build(name)).read.all()


def test_a_head_that_reads_the_last_token_reads_another_position_in_shorter_texts():
    model, inputs = padded_classifier()
    trace = trace_dense(model, find_layers(model), inputs)
    assert [row.nonzero().flatten().tolist() for row in trace.read] == [[6], [4], [3]]


@every_architecture
def test_only_read_positions_of_the_last_block_reach_the_logits(name):
    trace = traced(build(name, seed=3))
    changed = trace.block_outputs[-1].clone()
    changed[~trace.read] += 1.0
    other = replace(trace, block_outputs=(*trace.block_outputs[:-1], changed))
    torch.testing.assert_close(rerun(other, trace.blocks), trace.outputs, atol=1e-6, rtol=1e-6)


@every_architecture
def test_padding_is_not_a_position(name):
    case = build(name)
    mask = case.inputs.get("attention_mask")
    positions = traced(case).positions
    assert torch.equal(positions, torch.ones_like(positions) if mask is None else mask.bool())


def test_a_model_without_a_head_is_refused():
    case = build("bert")
    model: nn.Module = BertModel(case.model.config).eval()
    with pytest.raises(UserError, match="BertModel: no logits"):
        trace_dense(model, find_layers(model), case.inputs)
    assert is_clean(model)


@every_architecture
def test_nothing_changes_the_model(name):
    case = build(name)
    before = {key: tensor.clone() for key, tensor in case.model.state_dict().items()}
    expected = logits(case.model, case.inputs)
    trace = traced(case)
    rerun(trace, 1, copies=2)
    assert all(torch.equal(tensor, before[key]) for key, tensor in case.model.state_dict().items())
    assert torch.equal(logits(case.model, case.inputs), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_trace_knows_whether_the_stream_is_a_sum_of_what_layers_put_out(name):
    case = build(name, Shape(depth=3))
    trace = trace_dense(case.model, find_layers(case.model), case.inputs)
    # A norm behind each sum, or a scale on each layer, makes it something else.
    assert trace.sums == (name not in ("bert", "dinov2"))
