from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from personalization.errors import UserError
from personalization.layers import find_layers
from personalization.readout import outputs_of
from personalization.scoring import score_tokens
from personalization.storage import load_personal_model, save_personal_model
from personalization.texts import TextPreprocessing
from personalization.vocabulary import choose_tokens, cut_vocabulary
from tests.tiny_text import FAMILIES, VOCABULARY, WORDS, tiny_language_model, tiny_tokenizer

few = settings(max_examples=25, deadline=None)


def preprocessing():
    return TextPreprocessing(tiny_tokenizer().to_str(), 0, 64)


@few
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), common=st.sampled_from([0, 5, 30, 1000]))
def test_kept_tokens_are_encoded_as_before_token_by_token(words, common):
    full, text = preprocessing(), " ".join(words)
    private = full.encode(text)
    cut = choose_tokens(full, private, common=common)
    again = cut.preprocessing.encode(text)
    np.testing.assert_array_equal(cut.kept[again], private)
    assert torch.equal(cut.renumbered(torch.from_numpy(private)), torch.from_numpy(again))
    assert len(cut.kept) == cut.preprocessing.vocabulary <= full.vocabulary
    assert cut.preprocessing.separator == 0
    if common == 1000:
        assert len(cut.kept) == full.vocabulary


@few
@given(text=st.text(max_size=60))
def test_any_text_can_still_be_encoded(text):
    full = preprocessing()
    cut = choose_tokens(full, np.zeros(0, dtype=np.int64), common=0)
    assert len(cut.kept) < full.vocabulary
    assert cut.preprocessing.decode(cut.preprocessing.encode(text)) == text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_cut_model_gives_the_same_logits_for_the_tokens_that_are_left(family, tied, tmp_path):
    model, full = tiny_language_model(family, tied=tied), preprocessing()
    private = full.encode("the river of the union and the people")
    cut = choose_tokens(full, private, common=10)
    personal = cut_vocabulary(model, cut)
    ids = torch.from_numpy(private)[None]
    own = cut.renumbered(ids)
    with torch.no_grad():
        expected = model(input_ids=ids).logits[..., torch.from_numpy(cut.kept)]
        torch.testing.assert_close(personal(input_ids=own).logits, expected)
        torch.testing.assert_close(outputs_of(personal, {"input_ids": own}), outputs_of(model, {"input_ids": ids}))
    kind = type(model.get_input_embeddings())
    assert type(personal.get_input_embeddings()) is kind
    assert model.config.vocab_size == VOCABULARY
    layers = find_layers(model)
    save_personal_model(tmp_path, personal, layers=layers, kept=[np.arange(layer.units) for layer in layers])
    loaded = load_personal_model(tmp_path).model
    scores = [score_tokens(m, own[:, :-1], own[:, 1:]) for m in (personal, loaded)]
    torch.testing.assert_close(scores[0].nats, scores[1].nats, atol=1e-3, rtol=1e-3)
    weights = [m.get_input_embeddings().weight is m.get_output_embeddings().weight for m in (model, personal, loaded)]
    assert weights[0] == weights[1] == weights[2]


@few
@given(text=st.text(max_size=60))
def test_what_a_tokenizer_that_lacks_bytes_can_encode_it_still_can(text):
    full = TextPreprocessing(tokenizer_without_rare_bytes(), None, 64)
    cut = choose_tokens(full, np.zeros(0, dtype=np.int64), common=0)
    assert len(cut.kept) < full.vocabulary < 256
    assert cut.preprocessing.decode(cut.preprocessing.encode(text)) == full.decode(full.encode(text))


@cache
def tokenizer_without_rare_bytes():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(WORDS * 3, trainers.BpeTrainer(vocab_size=100, show_progress=False))
    return tokenizer.to_str()


def test_a_tokenizer_that_merges_nothing_is_refused():
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(UserError, match="a WordLevel tokenizer, which does not merge its tokens"):
        choose_tokens(TextPreprocessing(words.to_str(), None, 64), np.array([0]), common=5)
    with pytest.raises(UserError, match="expected 0 or more"):
        choose_tokens(preprocessing(), np.array([0]), common=-1)
