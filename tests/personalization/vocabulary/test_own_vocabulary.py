"""A personal model with fewer tokens: which it keeps, what is measured before they go, and who teaches it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from personalization import UserError, personalize
from personalization.data.tasks import PrivateSamples
from personalization.data.texts import TextPreprocessing
from personalization.model_files.storage import stored_bytes
from personalization.settings import PersonalizationSettings
from personalization.training.loop import TrainingData, spread
from personalization.training.tuning import tune_first
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import trace_dense
from personalization.vocabulary.cut import choose_tokens, cut_vocabulary, expected_tokens, mean_predictions
from personalization.vocabulary.fewer_tokens import costs_with
from tests.tiny_text import VOCABULARY, tiny_language_model, tiny_preprocessing

MOST = 290
SETTINGS = PersonalizationSettings(budget=0.6, tolerance=math.inf, probes=4, seed=2, vocabulary=MOST)
TUNED = replace(SETTINGS, tune_first=20)
CHOOSING = replace(SETTINGS, budget=0.8, budget_kind="bytes", vocabulary=-1)
CHOOSING_TUNED = replace(CHOOSING, tune_first=20)


def speaker():
    """A person who counts upwards, in steps of one."""
    windows = (torch.arange(40)[:, None] * 5 + torch.arange(17)) % VOCABULARY
    training = TrainingData({"input_ids": windows[:, :-1]}, windows[:, 1:])
    return PrivateSamples({"input_ids": windows[:10, :-1]}, windows[:10, 1:], training)


def personal(model, settings, *, preprocessing=None, samples=None, **asked):
    samples = samples or speaker()
    asked |= {"labels": samples.labels, "training": samples.training, "settings": settings}
    return personalize(model, samples.inputs, preprocessing=preprocessing or tiny_preprocessing(), **asked)


def chosen(model, samples, windows=0):
    """The cut that a model chooses itself, told by what is measured on, or by so many windows of all text."""
    private = samples.training.labels.numpy().ravel()
    told_by = spread(samples.training, windows) if windows else samples.inputs
    return choose_tokens(tiny_preprocessing(), private, expected_tokens(model, told_by), most=MOST)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("settings", [SETTINGS, TUNED, replace(TUNED, refit_samples=30)])
def test_tokens_are_those_that_the_model_expects_which_is_cut_in_the_end(tied, settings):
    model, samples = tiny_language_model("llama", tied=tied), speaker()
    before = [parameter.clone() for parameter in model.parameters()]
    found = personal(model, settings)
    whole = tune_first(model, samples.training, settings) if settings.tune_first else model
    cut = chosen(whole, samples, settings.refit_samples)
    assert (cut.kept.tolist() == chosen(model, samples).kept.tolist()) == (whole is model)
    assert found.fewer_tokens == cut.preprocessing
    expected = cut_vocabulary(whole, cut)
    assert found.model.config.vocab_size == len(cut.kept) <= MOST
    for of in (lambda m: m.get_input_embeddings(), lambda m: m.get_output_embeddings(), lambda m: m.model.norm):
        assert torch.equal(of(found.model).weight, of(expected).weight)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_more_text_tells_of_other_tokens():
    model, samples = tiny_language_model("llama"), speaker()
    assert chosen(model, samples).kept.tolist() != chosen(model, samples, 30).kept.tolist()
    in_rounds, in_the_end = (personal(model, replace(SETTINGS, refit_samples=30), final=f) for f in (False, True))
    assert in_rounds.fewer_tokens == chosen(model, samples).preprocessing
    assert in_the_end.fewer_tokens == chosen(model, samples, 30).preprocessing


@pytest.mark.parametrize(("settings", "asked"), [(SETTINGS, 1), (TUNED, 1), (CHOOSING, 1), (CHOOSING_TUNED, 2)])
def test_what_tokens_are_expected_is_asked_of_a_model_only_where_it_decides(settings, asked, monkeypatch):
    calls = []

    def counted(head, outputs):
        calls.append(outputs)
        return mean_predictions(head, outputs)

    for module in ("vocabulary.fewer_tokens", "final_model"):
        monkeypatch.setattr(f"personalization.{module}.mean_predictions", counted)
    personal(tiny_language_model("llama"), settings)
    assert len(calls) == asked


def test_what_is_measured_is_measured_of_the_model_that_all_of_the_fleet_has():
    model = tiny_language_model("llama")
    found = [personal(model, settings) for settings in (TUNED, SETTINGS, replace(SETTINGS, vocabulary=0))]
    assert found[2].fewer_tokens is None
    assert found[2].model.config.vocab_size == VOCABULARY
    for other in found[1:]:
        assert found[0].samples.measurements.tolist() == other.samples.measurements.tolist()
        assert found[0].levels.tolist() == other.levels.tolist()
        assert found[0].entropy_increase == other.entropy_increase


@pytest.mark.parametrize("settings", [SETTINGS, TUNED, replace(TUNED, refit_samples=30)])
def test_tokens_go_last_and_blocks_are_those_of_the_model_with_all_of_them(settings):
    fewer, whole = (personal(tiny_language_model("llama"), replace(settings, vocabulary=most)) for most in (MOST, 0))
    names = [name for name, _ in fewer.model.named_parameters() if "embed" not in name and "lm_head" not in name]
    ours, theirs = (dict(found.model.named_parameters()) for found in (fewer, whole))
    assert len(names) > 20
    assert ours.keys() == theirs.keys()
    for name in names:
        assert torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["bytes", "macs"])
def test_blocks_get_what_tokens_that_go_have_cost(kind, tied):
    model = tiny_language_model("llama", tied=tied)
    settings = replace(SETTINGS, budget_kind=kind, budget=0.8, vocabulary=260)
    layers = find_layers(model)
    trace = trace_dense(model, layers, speaker().inputs)
    fewer = personal(model, settings)
    whole, units = personal(model, replace(settings, vocabulary=0)), np.array([layer.units for layer in layers])
    assert fewer.weights_kept > whole.weights_kept
    costs, _ = costs_with(trace, None, settings)
    rows = (VOCABULARY - 260) * 36 * {"bytes": 4 if tied else 8, "macs": 16}[kind]
    counts = [[len(kept) for kept in found.kept] for found in (fewer, whole)]
    spent = [costs.total(np.array(c)) for c in counts]
    assert spent[0] - rows == pytest.approx(spent[1], abs=2 * costs.per_unit.max())
    assert spent[1] <= 0.8 * costs.total(units)
    if kind == "bytes":
        # With the biases that refits have made, and never more than another unit would have taken below it.
        for found in (fewer, whole):
            assert 0.0 <= 0.8 * stored_bytes(model) - stored_bytes(found.model) < costs.per_unit.max() + 2000


def test_what_is_wrong_is_told_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr("personalization.pipeline.device_trace", lambda *_, **__: pytest.fail("measured"))
    model, samples = tiny_language_model("llama"), speaker()
    few = PrivateSamples({"input_ids": samples.inputs["input_ids"][:3]}, samples.labels[:3], samples.training)
    monkeypatch.setattr("personalization.system.extras.importlib.util.find_spec", lambda name: None)
    words = TextPreprocessing(tiny_preprocessing().tokenizer.replace('"type":"BPE"', '"type":"WordLevel"'), None, 64)
    for changed, settings, line in (
        ({}, replace(SETTINGS, vocabulary=20), "a vocabulary of 20 tokens: expected 257 or more"),
        ({"preprocessing": words}, SETTINGS, "a WordLevel tokenizer"),
        ({"preprocessing": words}, replace(SETTINGS, vocabulary=-1, budget_kind="bytes"), "a WordLevel tokenizer"),
        ({"samples": few}, TUNED, "3 private samples"),
        ({"samples": PrivateSamples(samples.inputs, None)}, SETTINGS, "needs the next tokens of the samples as labels"),
        ({}, replace(TUNED, adapters=2), "adapters need the library peft"),
    ):
        with pytest.raises(UserError, match=line):
            personal(model, settings, **changed)
    with pytest.raises(UserError, match="an image classifier has no vocabulary"):
        personalize(model, samples.inputs, labels=samples.labels, settings=SETTINGS)


@pytest.mark.parametrize(("recovery", "taught"), [("distill", [False]), ("distill-tune", [True]), ("tune", [])])
@pytest.mark.parametrize("tune_first", [0, 20])
def test_a_recovery_that_distils_learns_from_the_model_with_all_its_tokens(monkeypatch, recovery, taught, tune_first):
    model, samples, lessons = tiny_language_model("llama"), speaker(), []

    def distill_spelled(cut, layers, teacher, *, settings, labels):
        lessons.append((teacher, labels))
        return cut

    monkeypatch.setattr("personalization.final_model.distill_spelled", distill_spelled)
    settings = replace(SETTINGS, recovery=recovery, training_steps=1, tune_first=tune_first)
    found = personal(model, settings)
    assert [labels for _, labels in lessons] == taught
    for teacher, _ in lessons:
        assert (
            teacher.windows.tolist()
            == torch.cat([samples.training.inputs["input_ids"], samples.training.labels[:, -1:]], 1).tolist()
        )
        assert teacher.model.config.vocab_size == VOCABULARY
        assert (teacher.model is model) == (tune_first == 0)
        assert torch.equal(teacher.model.model.norm.weight, found.model.model.norm.weight)


def test_the_model_of_a_round_has_fewer_tokens_too_but_is_neither_tuned_nor_taught(monkeypatch):
    for name in ("tune_first", "distill_spelled"):
        monkeypatch.setattr(f"personalization.final_model.{name}", lambda *_, **__: pytest.fail("trained"))
    settings = replace(TUNED, recovery="distill", training_steps=1)
    found = personal(tiny_language_model("llama"), settings, final=False)
    assert found.model.config.vocab_size <= MOST
