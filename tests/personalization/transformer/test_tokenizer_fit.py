"""A model that knows words in a fixed order by heart, and the same text in another tokenizer's tokens."""

import pytest
import torch

from personalization.data.texts import windows
from personalization.errors import UserError
from personalization.transformer.readout import outputs_of
from personalization.transformer.tokenizer_fit import check_tokenizer
from tests.tiny_text import (
    FAMILIES,
    VOCABULARY,
    ordered_words,
    tiny_language_model,
    tiny_preprocessing,
    trained_language_model,
)


@pytest.fixture(scope="module")
def text():
    return torch.from_numpy(windows(tiny_preprocessing().encode(ordered_words(60)), 32)[:, :-1])


def renumbered(text):
    """What a tokenizer with the same pieces and other numbers makes of the text."""
    order = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(1))
    return order[text]


def check(model, tokens, known=None):
    check_tokenizer(model, tokens, outputs_of(model, {"input_ids": tokens}), known)
    check_tokenizer(model, tokens if known is None else tokens[:, known[0]])


def test_the_model_s_own_tokens_pass_and_renumbered_ones_do_not(text):
    check(trained_language_model(), text)
    with pytest.raises(UserError, match="tokenizer does not seem to belong to it: a token of this text costs"):
        check(trained_language_model(), renumbered(text))


def test_a_model_that_was_never_trained_passes_with_any_tokens(text):
    for family in FAMILIES:
        check(tiny_language_model(family), text)
        check(tiny_language_model(family), renumbered(text))


def test_padding_is_not_looked_at(text):
    padded = torch.cat([text, renumbered(text)], 1)
    known = torch.arange(padded.shape[1])[None].expand(len(padded), -1) < text.shape[1]
    check(trained_language_model(), padded, known)
    with pytest.raises(UserError, match="nats more than the model expects"):
        check(trained_language_model(), padded, ~known)


def test_few_tokens_say_nothing_and_are_no_error():
    check(trained_language_model(), torch.zeros(8, 1, dtype=torch.long))
