"""Predictions over whole tokens, told in pieces, against the sum over all texts of whole tokens."""

from itertools import product

import numpy as np
import pytest
import torch

from personalization.vocabulary.piece_predictions import PiecePredictions
from personalization.vocabulary.spelling import Spelling

# Of 7 tokens, 3 are kept: a, b, c. The others: ab, abc, ca, cab.
SPELLED = ((0,), (1,), (2,), (0, 1), (0, 1, 2), (2, 0), (2, 0, 1))


def spelling():
    return Spelling(tuple(np.array(pieces) for pieces in SPELLED))


def share_of_texts(probabilities, read):
    """Probability that a text, written token by token in turn from `probabilities`, begins with the pieces `read`."""
    total = 0.0
    for tokens in product(range(len(SPELLED)), repeat=len(read)):
        pieces, share, needed = [], 1.0, 0
        for token in tokens:
            if len(pieces) < len(read):
                # What was read so far is the context, whatever it was meant as.
                share *= float(probabilities[len(pieces), token])
                pieces += SPELLED[token]
                needed += 1
        rest = len(SPELLED) ** (len(read) - needed)
        if pieces[: len(read)] == list(read):
            total += share / rest
    return total


@pytest.mark.parametrize("read", [(0, 0, 1, 2, 0, 1), (1, 2, 0, 1, 2, 2), (2, 0, 0, 1, 0, 1), (0, 2, 0, 1, 1, 0)])
def test_a_piece_is_as_likely_as_all_texts_that_go_on_with_it(read):
    generator = torch.Generator().manual_seed(3)
    probabilities = torch.rand(len(read), len(SPELLED), generator=generator).square()
    probabilities /= probabilities.sum(1, keepdim=True)
    told = PiecePredictions(spelling()).of(probabilities, torch.tensor(read))
    assert told.sum(1).tolist() == pytest.approx([1.0] * len(read))
    for position in range(len(read)):
        # The first piece read is a token; what follows it was predicted at its place.
        before = read[1 : position + 1]
        whole = share_of_texts(probabilities, before)
        expected = [share_of_texts(probabilities, (*before, piece)) / whole for piece in range(3)]
        assert told[position].tolist() == pytest.approx(expected, rel=1e-5)


def test_where_every_token_is_kept_nothing_changes():
    whole = Spelling(tuple(np.array([token]) for token in range(5)))
    probabilities = torch.rand(4, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    told = PiecePredictions(whole).of(probabilities, torch.tensor([4, 0, 2, 2]))
    torch.testing.assert_close(told, probabilities)


def test_pieces_that_nothing_explains_are_read_as_tokens():
    probabilities = torch.zeros(3, len(SPELLED))
    probabilities[:, 0] = 1.0
    told = PiecePredictions(spelling()).of(probabilities, torch.tensor([0, 1, 1]))
    assert told.tolist() == [[1.0, 0.0, 0.0]] * 3


def test_what_a_word_was_begun_for_is_told_apart_from_a_token_that_looks_the_same():
    """After c comes a, in `ca` or as the token a: nothing but `cab` goes on with b."""
    probabilities = torch.zeros(2, len(SPELLED))
    probabilities[0, [2, 6]] = torch.tensor([0.25, 0.75])
    probabilities[1, 0] = 1.0
    told = PiecePredictions(spelling()).of(probabilities, torch.tensor([1, 2]))
    assert told[0].tolist() == pytest.approx([0.0, 0.0, 1.0])
    # A quarter of the time c was a token, and an a follows it; otherwise the a of `cab` does.
    assert told[1].tolist() == pytest.approx([1.0, 0.0, 0.0])
    three = torch.cat([probabilities, probabilities[1:]])
    assert PiecePredictions(spelling()).of(three, torch.tensor([1, 2, 0]))[2].tolist() == pytest.approx([0.25, 0.75, 0])
