import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from personalization.cutting.cut_model import cut_model
from personalization.cutting.masked import Compensation, MaskedModel, MaskedPass
from personalization.sensing.measurement import DensePredictions
from personalization.training import distillation
from personalization.training.distillation import LABEL_SHARE, distill
from personalization.training.loop import TrainingData, TrainingSettings, batch_size
from personalization.transformer.layers import find_layers
from personalization.transformer.readout import outputs_of
from personalization.transformer.trace import trace_dense
from tests.personalization.architectures import CLASSES, build


def prepared(name="vit", samples=60):
    """A dense trace and a model cut from it by half, compensated."""
    case = build(name, seed=1)
    generator = torch.Generator().manual_seed(0)
    if name == "vit":
        inputs = {"pixel_values": torch.randn(samples, 3, 8, 8, generator=generator)}
    else:
        mask = torch.ones(samples, 7, dtype=torch.long)
        mask[::2, 5:] = 0
        inputs = {
            "input_ids": torch.randint(1, 31, (samples, 7), generator=generator),
            "attention_mask": mask,
        }
    layers = find_layers(case.model)
    trace = trace_dense(case.model, layers, inputs)
    everything = torch.ones(samples, dtype=torch.bool)
    masked = MaskedModel(trace, Compensation(ridge=0.1, score="residual", fit=everything))
    result = masked.run({layer.index: layer.units // 2 for layer in layers})
    writers = {index: (writer.weight.clone(), writer.bias.clone()) for index, writer in result.writers.items()}
    return trace, cut_model(case.model, layers, [result.kept[layer.index] for layer in layers], writers)


@torch.no_grad()
def divergence(trace, model):
    everything = torch.ones(trace.samples, dtype=torch.bool)
    dense = DensePredictions(trace, signal="entropy", labels=None, on=everything)
    return dense.increase(MaskedPass(outputs_of(model, trace.inputs)))


def state(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ["vit", "bert", "llama"])
def test_distillation_brings_a_cut_model_closer_to_the_dense_one(name):
    trace, cut = prepared(name)
    student = distill(cut, trace, settings=TrainingSettings(steps=150, seed=0))
    assert divergence(trace, student) < 0.9 * divergence(trace, cut)
    assert not student.training
    assert not any(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize("name", ["vit", "llama"])
def test_the_cut_and_the_dense_model_stay_as_they_are(name):
    trace, cut = prepared(name)
    before, dense = state(cut), state(trace.model)
    student = distill(cut, trace, settings=TrainingSettings(steps=3, seed=0))
    assert all(torch.equal(tensor, before[key]) for key, tensor in cut.state_dict().items())
    assert all(torch.equal(tensor, dense[key]) for key, tensor in trace.model.state_dict().items())
    ours = {parameter.data_ptr() for parameter in student.parameters() if parameter.numel()}
    dense = trace.model
    shared = {id(dense.lm_head.weight), id(dense.model.embed_tokens.weight)} if name == "llama" else set()
    theirs = (p for model in (cut, dense) for p in model.parameters() if id(p) not in shared)
    assert not any(parameter.numel() and parameter.data_ptr() in ours for parameter in theirs)
    assert all(parameter.grad is None for parameter in trace.model.parameters())


def test_the_same_seed_gives_the_same_student_and_another_another():
    trace, cut = prepared(samples=120)
    global_state = torch.random.get_rng_state()
    one, same, other = (
        distill(cut, trace, settings=TrainingSettings(steps=4, seed=seed)).state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(tensor, same[key]) for key, tensor in one.items())
    assert any(not torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert torch.equal(torch.random.get_rng_state(), global_state)


def test_no_steps_are_no_training():
    trace, cut = prepared()
    assert distill(cut, trace, settings=TrainingSettings(steps=0, seed=0)) is cut


def data_of(trace):
    return TrainingData({key: value.clone() for key, value in trace.inputs.items()}, None)


@pytest.mark.parametrize("name", ["vit", "llama"])
@pytest.mark.parametrize("precision", ["single", "bfloat16"])
def test_the_dense_model_sees_samples_once_that_come_again(name, precision, monkeypatch):
    trace, cut = prepared(name, samples=80)
    batch, passes = batch_size(cut, trace.positions.shape[1]), 0

    def count(*_):
        nonlocal passes
        passes += 1

    def students(steps):
        nonlocal passes
        passes = 0
        settings = TrainingSettings(steps=steps, precision=precision)
        return distill(cut, trace, settings=settings, data=data_of(trace)), passes

    hook = trace.model.register_forward_hook(count)
    often = -(-80 // batch) + 3
    once, seen = students(often)
    assert seen == -(-80 // batch)
    monkeypatch.setattr(distillation, "_ROOM", 0)
    each_time, seen = students(often)
    # One batch tells how much room all would take.
    assert seen == often + 1
    _, seen = students(1)
    assert seen == (1 if batch < 80 else 2)
    hook.remove()
    for ours, theirs in zip(once.parameters(), each_time.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_what_stands_at_padding_is_not_learned():
    trace, cut = prepared("llama", samples=12)
    spoiled = trace.outputs.clone()
    spoiled[~trace.positions] = torch.randn(spoiled[~trace.positions].shape, generator=torch.Generator().manual_seed(5))
    one, other = (
        distill(cut, t, settings=TrainingSettings(steps=3, seed=0)) for t in (trace, replace(trace, outputs=spoiled))
    )
    for parameter, counterpart in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, counterpart)


def test_the_head_s_shift_is_part_of_what_is_learned():
    """A student whose classifier already has the shift stays where it is, up to Adam's steps on rounding errors."""
    trace, _ = prepared(samples=12)
    shift = torch.linspace(-1, 1, CLASSES)
    shifted = cut_model(trace.model, trace.layers, [range_of(layer) for layer in trace.layers])
    shifted.classifier.bias = nn.Parameter(shifted.classifier.bias.detach() + shift)
    after = distill(shifted, replace(trace, shift=shift), settings=TrainingSettings(steps=5, seed=0))
    plain = distill(shifted, trace, settings=TrainingSettings(steps=5, seed=0))
    drift = [(model.classifier.bias - shifted.classifier.bias).abs().sum() for model in (after, plain)]
    assert divergence(replace(trace, outputs=trace.outputs + shift), after) < 1e-3
    assert drift[0] < drift[1]


@pytest.mark.parametrize("name", ["vit", "llama"])
@pytest.mark.parametrize("more", [False, True])
def test_beside_labels_a_share_of_the_loss_is_cross_entropy(name, more):
    """One step of Adam against the same with a loss that is written out: at first its length is the rate, so that only
    the direction of each weight's gradient matters."""
    trace, cut = prepared(name, samples=12)
    temperature, shape = (2.0, (12,)) if name == "vit" else (1.0, (12, 7))
    labels = torch.randint(1, trace.classes, shape, generator=torch.Generator().manual_seed(7))
    data = TrainingData(trace.inputs, labels) if more else None
    found = distill(cut, trace, settings=TrainingSettings(steps=1, seed=0), data=data, labels=labels)
    slow = copy.deepcopy(cut)
    for parameter in slow.parameters():
        parameter.requires_grad_(True)
    places = torch.ones(shape, dtype=torch.bool) if more or name == "vit" else trace.positions.clone()
    with torch.no_grad():
        targets = (trace.model(**trace.inputs).logits[places] / temperature).log_softmax(-1)
    logits = slow(**{key: value.clone() for key, value in trace.inputs.items()}).logits[places]
    divergence = nn.functional.kl_div(
        (logits / temperature).log_softmax(-1), targets, log_target=True, reduction="batchmean"
    )
    surprise = nn.functional.cross_entropy(logits, labels[places])
    ((1.0 - LABEL_SHARE) * temperature**2 * divergence + LABEL_SHARE * surprise).backward()
    told, largest = 0, max(p.grad.abs().max() for p in slow.parameters() if p.grad is not None)
    for before, after, expected in zip(cut.parameters(), found.parameters(), slow.parameters(), strict=True):
        moved = after - before
        if expected.grad is None or not moved.any():
            continue
        clear = expected.grad.abs() > 1e-4 * largest
        assert torch.equal(moved[clear].sign(), -expected.grad[clear].sign())
        told += int(clear.sum())
    assert told > 500


def range_of(layer):
    return torch.arange(layer.units).numpy()
