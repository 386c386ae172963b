"""What a device with a language model spends on one plan."""

import math

import numpy as np
import pytest
import torch

from personalization.pipeline import personalize
from personalization.sensing.prior import Prior
from personalization.settings import PersonalizationSettings
from tests.tiny_text import FAMILIES, tiny_language_model, tiny_preprocessing, tiny_tokenizer

WINDOWS = {"input_ids": torch.arange(16 * 20).reshape(16, 20) * 7 % tiny_tokenizer().get_vocab_size()}
ATOMS = 8


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("known", [None, 0.0, 1.0])
@pytest.mark.parametrize("vocabulary", [0, 280, -1])
def test_a_round_takes_at_most_ten_passes_over_the_private_batch(family, known, vocabulary):
    model, positions = tiny_language_model(family), []
    model.register_forward_pre_hook(
        lambda _module, _args, given: positions.append(given["input_ids"].numel()), with_kwargs=True
    )
    precision = np.where(np.arange(ATOMS) % 2, known or 0.0, 1.0)
    prior = None if known is None else Prior(np.full(ATOMS, 0.1), precision)
    settings = PersonalizationSettings(
        budget=0.7, budget_kind="bytes", tolerance=math.inf, vocabulary=vocabulary, tune_first=3
    )
    asked = {"labels": WINDOWS["input_ids"], "preprocessing": tiny_preprocessing(), "final": False}
    found = personalize(model, WINDOWS, prior=prior, settings=settings, **asked)
    assert (found.fewer_tokens is None) == (vocabulary == 0)
    assert found.evaluations == settings.probes + 1
    assert sum(positions) <= 10 * WINDOWS["input_ids"].numel()


def test_fresh_probes_of_a_step_are_there_for_who_asks():
    model = tiny_language_model("llama")
    settings = PersonalizationSettings(budget=0.7, tolerance=math.inf, step_probes=2)
    assert personalize(model, WINDOWS, settings=settings).evaluations >= settings.probes + 3
