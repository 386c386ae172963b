"""The whole model tuned to a device before its final cut."""

import gc
import math

import pytest
import torch

from personalization import UserError, personalize
from personalization.cutting.blockwise import cut_in_blocks
from personalization.cutting.masked import Compensation
from personalization.prediction.scoring import score_tokens
from personalization.sensing.private_trace import device_trace
from personalization.settings import PersonalizationSettings
from personalization.training.distillation import distill
from personalization.training.loop import TrainingData, TrainingSettings
from personalization.training.tuning import tune
from personalization.transformer.trace import DenseTrace
from tests.personalization.pipelines import SAMPLES, chosen, tiny
from tests.tiny_text import VOCABULARY, tiny_language_model


def text():
    """What is measured on, and all private text: tokens that count upwards."""
    windows = (torch.arange(40)[:, None] * 5 + torch.arange(17)) % VOCABULARY
    return {"input_ids": windows[:10, :-1]}, TrainingData({"input_ids": windows[:, :-1]}, windows[:, 1:])


def speaker(*, final=True, **fields):
    model, (inputs, more) = tiny_language_model("llama"), text()
    settings = PersonalizationSettings(budget=0.6, tolerance=math.inf, probes=4, seed=2, **fields)
    return personalize(model, inputs, training=more, final=final, settings=settings)


def nats(model, data):
    return float(score_tokens(model, data.inputs["input_ids"], data.labels).nats.mean())


def test_what_is_cut_is_the_tuned_model_and_where_is_as_before():
    model, (_, more) = tiny_language_model("llama"), text()
    plain, found = speaker(refit_samples=30), speaker(refit_samples=30, tune_first=20)
    assert [units.size for units in found.kept] == [units.size for units in plain.kept]
    assert (found.entropy_increase, found.agreement, found.evaluations) == (
        plain.entropy_increase, plain.agreement, plain.evaluations
    )  # fmt: skip
    assert found.samples.measurements.tolist() == plain.samples.measurements.tolist()
    assert nats(found.model, more) < nats(plain.model, more) - 0.02
    tuned = tune(model, found.layers, more, settings=TrainingSettings(steps=20, seed=2))
    counts = {layer.index: len(units) for layer, units in zip(found.layers, found.kept, strict=True)}
    used = {"input_ids": more.inputs["input_ids"][torch.linspace(0, 39, 30).round().long()]}
    everything = Compensation(ridge=0.1, score="residual", fit=torch.ones(30, dtype=torch.bool))
    expected = cut_in_blocks(tuned, found.layers, used, counts, compensation=everything, allowed={})
    for layer in found.layers:
        assert found.kept[layer.index].tolist() == expected.kept[layer.index].tolist()
        writer = found.model.get_submodule(layer.writer)
        assert torch.equal(writer.weight, expected.writers[layer.index].weight)


@pytest.mark.parametrize("recovery", ["distill", "distill-tune"])
def test_distillation_is_from_the_tuned_model(recovery):
    model, (inputs, more) = tiny_language_model("llama"), text()
    first = {"refit_samples": 30, "tune_first": 20}
    cut, found = speaker(**first), speaker(**first, recovery=recovery, training_steps=5)
    tuned = tune(model, cut.layers, more, settings=TrainingSettings(steps=20, seed=2))
    trace = device_trace(tuned, cut.layers, inputs, PersonalizationSettings())
    told = more.labels if recovery == "distill-tune" else None
    expected = distill(cut.model, trace, settings=TrainingSettings(steps=5, seed=2), data=more, labels=told)
    for one, other in zip(found.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_round_finds_the_same_and_leaves_a_model_that_nothing_was_trained_for():
    asked = {"refit_samples": 30, "tune_first": 5, "recovery": "distill", "training_steps": 5}
    plain, lasting, passing = speaker(), speaker(**asked), speaker(**asked, final=False)
    for found in (lasting, passing):
        assert found.samples.measurements.tolist() == plain.samples.measurements.tolist()
        assert found.levels.tolist() == plain.levels.tolist()
    same = zip(plain.model.parameters(), passing.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    trained = zip(plain.model.parameters(), lasting.model.parameters(), strict=True)
    assert not all(one.shape == other.shape and torch.equal(one, other) for one, other in trained)


@pytest.mark.parametrize("asked", [{}, {"tune_first": 2, "refit_samples": 30}])
def test_no_activations_stand_beside_the_training(monkeypatch, asked):
    gc.collect()
    before = {id(one) for one in _traces()}

    def trained(model, whole, *_arguments, **_named):
        found = [one for one in _traces() if id(one) not in before]
        assert found == [whole]
        assert not whole.layer_outputs
        assert not whole.block_outputs
        return model

    monkeypatch.setattr("personalization.pipeline.trained", trained)
    speaker(recovery="distill", training_steps=2, **asked)


def _traces():
    return [one for one in gc.get_objects() if type(one) is DenseTrace]


def test_what_the_final_pass_would_lack_is_told_in_the_first_round():
    model, inputs = tiny("vit")
    with pytest.raises(UserError, match="tune_first needs labels, which these samples lack"):
        personalize(model, inputs, settings=chosen(tune_first=1), final=False)


def test_it_works_with_images_too_and_needs_labels():
    model, inputs = tiny("vit")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    labels = torch.arange(SAMPLES) % 5
    plain, found = (
        personalize(model, inputs, labels=labels, settings=chosen(tune_first=steps, budget=0.8)) for steps in (0, 60)
    )

    def loss(result):
        with torch.inference_mode():
            return float(torch.nn.functional.cross_entropy(result.model(**inputs).logits, labels))

    assert loss(found) < loss(plain) - 0.1
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    with pytest.raises(UserError, match="tune_first needs labels, which these samples lack"):
        personalize(model, inputs, settings=chosen(tune_first=1))
