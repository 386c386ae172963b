"""A model that is tuned first says itself which tokens its person will need."""

import math
from dataclasses import replace

import pytest
import torch

from personalization import UserError, personalize
from personalization.own_vocabulary import own_vocabulary
from personalization.settings import PersonalizationSettings
from personalization.tasks import TaskSamples
from personalization.texts import TextPreprocessing
from personalization.training import TrainingData
from personalization.tuning import tune_first
from personalization.vocabulary import choose_tokens, cut_vocabulary, expected_tokens
from tests.tiny_text import VOCABULARY, tiny_language_model, tiny_tokenizer

MOST = 290
SETTINGS = PersonalizationSettings(budget=0.6, tolerance=math.inf, probes=4, seed=2, tune_first=20)


def speaker():
    """A person who counts upwards, in steps of one."""
    windows = (torch.arange(40)[:, None] * 5 + torch.arange(17)) % VOCABULARY
    training = TrainingData({"input_ids": windows[:, :-1]}, windows[:, 1:])
    return TaskSamples({"input_ids": windows[:10, :-1]}, windows[:10, 1:], training)


def preprocessing():
    return TextPreprocessing(tiny_tokenizer().to_str(), None, 64)


def test_tokens_are_those_that_the_tuned_model_expects():
    model, samples = tiny_language_model("llama"), speaker()
    found = own_vocabulary(model, preprocessing(), samples, most=MOST, settings=SETTINGS)
    tuned = tune_first(model, samples.training, SETTINGS)
    private = samples.training.labels.numpy().ravel()
    cut = choose_tokens(preprocessing(), private, expected_tokens(tuned, samples.inputs), most=MOST)
    untuned = own_vocabulary(model, preprocessing(), samples, most=MOST)
    assert found.preprocessing == cut.preprocessing != untuned.preprocessing
    assert untuned.tuned is None
    for own, whole in ((found.model, model), (found.tuned, tuned)):
        expected = cut_vocabulary(whole, cut)
        assert own.config.vocab_size == len(cut.kept) <= MOST
        for one, other in zip(own.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one, other)


def test_what_is_wrong_is_told_before_the_model_is_tuned(monkeypatch):
    monkeypatch.setattr("personalization.own_vocabulary.tune_first", lambda *_: pytest.fail("tuned"))
    model, samples = tiny_language_model("llama"), speaker()
    few = TaskSamples({"input_ids": samples.inputs["input_ids"][:3]}, samples.labels[:3], samples.training)
    adapters = replace(SETTINGS, adapters=2)
    monkeypatch.setattr("personalization.extras.importlib.util.find_spec", lambda name: None)
    for given, most, settings, words in (
        (samples, 20, SETTINGS, "a vocabulary of 20 tokens: expected 257 or more"),
        (few, MOST, SETTINGS, "3 private samples"),
        (samples, MOST, adapters, "adapters need the library peft"),
    ):
        with pytest.raises(UserError, match=words):
            own_vocabulary(model, preprocessing(), given, most=most, settings=settings)


def test_what_is_cut_in_the_end_is_the_model_that_chose():
    model, samples = tiny_language_model("llama"), speaker()
    own = own_vocabulary(model, preprocessing(), samples, most=MOST, settings=SETTINGS)
    asked = {"training": own.samples.training, "settings": SETTINGS, "labels": own.samples.labels}
    found = personalize(own.model, own.samples.inputs, tuned=own.tuned, **asked)
    anew = personalize(own.model, own.samples.inputs, **asked)
    # The search is of the model that all of the fleet has.
    assert found.samples.measurements.tolist() == anew.samples.measurements.tolist()
    norms = [one.model.norm.weight for one in (found.model, own.tuned, own.model, anew.model)]
    assert torch.equal(norms[0], norms[1])
    assert not torch.equal(norms[0], norms[2])
    assert not torch.equal(norms[0], norms[3])


@pytest.mark.parametrize(("recovery", "taught"), [("distill", [False]), ("distill-tune", [True]), ("tune", [])])
@pytest.mark.parametrize("tune_first", [0, 20])
def test_a_recovery_that_distils_learns_from_the_model_with_all_its_tokens(monkeypatch, recovery, taught, tune_first):
    model, samples = tiny_language_model("llama"), speaker()
    settings = replace(SETTINGS, recovery=recovery, training_steps=1, tune_first=tune_first)
    own = own_vocabulary(model, preprocessing(), samples, most=MOST, settings=settings)
    teachers = []

    def distill_spelled(cut, layers, teacher, *, settings, labels):
        teachers.append((teacher, labels))
        return cut

    monkeypatch.setattr("personalization.final_model.distill_spelled", distill_spelled)
    asked = {"training": own.samples.training, "settings": settings, "labels": own.samples.labels}
    personalize(own.model, own.samples.inputs, tuned=own.tuned, teacher=own.teacher, **asked)
    assert teachers == [(own.teacher, labels) for labels in taught]
    if tune_first:
        assert torch.equal(own.teacher.model.model.norm.weight, own.tuned.model.norm.weight)
    else:
        assert own.teacher.model is model
