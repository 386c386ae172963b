"""A model with fewer tokens learns from one with all of them when to spell a word, and how."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from personalization.data.tasks import text_samples
from personalization.prediction.scoring import score_spelled
from personalization.training.distillation import LABEL_SHARE, distill
from personalization.training.loop import TrainingSettings, batch_size
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import trace_dense
from personalization.vocabulary.piece_predictions import PiecePredictions
from personalization.vocabulary.spelled_distillation import distill_spelled
from personalization.vocabulary.whole_teacher import PRACTICE_SHARE
from tests.tiny_text import VOCABULARY, cut_tokens, tiny_language_model, tiny_tokenizer

NAMED = tiny_tokenizer().get_vocab_size()
SETTINGS = TrainingSettings(steps=60, seed=1)


def speaker(windows=60, seed=0):
    """Text that the tiny model writes itself, of all tokens that have a name: what it expects, comes."""
    generator = torch.Generator().manual_seed(seed)
    found, model = torch.randint(NAMED, (windows, 1), generator=generator), tiny_language_model("llama")
    with torch.inference_mode():
        for _ in range(24):
            probabilities = model(found).logits[:, -1, :NAMED].softmax(-1)
            found = torch.cat([found, torch.multinomial(probabilities, 1, generator=generator)], 1)
    return found.clone().numpy()


def cut(most=270, windows=60):
    """A tiny model, what becomes of it with `most` tokens, and its layers."""
    model = tiny_language_model("llama")
    samples = text_samples(speaker(windows), most=10)
    smaller, own = cut_tokens(model, samples, most)
    made = SimpleNamespace(model=smaller, samples=own.samples, teacher=own.teacher)
    return model, made, find_layers(smaller)


def cost_of_dropped(own, model):
    """Mean nats of a dropped token in text that nobody was trained on."""
    test = speaker(windows=100, seed=5)
    spelled = np.array([len(pieces) > 1 for pieces in own.teacher.spelling.pieces])
    return float(score_spelled(model, test, own.teacher.spelling).nats.numpy()[spelled[test[:, 1:]]].mean())


def test_words_that_must_be_spelled_cost_less_than_after_learning_from_a_model_that_spells_them_too():
    _, own, layers = cut()
    plain = distill(own.model, trace_dense(own.model, layers, own.samples.inputs), settings=SETTINGS)
    taught = distill_spelled(own.model, layers, own.teacher, settings=SETTINGS)
    assert cost_of_dropped(own, taught) < cost_of_dropped(own, plain) - 0.4


def exchanged(own, seed):
    """Practice windows before they are spelled, and which of their tokens are none of the speaker's."""
    found = []
    spelling = copy.copy(own.teacher.spelling)
    object.__setattr__(spelling, "spell_windows", lambda windows: found.append(windows) or windows)
    replace(own.teacher, spelling=spelling).practice(predictions_of(own), TrainingSettings(steps=1, seed=seed))
    return found[0], found[0] != own.teacher.windows


def predictions_of(own):
    return PiecePredictions(own.teacher.spelling)


def test_practice_exchanges_tokens_for_dropped_ones_where_the_teacher_expects_them():
    model, own, _ = cut()
    windows, changed = (np.stack(each) for each in zip(*(exchanged(own, seed) for seed in range(20)), strict=True))
    dropped = predictions_of(own).dropped
    assert np.isin(windows[changed], dropped.numpy()).all()
    assert not changed[:, :, 0].any()
    # An exchange may draw the token that stood there.
    assert 0.7 * PRACTICE_SHARE < changed[:, :, 1:].mean() <= 1.1 * PRACTICE_SHARE
    with torch.no_grad():
        logits = model(torch.from_numpy(own.teacher.windows[:, :-1])).logits
    chance = logits.softmax(-1)[..., dropped].sum(-1).numpy()
    often = chance > np.median(chance)
    expected = chance[often].mean() / chance[~often].mean()
    assert expected > 1.2
    found = changed[:, :, 1:]
    assert found[:, often].mean() / found[:, ~often].mean() == pytest.approx(expected, rel=0.15)


def test_practice_is_spelled_and_the_same_for_a_seed():
    _, own, _ = cut()
    one, same, other = (own.teacher.practice(predictions_of(own), replace(SETTINGS, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    windows, _ = exchanged(own, 3)
    assert np.array_equal(one.numpy(), own.teacher.spelling.spell_windows(windows))


def test_where_no_token_was_dropped_there_is_no_practice_and_it_is_plain_distillation():
    _, own, layers = cut(most=VOCABULARY)
    assert own.teacher.practice(predictions_of(own), SETTINGS).shape == (0, 25)
    few = TrainingSettings(steps=3, seed=1)
    trace = trace_dense(own.model, layers, own.samples.inputs)
    moved = copy.deepcopy(own.model)
    for parameter in moved.model.layers.parameters():
        parameter.data *= 1.1
    found = distill_spelled(moved, layers, own.teacher, settings=few)
    expected = distill(moved, trace, settings=few, data=own.samples.training)
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_no_more_practice_is_made_than_there_are_batches_for(monkeypatch):
    _, own, layers = cut()
    given, windows = {}, own.teacher.windows

    def train(model, layers, loss, *, samples, positions, settings, **_):
        given.update(samples=samples, needed=settings.steps * batch_size(model, positions))
        return model

    monkeypatch.setattr("personalization.vocabulary.spelled_distillation.train", train)
    for steps, expected in ((1, 11), (3, 32), (9, 60)):
        distill_spelled(own.model, layers, own.teacher, settings=TrainingSettings(steps=steps))
        assert given["samples"] == 2 * expected
        assert given["samples"] >= min(given["needed"], 2 * len(windows))
    few = own.teacher.of_windows(11).windows
    assert np.array_equal(few[[0, -1]], windows[[0, -1]])
    assert len(np.unique(few, axis=0)) == 11


def test_no_steps_are_no_training():
    _, own, layers = cut()
    assert distill_spelled(own.model, layers, own.teacher, settings=TrainingSettings(steps=0)) is own.model


@pytest.mark.parametrize("labels", [False, True])
def test_the_loss_is_divergence_and_beside_labels_of_private_text_cross_entropy(labels, monkeypatch):
    _, own, layers = cut()
    given = {}

    def train(model, layers, loss, *, samples, **_):
        given.update(samples=samples, loss=loss)
        return model

    monkeypatch.setattr("personalization.vocabulary.spelled_distillation.train", train)
    distill_spelled(own.model, layers, own.teacher, settings=SETTINGS, labels=labels)
    windows = torch.cat([own.teacher.private(), own.teacher.practice(predictions_of(own), SETTINGS)])
    assert given["samples"] == len(windows) == 120
    for number, written in ((7, True), (100, False)):
        pieces = windows[number]
        with torch.no_grad():
            whole = own.teacher.model(predictions_of(own).whole[pieces[None, :-1]]).logits[0].softmax(-1)
            targets = predictions_of(own).of(whole, pieces[:-1])
            logits = own.model(pieces[None, :-1]).logits[0]
        # The divergence and the entropy of the targets, which has no gradient.
        missed = -(targets * logits.log_softmax(-1)).sum(-1).mean()
        share = LABEL_SHARE if labels and written else 0.0
        expected = (1.0 - share) * missed + share * nn.functional.cross_entropy(logits, pieces[1:])
        found = given["loss"](own.model, torch.tensor([number])).detach()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_speaker_with_little_text_is_taught_on_all_of_it():
    windows = speaker(windows=9)
    samples = text_samples(windows)
    assert samples.training is None
    _, own = cut_tokens(tiny_language_model("llama"), samples, 270)
    assert np.array_equal(own.teacher.windows, windows)
    assert torch.equal(own.teacher.private()[:, :-1], own.samples.inputs["input_ids"])
