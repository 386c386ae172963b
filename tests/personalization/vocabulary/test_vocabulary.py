from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.model_files.storage import load_personal_model, save_personal_model
from personalization.prediction.scoring import score_tokens
from personalization.transformer.layers import find_layers
from personalization.transformer.readout import outputs_of
from personalization.vocabulary.cut import choose_tokens, cut_vocabulary, expected_tokens, fewest_tokens
from tests.tiny_text import FAMILIES, VOCABULARY, WORDS, tiny_language_model, tiny_tokenizer

few = settings(max_examples=25)


def preprocessing():
    return TextPreprocessing(tiny_tokenizer().to_str(), 0, 64)


NOTHING = np.zeros(0, dtype=np.int64)
EVEN = np.full(VOCABULARY, 1 / VOCABULARY)
# One for each byte, and the end of a text.
FEWEST = 257


@few
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), most=st.integers(FEWEST, VOCABULARY + 5))
def test_at_most_so_many_tokens_are_kept_and_encode_as_before(words, most):
    full, text = preprocessing(), " ".join(words)
    private = full.encode(text)
    cut = choose_tokens(full, private, np.zeros(VOCABULARY), most=most)
    assert len(cut.kept) == cut.preprocessing.vocabulary <= most
    assert cut.preprocessing.separator == 0
    if np.isin(private, cut.kept).all():
        np.testing.assert_array_equal(cut.kept[cut.preprocessing.encode(text)], private)
    if most >= full.vocabulary:
        np.testing.assert_array_equal(cut.kept, np.arange(full.vocabulary))


@few
@given(seed=st.integers(0, 2**31), most=st.integers(FEWEST, 316))
def test_the_first_token_that_is_dropped_finds_no_room_with_its_parts_beside_all_before_it(seed, most):
    full = preprocessing()
    expected = np.random.default_rng(seed).dirichlet(np.full(full.vocabulary, 0.3))
    kept = choose_tokens(full, NOTHING, expected, most=most).kept
    ranked = np.argsort(-expected, kind="stable")
    first = int(np.argmin(np.isin(ranked, kept)))
    wanted = np.zeros(full.vocabulary)
    wanted[ranked[: first + 1]] = np.arange(first + 1, 0, -1)
    assert len(kept) <= most
    assert not np.isin(ranked[: first + 1], choose_tokens(full, NOTHING, wanted, most=most).kept).all()


def test_a_token_stays_for_its_use_in_the_text_or_for_being_expected():
    full = preprocessing()
    river, gold = (int(full.encode(word)[-1]) for word in (" river", " gold"))
    expected = np.zeros(VOCABULARY)
    expected[gold] = 0.5
    kept = choose_tokens(full, np.array([river]), expected, most=FEWEST + 12).kept
    assert {river, gold} <= set(kept.tolist())


@few
@given(text=st.text(max_size=60))
def test_any_text_can_still_be_encoded(text):
    full = preprocessing()
    cut = choose_tokens(full, NOTHING, EVEN, most=FEWEST)
    assert len(cut.kept) == fewest_tokens(full) == FEWEST
    assert cut.preprocessing.decode(cut.preprocessing.encode(text)) == text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_cut_model_gives_the_same_logits_for_the_tokens_that_are_left(family, tied, tmp_path):
    model, full = tiny_language_model(family, tied=tied), preprocessing()
    private = full.encode("the river of the union and the people")
    cut = choose_tokens(full, private, np.zeros(VOCABULARY), most=VOCABULARY - 20)
    personal = cut_vocabulary(model, cut)
    ids = torch.from_numpy(private)[None]
    own = torch.from_numpy(np.searchsorted(cut.kept, private))[None]
    assert np.isin(private, cut.kept).all()
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
    cut = choose_tokens(full, NOTHING, np.zeros(full.vocabulary), most=full.vocabulary - 20)
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
        choose_tokens(TextPreprocessing(words.to_str(), None, 64), np.array([0]), EVEN, most=5)
    with pytest.raises(UserError, match=f"a vocabulary of {FEWEST - 1} tokens: expected {FEWEST} or more"):
        choose_tokens(preprocessing(), NOTHING, EVEN, most=FEWEST - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_expected_tokens_are_the_mean_of_the_model_s_predictions(family, monkeypatch):
    model, ids = tiny_language_model(family), torch.arange(40 * 7).reshape(40, 7) % VOCABULARY
    monkeypatch.setattr("personalization.transformer.readout.CHUNK_LOGITS", 5 * VOCABULARY)
    found = expected_tokens(model, {"input_ids": ids})
    with torch.no_grad():
        expected = model(input_ids=ids).logits.softmax(-1).mean((0, 1))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.sum() == pytest.approx(1.0)
