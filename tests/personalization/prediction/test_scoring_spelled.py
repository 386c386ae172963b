import numpy as np
import pytest
import torch

from personalization.data.texts import TextPreprocessing
from personalization.prediction.scoring import score_spelled, score_tokens
from personalization.vocabulary.cut import choose_tokens, cut_vocabulary
from personalization.vocabulary.spelling import spelling
from tests.tiny_text import VOCABULARY, WORDS, tiny_language_model, tiny_tokenizer


def cut_to(most):
    """A model cut to `most` tokens, how text is spelled for it, and windows of whole tokens."""
    full = TextPreprocessing(tiny_tokenizer().to_str(), 0, 64)
    cut = choose_tokens(full, np.zeros(0, dtype=np.int64), np.zeros(VOCABULARY), most=most)
    windows = full.encode(" ".join(WORDS * 3))[:27].reshape(3, 9)
    return cut_vocabulary(tiny_language_model("llama"), cut), spelling(full, cut.preprocessing), windows


def test_with_all_tokens_it_is_the_usual_score():
    model, spelled, windows = cut_to(VOCABULARY)
    found = score_spelled(model, windows, spelled)
    tokens = torch.from_numpy(windows)
    expected = score_tokens(model, tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(found.nats, expected.nats)
    assert torch.equal(found.first, expected.first)


@pytest.mark.parametrize("most", [257, 280, 300])
def test_a_token_costs_what_its_pieces_cost_after_all_before_them(most):
    model, spelled, windows = cut_to(most)
    found = score_spelled(model, windows, spelled)
    for row, window in enumerate(windows):
        for place in range(1, len(window)):
            before = spelled.spell(window[:place])[len(spelled.pieces[window[0]]) - 1 :]
            pieces = spelled.pieces[window[place]]
            ids = torch.from_numpy(np.concatenate([before, pieces]))[None]
            with torch.no_grad():
                scores = model(input_ids=ids).logits[0].log_softmax(-1)
            at = [len(before) - 1 + piece for piece in range(len(pieces))]
            cost = -sum(float(scores[where, piece]) for where, piece in zip(at, pieces, strict=True))
            assert float(found.nats[row, place - 1]) == pytest.approx(cost, abs=1e-3)
            assert int(found.first[row, place - 1]) == spelled.whole[int(scores[at[0]].argmax())]
